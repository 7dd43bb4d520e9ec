package endpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// Facts are equal if they say the same, in whatever memory: not known is another thing than empty.
func TestFactsThatSayTheSame(t *testing.T) {
	models := []func() *endpoint.Models{
		func() *endpoint.Models { return nil },
		func() *endpoint.Models { return &endpoint.Models{} },
		func() *endpoint.Models { return &endpoint.Models{Names: []string{"a"}} },
		func() *endpoint.Models { return &endpoint.Models{Names: []string{"a", "b"}} },
		func() *endpoint.Models { return &endpoint.Models{Adapters: []endpoint.Adapter{{Name: "a"}}} },
		func() *endpoint.Models {
			return &endpoint.Models{Adapters: []endpoint.Adapter{{Name: "a", Parent: "b"}}}
		},
		func() *endpoint.Models {
			return &endpoint.Models{Names: []string{"a"}, Adapters: []endpoint.Adapter{{Name: "a", Parent: "b"}}}
		},
	}
	for i, a := range models {
		for j, b := range models {
			require.Equal(t, i == j, a().Equal(b()), "%+v and %+v", a(), b())
		}
	}
	loras := []func() *endpoint.LoRA{
		func() *endpoint.LoRA { return nil },
		func() *endpoint.LoRA { return &endpoint.LoRA{} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Max: 1} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Running: []string{"a"}} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Waiting: []string{"a"}} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Max: 1, Running: []string{"a"}} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Max: 1, Running: []string{"a"}, Waiting: []string{"a"}} },
		func() *endpoint.LoRA { return &endpoint.LoRA{Max: 2, Running: []string{"a"}, Waiting: []string{"a"}} },
	}
	for i, a := range loras {
		for j, b := range loras {
			require.Equal(t, i == j, a().Equal(b()), "%+v and %+v", a(), b())
		}
	}
}
