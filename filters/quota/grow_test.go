package quota

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// unit shows the filter the next n tokens of a stream.
func (c *call) unit(n int) filter.Verdict {
	u := &filter.Unit{Stream: true, Begun: true, Pieces: []filter.Piece{{Text: []byte(strings.Repeat("word", n+1)), Seen: 4}}}
	return c.r.f.OnResponse(c.x, u)
}

func ending(amounts string) string { return subscribed(amounts) + "endStreams: true\n" }

// A stream reserves more as it goes on, in steps, and is ended when there is no more. Then all that went through is charged.
func TestAStreamReservesMore(t *testing.T) {
	r := newRig(t, ending("tokens: {total: 1000/day}"))
	c := r.send(body{prompt: 400, stream: true})
	require.Equal(t, 200, c.status())
	_, asked := c.x.Screening(0)
	require.True(t, asked)
	require.EqualValues(t, 1000-100-125, r.left(c))
	require.Equal(t, filter.Next, c.unit(125))
	require.EqualValues(t, 1000-100-125, r.left(c), "all of that was reserved")
	require.Equal(t, filter.Next, c.unit(1))
	require.EqualValues(t, 1000-100-125-62, r.left(c))
	for range 77 {
		require.Equal(t, filter.Next, c.unit(10))
	}
	require.EqualValues(t, 1000-100-896, r.left(c), "near the end no more than what has come")
	require.Equal(t, filter.Next, c.unit(4))
	v := c.unit(1)
	require.Equal(t, 429, v.Refusal().Status)
	require.Equal(t, "tokens_limit", v.Refusal().Reason)
	require.EqualValues(t, 1, r.samples["inlet_quota_stream_ended_total p"])
	c.end(ends{status: 200, cut: true, events: 80})
	require.Zero(t, r.left(c))
}

// left is what is left of the first limit of a call.
func (r *rig) left(c *call) int64 {
	return r.f.table.Standing(r.clock, &c.x.State().(*request).demands[0]).Remaining
}

// Whatever was reserved on the way is given back, and the usage that the response reports counts.
func TestWhatGrewIsGivenBack(t *testing.T) {
	for _, amounts := range []string{"tokens: {completion: 1000/day}", "tokens: {total: 1000/day}", "budget: 0.001/day"} {
		r := newRig(t, ending(amounts)+"prices: {\"*\": {prompt: 1, completion: 1}}\n")
		scale := int64(1)
		if strings.HasPrefix(amounts, "budget") {
			scale = 1000
		}
		c := r.send(body{stream: true})
		for range 30 {
			require.Equal(t, filter.Next, c.unit(10), amounts)
		}
		require.Less(t, r.left(c), 1000*scale-300*scale+1, amounts)
		c.end(ends{status: 200, usage: told(0, 250), cut: strings.HasPrefix(amounts, "tokens: {total"), events: 300}) // what is told counts, not what was seen
		require.Equal(t, 750*scale, r.left(c), amounts)
	}
}

// A stream that goes on when a window ends takes of each window what went through in it.
func TestAStreamGrowsIntoTheNextWindow(t *testing.T) {
	for name, worker := range map[string]string{"module": "", "wasm": "w"} {
		r := newRig(t, "anonymous: a")
		r.deps.Worker, r.deps.Store = worker, mem.NewStore()
		clear(r.kept)
		r.load(ending("tokens: {total: 1000/min}"))
		c := r.send(body{prompt: 4, stream: true}) // two seconds before 12:01
		require.Equal(t, 200, c.status(), name)
		for range 100 {
			require.Equal(t, filter.Next, c.unit(1), name)
		}
		r.pass(10 * time.Second)
		for range 525 {
			require.Equal(t, filter.Next, c.unit(1), name)
		}
		c.end(ends{status: 200, usage: told(1, 625)})
		require.EqualValues(t, 1000-500, r.left(r.send(body{max: 1}).end(ends{refused: true, served: "-"})), name)
	}
	// One that ends with the limit has used it up, whichever way it ends.
	for _, e := range []ends{{status: 200, cut: true, events: 1118}, {status: 200, usage: told(1, 1125)}} {
		r := newRig(t, ending("tokens: {total: 1000/min}"))
		c := r.send(body{prompt: 4, stream: true})
		passed := 0
		for ; c.unit(1) == filter.Next; passed++ {
			r.pass(40 * time.Millisecond)
		}
		require.Equal(t, 125+1000, passed)
		c.end(e)
		require.Equal(t, 429, r.send(body{max: 1}).end(ends{}).status())
	}
}

// More than was reserved counts with the last part, less gives back of the last parts first.
func TestWhatGrewIsSettledInOrder(t *testing.T) {
	r := newRig(t, ending("tokens: {completion: 800/min}"))
	c := r.send(body{stream: true})
	require.Equal(t, filter.Next, c.unit(100)) // all of the first reservation
	r.pass(10 * time.Second)
	require.Equal(t, filter.Next, c.unit(40))
	require.Equal(t, filter.Next, c.unit(40))
	q := c.x.State().(*request)
	require.Equal(t, 2, q.grown.taken)
	c.end(ends{status: 200, usage: told(9, 900)})
	require.Equal(t, []int64{100}, q.used)
	require.Equal(t, []int64{q.grown.demands[0].Amount, 800 - q.grown.demands[0].Amount}, q.grown.used)
	require.Zero(t, r.left(c))
}

// Nobody looks at streams where nothing could end them.
func TestWhatIsNotWatched(t *testing.T) {
	for amounts, b := range map[string]body{
		"requests: 5/day":                 {stream: true},
		"tokens: {prompt: 1000/day}":      {stream: true},
		"tokens: {total: 1000/day}":       {},
		"tokens: {completion: 1000/day}":  {stream: true, api: llm.Embeddings},
		"concurrency: 2, requests: 5/day": {stream: true},
	} {
		c := newRig(t, ending(amounts)).send(b)
		_, asked := c.x.Screening(0)
		require.False(t, asked, amounts)
	}
	c := newRig(t, subscribed("tokens: {total: 1000/day}")).send(body{stream: true})
	_, asked := c.x.Screening(0)
	require.False(t, asked, "not configured")
}

// In shadow mode a stream goes on, and is counted once.
func TestAStreamInShadowMode(t *testing.T) {
	r := newRig(t, ending("tokens: {completion: 100/day}")+"shadow: true\n")
	c := r.send(body{stream: true})
	for range 30 {
		require.Equal(t, filter.Next, c.unit(10))
	}
	require.EqualValues(t, 1, r.samples["inlet_quota_stream_ended_total p"])
	c.end(ends{status: 200, usage: told(1, 300)})
	require.EqualValues(t, 0, r.left(c))
}

// A stream waits for the companion like a request, and is ended when the companion has no more.
func TestAStreamAsksTheCompanion(t *testing.T) {
	r := join(t, newCompanion(t), ending("tokens: {completion: 800/day}"))
	c, _ := r.send(body{stream: true})
	require.Equal(t, 200, c.status())
	asked, passed := 0, 0
	for {
		u := &filter.Unit{Stream: true, Pieces: []filter.Piece{{Text: []byte(strings.Repeat("word", 10))}}}
		v := r.f.OnResponse(c.x, u)
		for v.Asks() {
			asked++
			c.x.SetUnit(u)
			v = r.f.OnReply(c.x, r.companion.answer(r.clock, v.Calls()[0].Body))
			c.x.SetUnit(nil)
		}
		if v.Refusal() != nil {
			require.Equal(t, 429, v.Refusal().Status)
			break
		}
		passed += 10
	}
	require.Equal(t, 800, passed)
	require.Positive(t, asked)
	c.end(ends{status: 200, cut: true})
	for range 5 {
		r.tick()
	}
	c, _ = r.send(body{max: 1})
	require.Equal(t, 429, c.status())
}
