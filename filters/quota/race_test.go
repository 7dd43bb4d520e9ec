package quota

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// The threads of a module share their counters: a limit is exact, and what is charged is what was told.
func TestThreadsShareALimit(t *testing.T) {
	r := newRig(t, "anonymous: a")
	r.deps.NewMutex = func() filter.Mutex { return new(sync.Mutex) }
	r.deps.Metrics = nowhere{}
	clear(r.kept)
	r.load(subscribed("requests: 100/day, tokens: {total: 1M/day}"))
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			x := &filter.Exchange{}
			for range 100 {
				x.Reset(1)
				x.Start, x.API, x.Method, x.Path = r.clock, llm.Chat, "POST", "/v1/chat/completions"
				x.RequestHeaders = headers{"x-api-key: demo"}
				x.Request = &llm.Request{Model: "llama", PromptBytes: 400, MaxTokens: 10}
				v := r.f.OnRequestHeaders(x)
				if v == filter.Next {
					v = r.f.OnRequest(x)
				}
				if v != filter.Next {
					refused.Add(1)
					r.f.OnDone(x, filter.End{Refused: true, Status: 429})
					continue
				}
				admitted.Add(1)
				x.Response.Headers, x.Response.Status, x.Usage = headers{}, 200, told(90, 10)
				r.f.OnResponseHeaders(x)
				r.f.OnDone(x, filter.End{Complete: true, Status: 200})
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 100, admitted.Load())
	require.EqualValues(t, 700, refused.Load())
	r.load(subscribed("tokens: {total: 1M/day}"))
	left, _ := r.remaining()
	require.EqualValues(t, 1_000_000-100*100, left)
}

// The main thread of a module talks to the companion while workers send requests: the limit stays exact, and what is
// left over can be had.
func TestThreadsAndTheCompanion(t *testing.T) {
	c := newCompanion(t)
	c.version, c.document = 1, withKeys(strings.Replace(document1, "2/day", "500/day", 1))
	r := join(t, c, "anonymous: a")
	r.deps.NewMutex = func() filter.Mutex { return new(sync.Mutex) }
	r.deps.Metrics = nowhere{}
	clear(r.kept)
	r.reload("source: companion")
	r.tick()
	var talking sync.Mutex
	answer := func(message []byte) *filter.Reply {
		talking.Lock()
		defer talking.Unlock()
		return c.answer(r.clock, message)
	}
	var admitted, open atomic.Int64
	var workers, main sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			x := &filter.Exchange{}
			for range 250 {
				x.Reset(1)
				x.Start, x.API, x.Method, x.Path = r.clock, llm.Chat, "POST", "/v1/chat/completions"
				x.RequestHeaders, x.Request = headers{"x-api-key: demo"}, &llm.Request{Model: "llama"}
				v := r.f.OnRequestHeaders(x)
				if v == filter.Next {
					v = r.f.OnRequest(x)
				}
				for v.Asks() {
					v = r.f.OnReply(x, answer(v.Calls()[0].Body))
				}
				if v == filter.Next {
					admitted.Add(1)
				} else if v.Refusal().Status == 503 {
					open.Add(1)
				}
				x.Response.Headers, x.Response.Status = headers{}, 200
				r.f.OnDone(x, filter.End{Complete: v == filter.Next, Refused: v != filter.Next, Status: 200})
			}
		})
	}
	done := make(chan struct{})
	main.Go(func() {
		talk := r.deps.Companion.Conversations()[0]
		for {
			select {
			case <-done:
				return
			default:
			}
			if body := talk.Take(); body != nil {
				talk.Heard(answer(body))
			}
		}
	})
	workers.Wait()
	close(done)
	main.Wait()
	require.LessOrEqual(t, admitted.Load(), int64(500))
	require.GreaterOrEqual(t, admitted.Load()+open.Load(), int64(500))
}
