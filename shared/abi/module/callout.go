package module

import (
	"errors"
	"strconv"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/inlet-proxy/inlet/shared/filter"
)

// callout is one call on behalf of a filter.
type callout struct {
	stream  *stream
	began   time.Time
	timeout time.Duration
}

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
	milliseconds := uint64(max(1, (c.Timeout+time.Millisecond-1)/time.Millisecond))
	result, _ := s.handle.HttpCallout(c.Cluster, headers, c.Body, milliseconds,
		&callout{stream: s, began: time.Now(), timeout: c.Timeout})
	return initError(result)
}

// OnHttpCalloutDone hands the answer to the filter that waits for it.
func (c *callout) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	s := c.stream
	defer s.leave()
	if s.broken {
		return
	}
	reply := filter.Reply{Err: resultError(result)}
	if reply.Err == nil {
		reply.Status = statusOf(headers)
		s.reply = joined(s.reply, body)
		reply.Body = s.reply
	}
	if reply.Status == 504 && time.Since(c.began) >= c.timeout {
		reply = filter.Reply{Err: errTimeout} // Envoy says so with an answer of its own
	}
	s.chain.Reply(&reply)
}

// Errors of calls, as filters and the log see them.
var (
	errNoCluster   = errors.New("the cluster is not known to Envoy")
	errNotStarted  = errors.New("the call could not be started: no healthy host, or its headers are not acceptable")
	errReset       = errors.New("the call was reset")
	errLongAnswer  = errors.New("the answer is larger than Envoy's limit")
	errTimeout     = errors.New("the call timed out")
	errOtherResult = errors.New("the call failed")
)

func initError(r shared.HttpCalloutInitResult) error {
	switch r {
	case shared.HttpCalloutInitSuccess:
		return nil
	case shared.HttpCalloutInitClusterNotFound:
		return errNoCluster
	}
	return errNotStarted
}

func resultError(r shared.HttpCalloutResult) error {
	switch r {
	case shared.HttpCalloutSuccess:
		return nil
	case shared.HttpCalloutReset:
		return errReset
	case shared.HttpCalloutExceedResponseBufferLimit:
		return errLongAnswer
	}
	return errOtherResult
}

// statusOf returns the :status of an answer, 0 if it has none.
func statusOf(headers [][2]shared.UnsafeEnvoyBuffer) int {
	for _, h := range headers {
		if h[0].ToUnsafeString() == ":status" {
			n, _ := strconv.Atoi(h[1].ToUnsafeString())
			return n
		}
	}
	return 0
}

// joined returns the chunks as one slice: the only one itself if there is one,
// else a copy in dst.
func joined(dst []byte, chunks []shared.UnsafeEnvoyBuffer) []byte {
	if len(chunks) == 1 {
		return chunks[0].ToUnsafeBytes()
	}
	dst = dst[:0]
	for _, c := range chunks {
		dst = append(dst, c.ToUnsafeBytes()...)
	}
	return dst
}
