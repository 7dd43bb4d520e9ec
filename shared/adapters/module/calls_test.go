package module

import (
	"testing"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func callTo(tag int) filter.Call {
	return filter.Call{Cluster: "guard", Path: "/", Timeout: time.Second, Tag: tag}
}

// Replies find their calls, in whatever order they come.
func TestSeveralCalls(t *testing.T) {
	var tags []int
	p := &policy{needs: filter.NeedRequest}
	p.request = func(*filter.Exchange) filter.Verdict { return filter.Wait(callTo(1), callTo(2)) }
	p.reply = func(_ *filter.Exchange, r *filter.Reply) filter.Verdict {
		tags = append(tags, r.Tag)
		return filter.Next
	}
	c, e := load(t, policyOnly, p)
	s := open(t, c, e)
	s.filter.OnRequestHeaders(s.request, false)
	require.Equal(t, shared.BodyStatusStopAndBuffer, s.data(true, chat))
	s.calls[0], s.calls[1] = s.calls[1], s.calls[0]
	late := s.calls[0]
	s.answer(shared.HttpCalloutSuccess, fine)
	require.Equal(t, []string{"call guard", "call guard"}, s.did)
	s.answer(shared.HttpCalloutSuccess, fine)
	require.Equal(t, []string{"call guard", "call guard", "continue"}, s.did)
	require.Equal(t, []int{2, 1}, tags)
	s.end()
	// Of a stream that is over, and may be another exchange's by now: nothing of it is written.
	late.OnHttpCalloutDone(1, shared.HttpCalloutSuccess, nil, []shared.UnsafeEnvoyBuffer{viewString("a"), viewString("b")})
	require.Len(t, tags, 2)
	require.Empty(t, late.(*callout).reply)
}

// A response that waits for a call beside its request stays in Envoy's buffer, whether somebody reads it or not.
func TestResponseIsStoppedForACallBeside(t *testing.T) {
	for _, kind := range []string{"application/json", "audio/wav"} {
		for _, verdict := range []filter.Verdict{filter.Next, filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}})} {
			p := &policy{needs: filter.NeedRequest | filter.NeedUsage}
			p.request = func(*filter.Exchange) filter.Verdict { return filter.Beside(callTo(1)) }
			p.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return verdict }
			c, e := load(t, policyOnly, p)
			s := open(t, c, e)
			s.filter.OnRequestHeaders(s.request, false)
			require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
			require.Equal(t, shared.HeadersStatusStop, s.respond(false, [2]string{":status", "200"}, [2]string{"content-type", kind}))
			require.Equal(t, shared.BodyStatusStopAndWatermark, s.says(`{"a":`, false))
			require.Equal(t, shared.BodyStatusStopAndWatermark, s.says(`1}`, false))
			require.Equal(t, shared.TrailersStatusStop, s.filter.OnResponseTrailers(nil))
			require.Empty(t, s.client)
			s.answer(shared.HttpCalloutSuccess, fine)
			if verdict == filter.Next {
				require.Equal(t, []string{"call guard", "continue response"}, s.did)
				require.Equal(t, []string{`{"a":1}`}, s.client)
			} else {
				require.Equal(t, []string{"call guard", "reply 403 inlet_no"}, s.did)
				require.Empty(t, s.client)
			}
			s.end()
		}
	}
}
