package module

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Call starts a call. An error means that OnHttpCalloutDone will not be called.
func (s *stream) Call(c *filter.Call) error {
	method, host := c.Method, c.Host
	if method == "" {
		method = "POST"
	}
	if host == "" {
		host = c.Cluster
	}
	headers := append(make([][2]string, 0, 3+len(c.Headers)),
		[2]string{":method", method}, [2]string{":path", c.Path}, [2]string{":authority", host})
	headers = append(headers, c.Headers...)
	result, _ := s.handle.HttpCallout(c.Cluster, headers, c.Body, milliseconds(c.Timeout), s)
	return notStarted(result, c.Cluster)
}

// milliseconds rounds up: 0 would mean that there is no timeout.
func milliseconds(d time.Duration) uint64 {
	return uint64(max(1, (d+time.Millisecond-1)/time.Millisecond))
}

// OnHttpCalloutDone hands the answer to the filter that waits for it.
func (s *stream) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	s.enter()
	defer s.leave()
	if s.broken {
		return
	}
	s.reply = s.reply[:0]
	reply := readReply(result, headers, body, &s.reply)
	s.chain.Reply(&reply)
}

// Failures of calls, as filters see them.
var (
	errNotStarted = errors.New("the call could not be started: no healthy host, or its headers are not acceptable")
	errReset      = errors.New("the connection was reset before the answer was complete")
	errTooLong    = errors.New("the answer is larger than Envoy's limit")
)

// notStarted says why a call was not started, nil if it was.
func notStarted(r shared.HttpCalloutInitResult, cluster string) error {
	switch r {
	case shared.HttpCalloutInitSuccess:
		return nil
	case shared.HttpCalloutInitClusterNotFound:
		return fmt.Errorf("no cluster %q in Envoy", cluster)
	}
	return errNotStarted
}

// readReply reads the answer to a call. Its body lies in Envoy's memory, or in
// memory if it came in several pieces.
func readReply(result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer, memory *[]byte) filter.Reply {
	switch result {
	case shared.HttpCalloutSuccess:
	case shared.HttpCalloutExceedResponseBufferLimit:
		return filter.Reply{Err: errTooLong}
	default:
		return filter.Reply{Err: errReset}
	}
	r := filter.Reply{Body: joined(memory, body)}
	answered := false
	for _, h := range headers {
		switch h[0].ToUnsafeString() {
		case ":status":
			r.Status, _ = strconv.Atoi(h[1].ToUnsafeString())
		case "x-envoy-upstream-service-time":
			answered = true
		}
	}
	if !answered && unanswered(r.Status) {
		return filter.Reply{Err: fmt.Errorf("no answer: %s", r.Body)}
	}
	return r
}

// unanswered reports whether status is one that Envoy gives a call itself: 503
// when the service cannot be reached, 504 when the time is over. Its own answers
// lack the header that it adds to those of a service; their body says what
// happened.
func unanswered(status int) bool { return status == 503 || status == 504 }

// joined returns the chunks as one slice: the only one itself if there is one,
// else a copy in memory.
func joined(memory *[]byte, chunks []shared.UnsafeEnvoyBuffer) []byte {
	if len(chunks) == 1 {
		return chunks[0].ToUnsafeBytes()
	}
	for _, c := range chunks {
		*memory = append(*memory, c.ToUnsafeBytes()...)
	}
	return *memory
}
