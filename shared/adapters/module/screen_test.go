package module

import (
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

const (
	first  = `data: {"choices":[{"index":0,"delta":{"content":"one"}}]}` + "\n\n"
	second = `data: {"choices":[{"index":0,"delta":{"content":"two"}}]}` + "\n\n"
)

// screens opens an exchange whose response is screened, at the response's headers.
func screens(t *testing.T, unit func(*filter.Exchange, *filter.Unit) filter.Verdict) *envoyStream {
	t.Helper()
	p := &policy{needs: filter.NeedRequest, unit: unit}
	p.request = func(x *filter.Exchange) filter.Verdict {
		x.Screen(filter.Screening{})
		return filter.Next
	}
	p.reply = func(x *filter.Exchange, _ *filter.Reply) filter.Verdict {
		x.Unit().Replace(0, 0, 3, "new")
		return filter.Next
	}
	c, e := load(t, policyOnly, p)
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
	require.Equal(t, shared.HeadersStatusStop, s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", "text/event-stream"}))
	return s
}

func ask(*filter.Exchange, *filter.Unit) filter.Verdict {
	return filter.Wait(filter.Call{Cluster: "guard", Path: "/", Timeout: time.Second})
}

// A response is held with an empty buffer, and goes on, edited, when the call is replied to.
func TestResponseIsHeldForACall(t *testing.T) {
	for _, how := range []string{"last bytes", "an end without bytes", "trailers"} {
		t.Run(how, func(t *testing.T) {
			s := screens(t, ask)
			require.Equal(t, shared.BodyStatusStopAndWatermark, s.says(first[:20], false))
			require.Equal(t, shared.BodyStatusStopAndWatermark, s.says(first[20:], how == "last bytes"))
			require.Empty(t, s.heldResponse.String())
			require.Equal(t, []string{"call guard"}, s.did)
			switch how {
			case "an end without bytes":
				require.Equal(t, shared.BodyStatusStopAndWatermark, s.says("", true))
			case "trailers":
				require.Equal(t, shared.TrailersStatusStop, s.filter.OnResponseTrailers(nil))
			}
			s.answer(shared.HttpCalloutSuccess, fine)
			want := `data: {"choices":[{"index":0,"delta":{"content":"new"}}]}` + "\n\n"
			require.Equal(t, []string{want}, s.client)
			s.end()
		})
	}
}

// A response that Inlet ends is over for the client at once, whatever the replica does; the end comes at the worker's next
// turn, behind the last event.
func TestResponseIsEnded(t *testing.T) {
	s := screens(t, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		if string(u.Pieces[0].Text) == "two" {
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "blocked", Message: "No."}})
		}
		return filter.Next
	})
	require.Equal(t, shared.BodyStatusContinue, s.says(first, false))
	require.Equal(t, shared.BodyStatusContinue, s.says(second, false))
	require.Empty(t, s.did)
	require.Len(t, s.tasks, 1)
	s.tasks[0]()
	require.Equal(t, []string{`send "" true`}, s.did)
	require.Equal(t, []string{
		first,
		"event: error\ndata: {\"error\":{\"message\":\"No.\",\"type\":\"permission_error\",\"param\":null,\"code\":\"blocked\"}}\n\ndata: [DONE]\n\n",
		"",
	}, s.client)
	s.end()
	require.EqualValues(t, 1, s.metrics["inlet_request_total{,,ended}"])

	// The memory may serve another exchange by now, on another thread: a task that comes late does nothing with it.
	memory := s.filter.(*stream)
	memory.config.Panicked("a count that waits for the next callback")
	waiting := memory.config.process.metrics.waiting.Load()
	require.Positive(t, waiting)
	s.tasks[0]()
	require.Len(t, s.did, 1)
	require.False(t, memory.broken)
	require.Equal(t, waiting, memory.config.process.metrics.waiting.Load())
}

// However many pieces a callback's buffer has, they are shown at once.
func TestPiecesOfACallbackAreOneUnit(t *testing.T) {
	var units []string
	s := screens(t, func(_ *filter.Exchange, u *filter.Unit) filter.Verdict {
		units = append(units, string(u.Pieces[0].Text))
		u.Replace(0, 0, 3, "new")
		return filter.Next
	})
	b := newBuffer(first[:30], first[30:]+second[:10], second[10:])
	require.Equal(t, shared.BodyStatusContinue, s.filter.OnResponseBody(b, true))
	require.Equal(t, []string{"onetwo"}, units)
	require.Equal(t, strings.Replace(first, "one", "new", 1)+second, b.String())
	s.end()
}
