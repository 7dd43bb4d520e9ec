package golang

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// asking is a policy that asks a service, which replies when the test says so.
func asking(t *testing.T, p *policy, beside bool) (c *config, m *metrics, reply chan string) {
	t.Helper()
	reply = make(chan string)
	to := service(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case text := <-reply:
			_, _ = io.WriteString(w, text)
		case <-r.Context().Done():
		}
	})
	if p.needs == 0 {
		p.needs = filter.NeedRequest
	}
	p.request = func(*filter.Exchange) filter.Verdict {
		call := filter.Call{Cluster: "a", Path: "/", Timeout: 10 * time.Second}
		if beside {
			return filter.Beside(call)
		}
		return filter.Wait(call)
	}
	p.reply = func(x *filter.Exchange, r *filter.Reply) filter.Verdict {
		switch string(r.Body) {
		case "block":
			return filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}})
		case "panic":
			x.RequestHeaders.(*headers).source = nil
		}
		return filter.Next
	}
	c, m = load(t, p, policyOnly, map[string]any{"a": to.base.String()})
	return c, m, reply
}

func TestARequestWaits(t *testing.T) {
	p := &policy{}
	c, _, reply := asking(t, p, false)
	e := open(t, c)
	e.begin(false)
	b := &buffer{b: []byte(chat[10:])}
	require.Equal(t, api.StopNoBuffer, e.filter.DecodeData(&buffer{b: []byte(chat[:10])}, false))
	require.Equal(t, api.Running, e.filter.DecodeData(b, true))
	reply <- "pass"
	e.wait("request continue 2")
	require.Equal(t, chat, string(b.b))
	e.end()

	e = open(t, c)
	e.begin(false)
	require.Equal(t, api.Running, e.filter.DecodeData(&buffer{b: []byte(chat)}, true))
	reply <- "block"
	e.wait("request reply 403 inlet_no")
	e.end()
	require.True(t, p.done()[1].Refused)
}

// The reply to a call beside the request waits for the response if there is nothing else that Envoy would take it from.
func TestACallBeside(t *testing.T) {
	p := &policy{}
	c, _, reply := asking(t, p, true)
	e := open(t, c)
	e.begin(false)
	require.Equal(t, api.Continue, e.filter.DecodeData(&buffer{b: []byte(chat)}, true))
	require.Equal(t, api.Running, e.respond(true), "the response waits")
	reply <- "pass"
	e.wait("response continue 2")
	e.end()

	e = open(t, c)
	e.begin(false)
	e.filter.DecodeData(&buffer{b: []byte(chat)}, true)
	require.Equal(t, api.Running, e.respond(false))
	reply <- "block"
	e.wait("response reply 403 inlet_no")
	e.end()

	e = open(t, c)
	e.held = true
	e.begin(false)
	e.filter.DecodeData(&buffer{b: []byte(chat)}, true)
	reply <- "block"
	s := e.filter.(*stream)
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pending != nil
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, strings.Join(e.all(), ""))
	e.held = false
	require.Equal(t, api.LocalReply, e.respond(false))
	require.Equal(t, []string{"response reply 403 inlet_no"}, e.all())
	e.end()
	require.Equal(t, []bool{false, true, true}, []bool{p.done()[0].Refused, p.done()[1].Refused, p.done()[2].Refused})
}

// The refusal of a call beside a request of which more is to come does not wait for the response.
func TestACallBesideARequestThatIsStillComing(t *testing.T) {
	p := &policy{needs: filter.NeedModel}
	c, _, reply := asking(t, p, true)
	for name, next := range map[string]func(e *envoy) api.StatusType{
		"body":     func(e *envoy) api.StatusType { return e.filter.DecodeData(&buffer{b: []byte("}")}, true) },
		"trailers": func(e *envoy) api.StatusType { return e.filter.DecodeTrailers(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, c)
			e.begin(false)
			require.Equal(t, api.Continue, e.filter.DecodeData(&buffer{b: []byte(chat[:len(chat)-1])}, false))
			reply <- "block"
			s := e.filter.(*stream)
			require.Eventually(t, func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.pending != nil
			}, 10*time.Second, time.Millisecond)
			require.Equal(t, api.LocalReply, next(e))
			require.Equal(t, []string{"request reply 403 inlet_no"}, e.all())
			require.Equal(t, api.Continue, e.respond(true), "the reply itself")
			e.end()
		})
	}
}

// A client that has left ends its calls, and their replies reach neither it nor the next exchange.
func TestRepliesThatComeTooLate(t *testing.T) {
	p := &policy{}
	c, m, _ := asking(t, p, false)
	e := open(t, c)
	e.begin(false)
	require.Equal(t, api.Running, e.filter.DecodeData(&buffer{b: []byte(chat)}, true))
	s := e.filter.(*stream)
	turn := s.turn
	e.end()
	require.Eventually(t, func() bool { return c.clusters["a"].open.Load() == 0 }, 10*time.Second, time.Millisecond)
	next := open(t, c)
	s.attach(next) // the stream serves another exchange
	next.filter = s
	next.begin(false)
	s.answer(turn, 1, &filter.Reply{Status: 200})
	require.Empty(t, next.all())
	require.Zero(t, m.get("inlet_filter_failure_total;filter=adapter;failure_mode=FailClosed"))
	next.end()
}

// Envoy may have dropped the exchange while a reply is dealt with: that is nobody's defect.
func TestEnvoyHasDroppedTheExchange(t *testing.T) {
	p := &policy{}
	c, m, reply := asking(t, p, false)
	e := open(t, c)
	e.begin(false)
	e.filter.DecodeData(&buffer{b: []byte(chat)}, true)
	e.mu.Lock()
	e.gone = true
	e.mu.Unlock()
	reply <- "pass"
	require.Eventually(t, func() bool { return c.clusters["a"].open.Load() == 0 }, 10*time.Second, time.Millisecond)
	require.NotPanics(t, e.end)
	require.Zero(t, m.get("inlet_filter_failure_total;filter=adapter;failure_mode=FailClosed"))
}

// A panic on a goroutine would end Envoy. It is answered.
func TestAPanicInAReply(t *testing.T) {
	p := &policy{}
	c, m, reply := asking(t, p, false)
	e := open(t, c)
	e.begin(false)
	e.filter.DecodeData(&buffer{b: []byte(chat)}, true)
	s := e.filter.(*stream)
	s.mu.Lock()
	s.chain = nil
	s.mu.Unlock()
	reply <- "pass"
	e.wait("request reply 500 inlet_internal_error")
	require.EqualValues(t, 1, m.get("inlet_filter_failure_total;filter=adapter;failure_mode=FailClosed"))
	require.NotPanics(t, e.end)
}

func TestAClusterThatIsNotThere(t *testing.T) {
	p := &policy{}
	c, _, _ := asking(t, p, false)
	delete(c.clusters, "a")
	e := open(t, c)
	e.begin(false)
	require.Equal(t, api.Continue, e.filter.DecodeData(&buffer{b: []byte(chat)}, true), "the filter learns of it at once")
	e.end()
}
