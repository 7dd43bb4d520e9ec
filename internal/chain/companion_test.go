package chain_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// TestEmbed: a host that can run the companion reads its section; another one, such as a wasm plugin, refuses it.
func TestEmbed(t *testing.T) {
	var link *filter.Link
	known := []filter.Factory{talkative("w", &link, func() []byte { return nil }, func(*filter.Reply) {})}
	deps := *newRig(t, "").chain.Deps()
	deps.Companion = &filter.Link{Proxy: "p"}
	interval := 0
	embed := chain.Embed(func(o *conf.Object) { o.Int("interval", &interval, 1, 9) }, []conf.Help{{Key: "interval", Text: "how often"}})
	read := func(companion string, options ...chain.Option) (*chain.Chain, error) {
		return chain.New([]byte("{filters: [w: {}], companion: "+companion+"}"), known, &deps, options...)
	}

	c, err := read("{embedded: {interval: 3}}", embed)
	require.NoError(t, err)
	require.Equal(t, 3, interval)
	require.True(t, c.Companion().Embedded)
	require.NotNil(t, link, "there will be snapshots")
	require.Empty(t, link.Cluster, "... and nobody to call")

	c, err = read("{cluster: c}", embed)
	require.NoError(t, err)
	require.False(t, c.Companion().Embedded)

	for companion, want := range map[string]string{
		"{}":                                    "companion: 1:31: missing key \"cluster\", the cluster of a companion, or \"embedded\", a companion inside this Envoy",
		"{embedded: {interval: 30}}":            "companion.embedded.interval: 1:53: 30 is out of range",
		"{cluster: c, embedded: {interval: 3}}": "companion.embedded: 1:54: is a companion inside this Envoy, and cluster another one: remove one of the two",
		"{wait: 1s, embedded: {interval: 3}}":   "companion.wait: 1:38: goes with cluster: nobody polls an embedded companion",
	} {
		_, err := read(companion, embed)
		require.ErrorContains(t, err, want, companion)
	}
	_, err = read("{embedded: {interval: 3}}")
	require.EqualError(t, err, "companion.embedded: 1:42: a companion inside Envoy is for native builds only (libinlet.so, inlet-golang.so): run cmd/companion, and name its cluster, companion: {cluster: …}")
	_, err = read("{}")
	require.EqualError(t, err, `companion: 1:31: missing key "cluster"`)

	_, help := chain.Describe(known, &deps, embed)
	require.Contains(t, help, conf.Help{Key: "companion.embedded.interval", Text: "how often"})
}
