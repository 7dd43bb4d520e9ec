package hosttest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// manyModels is a version of a document with n models of two targets each.
func manyModels(n, version int) []byte {
	var b strings.Builder
	b.WriteString("filters:\n  - bbr:\n      models:\n        - {name: llama, targets: [{pool: p}]}\n")
	for i := range n {
		fmt.Fprintf(&b, "        - {name: team-%d-model-%d, targets: [{model: served-%d, pool: p, weight: 90}, {model: next-%d-%d, pool: p, weight: 10}]}\n",
			i%50, i, i, version, i)
	}
	b.WriteString("  - picker: {}\ncompanion: {cluster: inlet-companion}\n")
	return []byte(b.String())
}

// TestUpdatesTakeNoMoreMemory: a VM outlives its configurations, and its memory never shrinks. The first documents make it grow, and
// those that follow find their memory there.
func TestUpdatesTakeNoMoreMemory(t *testing.T) {
	plugin, err := BuildWasm("../../cmd/bundle-wasm")
	require.NoError(t, err)
	h, err := Wazero(t.Context(), plugin)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	const models = 1000
	g, err := h.Start(&Scenario{Name: "updates", Config: string(manyModels(models, 0)), Workers: 1, Pools: map[string][]Replica{"p": {{Name: "a"}}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	guest := g.(*gateway).workers[0].guest.(*wasmGuest)
	memory := func() uint32 { return guest.vm.module.Memory().Size() }
	update := func(version int) {
		require.NoError(t, guest.update(manyModels(models, version)))
		g.(*gateway).clock.advance(time.Second) // ticks, and a new long poll
	}
	update(1)
	first := memory()
	for version := range 12 {
		update(version + 2)
	}
	require.Less(t, memory(), first+first/2)
	require.Error(t, guest.update([]byte("filters: 1")), "and a mistake is still one")
}
