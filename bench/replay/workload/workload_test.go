package workload

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// The published figures of the traces, and what one infinite cache would find.
func TestShippedTraces(t *testing.T) {
	mooncake, err := Shipped(Mooncake)
	require.NoError(t, err)
	require.Len(t, mooncake.Requests, 12031)
	require.InDelta(t, 59, mooncake.Span().Minutes(), 0.1)
	b := mooncake.Bound()
	require.InDelta(t, 0.366, b.HitRatio(), 0.0005)
	require.Equal(t, 144793823, b.Input)

	azure, err := Shipped(Azure)
	require.NoError(t, err)
	require.Len(t, azure.Requests, 19366)
	require.InDelta(t, 58.4, azure.Span().Minutes(), 0.1)
	b = azure.Bound()
	require.Zero(t, b.HitRatio())
	require.Equal(t, b.Input, b.Uncached)

	_, err = Shipped("another")
	require.Error(t, err)
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		require.NoError(t, err)
		var z io.WriteCloser = f
		switch filepath.Ext(name) {
		case ".gz":
			z = gzip.NewWriter(f)
		case ".zst":
			z, err = zstd.NewWriter(f)
			require.NoError(t, err)
		}
		_, err = io.WriteString(z, text)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		return path
	}
	const lines = `{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
{"timestamp": 0, "input_length": 512, "output_length": 7, "hash_ids": [1]}
`
	const rows = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,0,109"
	for _, name := range []string{"my.trace.jsonl", "my.trace.jsonl.gz", "my.trace.jsonl.zst"} {
		w, err := Open(write(name, lines))
		require.NoError(t, err)
		require.Equal(t, "my.trace", w.Name)
		require.Equal(t, 512, w.BlockTokens)
		require.Equal(t, []Request{
			{Input: 512, Output: 7, Blocks: []uint32{1}},
			{At: 3 * time.Second, Input: 600, Output: 5, Blocks: []uint32{1, 2}, line: 1},
		}, w.Requests)
	}
	w, err := Open(write("azure.csv", rows))
	require.NoError(t, err)
	require.Equal(t, 4314579*time.Microsecond, w.Requests[1].At.Round(time.Microsecond))
	require.Equal(t, 1, w.Requests[1].Input)

	for text, want := range map[string]string{
		"":            "fewer than two",
		lines + "x":   "request 3",
		lines + "{}":  "request 3: input_length 0",
		lines[:83]:    "request 2",
		`{"x": "y"}x`: "request 1",
	} {
		_, err := Open(write("wrong.jsonl", text))
		require.ErrorContains(t, err, "wrong.jsonl: ")
		require.ErrorContains(t, err, want)
	}
	_, err = Open(write("wrong.csv", rows+"\n2023,1,2\n"))
	require.ErrorContains(t, err, "request 3")
	_, err = Open(write("wrong.txt", rows))
	require.ErrorContains(t, err, `".txt"`)
	for _, ext := range []string{".gz", ".zst"} {
		packed := write("packed.csv", rows)
		require.NoError(t, os.Rename(packed, packed+ext))
		_, err = Open(packed + ext)
		require.ErrorContains(t, err, "packed.csv", "it is not packed: %s", ext)
	}
	_, err = Open(filepath.Join(dir, "none.csv"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Equal ids, and only these, are equal text; lengths are those of the trace.
func TestBodies(t *testing.T) {
	w := &Workload{BlockTokens: 512, Requests: []Request{
		{Input: 1100, Output: 9, Blocks: []uint32{1, 2, 3}},
		{Input: 1500, Output: 9, Blocks: []uint32{1, 2, 4}},
		{Input: 1100, Output: 9, Blocks: []uint32{2, 1, 3}},
	}}
	w.number()
	two := w.Copies(2)
	require.NoError(t, two.Scan())
	facts := two.Reader()
	var all []*llm.Request
	for i := range two.Requests {
		r := &two.Requests[i]
		q, err := facts.Facts(r)
		require.NoError(t, err)
		require.Equal(t, 4*r.Input, q.PromptBytes)
		require.Len(t, q.Prefix, r.Input/llm.PrefixBlockTokens)
		require.Equal(t, Model, q.Model)

		// The hashes of a copy are what the scanner reads from its own body.
		whole, err := scan(new(llm.RequestScanner), two.AppendBody(nil, r))
		require.NoError(t, err)
		require.Equal(t, whole.Prefix, q.Prefix)
		require.Equal(t, whole.Field(saltField), q.Field(saltField))
		require.Equal(t, whole.MaxTokens, q.MaxTokens)
		require.Equal(t, whole.Stream, q.Stream)
		require.Equal(t, r.Tenant, len(q.Field(saltField).Value)/len("tenant-1"))
		all = append(all, q)
	}
	require.Equal(t, all[0].Prefix[:16], all[1].Prefix[:16])
	require.NotEqual(t, all[0].Prefix[16], all[1].Prefix[16])
	require.NotEqual(t, all[0].Prefix[0], all[2].Prefix[0])
}

func TestOverAndCopies(t *testing.T) {
	w, err := Shipped(Mooncake)
	require.NoError(t, err)
	head := w.Head(500)
	fast := head.Over(10 * time.Second)
	require.InDelta(t, 10, fast.Span().Seconds(), 0.001)
	three := head.Copies(3)
	require.Len(t, three.Requests, 1500)
	one, all := head.Bound(), three.Bound()
	require.Equal(t, one.Times(3), all)
	require.LessOrEqual(t, three.Span()-head.Span(), copiesWithin)
}

// Synthetic workloads have the lengths and the reuse in their documentation, and are the same each time.
func TestSynthetic(t *testing.T) {
	w := ShareGPTLike(300, 60*time.Second, 1)
	b := w.Bound()
	n := float64(len(w.Requests))
	require.InDelta(t, 300*60, n, 500)
	require.InDelta(t, 161, float64(b.Input)/n, 8)
	require.InDelta(t, 338, float64(b.Output)/n, 8)
	require.Zero(t, b.Found)
	require.Equal(t, w, ShareGPTLike(300, 60*time.Second, 1))
	require.NotEqual(t, w.Requests[0], ShareGPTLike(300, 60*time.Second, 2).Requests[0])

	for _, w := range []*Workload{BurstyChat(time.Minute, 1), Agentic(time.Minute, 1)} {
		b := w.Bound()
		require.Greater(t, b.HitRatio(), 0.7, w.Name)
		for i, r := range w.Requests {
			require.Len(t, r.Blocks, (r.Input+63)/64)
			require.True(t, i == 0 || w.Requests[i-1].At <= r.At)
		}
	}
	joined := Joined("all", time.Minute, []*Workload{BurstyChat(time.Minute, 1), BurstyChat(time.Minute, 1)})
	require.InDelta(t, BurstyChat(time.Minute, 1).Bound().HitRatio(), joined.Bound().HitRatio(), 0.01, "the parts share nothing")
}
