package chain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// talkative makes filters that converse, wherever the companion stands in the document.
func talkative(name string, got **filter.Link, take func() []byte, heard func(*filter.Reply)) filter.Factory {
	return filter.Factory{Name: name, New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
		if *got = d.Companion; *got != nil {
			d.Companion.Converse("/v1/"+name, take, heard)
		}
		return silent{}
	}}
}

func TestLink(t *testing.T) {
	now := time.Unix(1000, 0)
	var logs []string
	deps := *newRig(t, "").chain.Deps()
	deps.Now = func() time.Time { return now }
	deps.Log = func(_ filter.Level, message string) { logs = append(logs, message) }
	deps.Companion = &filter.Link{Proxy: "p"}
	var links [2]*filter.Link
	asked, heard := 0, 0
	known := []filter.Factory{
		talkative("ill", &links[0], func() []byte { asked++; panic("the prompt says hello") }, func(*filter.Reply) { panic("the prompt says hello") }),
		talkative("well", &links[1], func() []byte { return []byte("x") }, func(*filter.Reply) { heard++ }),
	}
	c, err := chain.New([]byte("filters: [ill: {}, well: {}]"), known, &deps)
	require.NoError(t, err)
	require.Equal(t, [2]*filter.Link{}, links, "there is no companion")
	require.Empty(t, c.Conversations())

	c, err = chain.New([]byte("{filters: [ill: {}, well: {}], companion: {cluster: c}}"), known, &deps)
	require.NoError(t, err)
	require.Equal(t, "c", links[0].Cluster)
	require.Equal(t, "p", links[0].Proxy)
	require.Same(t, links[0], links[1])
	require.Empty(t, deps.Companion.Conversations(), "the host's own is left alone")

	all := c.Conversations()
	require.Len(t, all, 2)
	require.Equal(t, "/v1/well", all[1].Path)
	require.Equal(t, "x", string(all[1].Take()))
	all[1].Heard(&filter.Reply{})
	require.Equal(t, 1, heard)

	// One that panics is told, is silent for a while, and says nothing else.
	require.Nil(t, all[0].Take())
	require.Len(t, logs, 1)
	require.Contains(t, logs[0], "filter ill panicked with a string at")
	require.Contains(t, logs[0], "conversation")
	require.NotContains(t, logs[0], "hello")
	now = now.Add(5*time.Second - 1)
	require.Nil(t, all[0].Take())
	require.Equal(t, 1, asked)
	all[0].Heard(&filter.Reply{})
	require.Len(t, logs, 2)
	now = now.Add(5 * time.Second)
	require.Nil(t, all[0].Take())
	require.Equal(t, 2, asked)

	deps.Companion = nil // as in a check of the document, which has no host
	_, err = chain.New([]byte("{filters: [well: {}], companion: {cluster: c}}"), known, &deps)
	require.NoError(t, err)
	require.Equal(t, "c", links[1].Cluster)
}
