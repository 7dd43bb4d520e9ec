package chain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// A refusal may bring headers and a body of its own, and may say that it makes no sense to send the request again.
func TestRefusalOfItsOwnForm(t *testing.T) {
	refuse := func(r filter.Refusal) *host {
		r.Refusal = llm.Refusal{Status: 429, Code: "much", Message: "Too much."}
		rig := newRig(t, "")
		rig.a.headers = func(*filter.Exchange) filter.Verdict { return filter.Deny(r) }
		h := post()
		s, _ := rig.send(h, body)
		s.Done()
		return h
	}
	h := refuse(filter.Refusal{RetryAfter: 1500 * time.Millisecond, Headers: [][2]string{{"x-more", "1"}}})
	require.Equal(t, [][2]string{
		{"content-type", "application/json"}, {"x-inlet-reason", "much"}, {"retry-after", "2"}, {"x-llm-d-request-dropped-reason", "much"}, {"x-more", "1"},
	}, h.reply.Headers)
	require.Contains(t, string(h.reply.Body), `"code":"much"`)

	h = refuse(filter.Refusal{RetryAfter: -1, Body: []byte(`{"fault":{}}`)})
	require.Equal(t, [][2]string{{"content-type", "application/json"}, {"x-inlet-reason", "much"}}, h.reply.Headers)
	require.Equal(t, `{"fault":{}}`, string(h.reply.Body))

	require.Contains(t, refuse(filter.Refusal{}).reply.Headers, [2]string{"retry-after", "1"})
}

// What Envoy knows of a request is there from the first hook on, for a filter that asks for it.
func TestMetadataAndClient(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.7:4711": "10.0.0.7", "[2001:db8::1]:4711": "2001:db8::1", "2001:db8::1": "2001:db8::1", "10.0.0.7": "10.0.0.7", "": "",
	} {
		r := newRig(t, "")
		r.a.needs |= filter.NeedClient
		r = r.again(t, metadataReader{r.a})
		var metadata, client string
		r.a.headers = func(x *filter.Exchange) filter.Verdict {
			metadata, client = x.Metadata, x.Client
			return filter.Next
		}
		h := post()
		h.client, h.metadata = address, map[string]string{"jwt/sub": "ann"}
		s, _ := r.send(h, body)
		s.Done()
		require.Equal(t, want, client, address)
		require.Equal(t, "ann", metadata)
	}
	r := newRig(t, "")
	r.a.headers = func(x *filter.Exchange) filter.Verdict {
		require.Empty(t, x.Metadata+x.Client, "nobody has asked")
		return filter.Next
	}
	h := post()
	h.client, h.metadata = "10.0.0.7:1", map[string]string{"jwt/sub": "ann"}
	s, _ := r.send(h, body)
	s.Done()
}

type metadataReader struct{ *scripted }

func (metadataReader) Metadata() (namespace, key string) { return "jwt", "sub" }

// The end of a text that comes while a screener waits goes on with the text.
func TestEndsThatComeWhileAScreenerWaits(t *testing.T) {
	r, a, _ := screened(t, "")
	a.how = &filter.Screening{Window: 1}
	a.unit = func(*filter.Exchange, *filter.Unit) filter.Verdict { return verdicts["wait"] }
	a.scripted.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	l := r.listen(t, "text/event-stream")
	first := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"
	last := "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	l.chunk(first, false)
	l.chunk(last, false)
	require.Empty(t, l.got)
	l.reply(&filter.Reply{Status: 200})
	l.chunk("data: [DONE]\n\n", true)
	require.Equal(t, first+last+"data: [DONE]\n\n", string(l.got))
	require.Empty(t, r.logs)
}
