package endpoint_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func TestAllModels(t *testing.T) {
	m := &endpoint.Models{Names: []string{"llama", "gemma"}, Adapters: []endpoint.Adapter{{Name: "law"}, {Name: "sql"}, {Name: "tweets"}}}
	want := []string{"llama", "gemma", "law", "sql", "tweets"}
	require.Equal(t, want, slices.Collect(m.All()))
	require.Empty(t, slices.Collect((&endpoint.Models{}).All()))
	for n := range want { // an iterator that has seen enough gets no more
		var got []string
		for name := range m.All() {
			if got = append(got, name); len(got) == n+1 {
				break
			}
		}
		require.Equal(t, want[:n+1], got)
	}
}
