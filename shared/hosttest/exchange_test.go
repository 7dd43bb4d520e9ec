package hosttest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// scripted is a filter that says what it sees and does what a test tells it.
type scripted struct {
	x    *exchange
	seen []string
	do   func(s *scripted, callback string) (hold bool)
}

func (s *scripted) newStream(x *exchange) (stream, error) {
	s.x = x
	return s, nil
}

func (s *scripted) close() error { return nil }

func (s *scripted) on(callback, detail string) bool {
	s.seen = append(s.seen, callback+detail)
	return s.do(s, callback)
}

func (s *scripted) requestHeaders(end bool) bool { return s.on("headers", ending(end)) }
func (s *scripted) requestBody(end bool) bool {
	return s.on("body", fmt.Sprintf(" %s+%d%s", s.x.request.body, len(s.x.request.body)-s.x.request.fresh, ending(end)))
}
func (s *scripted) requestTrailers() bool { return s.on("trailers", "") }
func (s *scripted) responseHeaders(end bool) bool {
	status, _ := s.x.response.headers.Get(":status")
	return s.on("answer", " "+status+ending(end))
}

func (s *scripted) responseBody(end bool) bool {
	return s.on("answer body", " "+string(s.x.response.body)+ending(end))
}
func (s *scripted) responseTrailers() bool { return s.on("answer trailers", "") }
func (s *scripted) done()                  { s.on("done", "") }

func ending(end bool) string {
	if end {
		return " end"
	}
	return ""
}

// proxied sends one request of a pool "p" through a scripted filter.
func proxied(t *testing.T, request Request, do func(s *scripted, callback string) bool) (*scripted, *Outcome, error) {
	request.Headers = map[string]string{"x-gateway-inference-pool": "p"}
	s := &Scenario{Name: "x", Config: "x", Pools: map[string][]Replica{"p": {{Name: "a"}}}, Steps: []Step{{
		Request: &request, Expect: Expect{Trap: true}, Upstream: &Upstream{Body: "yes"},
	}}}
	require.NoError(t, s.complete())
	filter := &scripted{do: do}
	g, err := start(s, func(*gateway, *worker) (guest, error) { return filter, nil })
	require.NoError(t, err)
	o, err := g.Do(&s.Steps[0])
	require.NoError(t, g.Close())
	return filter, o, err
}

func pass(*scripted, string) bool { return false }

func TestExchangePasses(t *testing.T) {
	f, o, err := proxied(t, Request{Body: "abc", Chunks: []int{1}, Trailers: map[string]string{"t": "1"}}, pass)
	require.NoError(t, err)
	require.Equal(t, []string{"headers", "body a+1", "body bc+2", "trailers", "answer 200", "answer body yes end", "done"}, f.seen)
	require.Equal(t, "abc", string(o.Arrived.Body))
	require.Equal(t, Headers{{"t", "1"}}, o.Arrived.Trailers)
}

// While a body is held, the filter sees all of it each time.
func TestExchangeHoldsTheBody(t *testing.T) {
	f, o, err := proxied(t, Request{Body: "abc", Chunks: []int{0}, Chunked: true}, func(s *scripted, callback string) bool {
		return callback == "headers" || callback == "body" && !s.x.request.ended
	})
	require.NoError(t, err)
	require.Equal(t, []string{"headers", "body a+1", "body ab+1", "body abc+1", "body abc+0 end", "answer 200", "answer body yes end", "done"}, f.seen)
	require.Equal(t, "abc", string(o.Arrived.Body))
}

// A local reply comes back through the callbacks of the answer.
func TestExchangeAnswersItself(t *testing.T) {
	f, o, err := proxied(t, Request{Body: "abc", Chunks: []int{1}}, func(s *scripted, callback string) bool {
		if callback == "body" {
			s.x.worker.later(func() { s.x.reply(418, nil, []byte("no")) })
			return true
		}
		return false
	})
	require.NoError(t, err)
	require.Equal(t, []string{"headers", "body a+1", "answer 418", "answer body no end", "done"}, f.seen)
	require.Equal(t, 418, o.Status)
	require.True(t, o.Complete)
	require.Nil(t, o.Arrived, "the replica has not got all of it")
}

// An answer that was refused when its headers were there does not pass again.
func TestExchangeRefusesAnAnswer(t *testing.T) {
	f, o, err := proxied(t, Request{}, func(s *scripted, callback string) bool {
		if callback == "answer" {
			s.x.worker.later(func() { s.x.reply(418, nil, []byte("no")) })
		}
		return callback == "answer"
	})
	require.NoError(t, err)
	require.Equal(t, []string{"headers end", "answer 200", "done"}, f.seen)
	require.Equal(t, "no", string(o.Body))
	require.Equal(t, "a", o.Replica)
}

func TestExchangeTellsOfNonsense(t *testing.T) {
	_, _, err := proxied(t, Request{Body: "abc"}, func(s *scripted, callback string) bool { return callback == "body" })
	require.ErrorContains(t, err, "the request hangs: the filter holds it")
	_, _, err = proxied(t, Request{Body: "abc"}, func(s *scripted, callback string) bool { return s.x.response.begun })
	require.ErrorContains(t, err, "the request hangs: the filter holds the answer")
	_, _, err = proxied(t, Request{Body: "abc"}, func(s *scripted, callback string) bool {
		s.x.request.headers.Set("content-length", "4")
		return false
	})
	require.ErrorContains(t, err, "the replica got content-length 4 and 3 bytes")
	_, _, err = proxied(t, Request{Body: "abc"}, func(s *scripted, callback string) bool {
		if callback == "headers" {
			s.x.worker.later(func() { s.x.resume(&s.x.request) })
		}
		return false
	})
	require.ErrorContains(t, err, "the filter resumes what it does not hold")
}

func TestHeaders(t *testing.T) {
	h := Headers{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "4"}}
	h.Set("a", "5")
	require.Equal(t, Headers{{"a", "5"}, {"b", "2"}, {"c", "4"}}, h)
	h.Remove("b")
	h.Add("d", "6")
	require.Equal(t, Headers{{"a", "5"}, {"c", "4"}, {"d", "6"}}, h)
	require.Equal(t, h, unmarshalPairs(marshalPairs(h)))
}
