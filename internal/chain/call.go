package chain

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// What a call is by default, and what its reply means, is the same in all hosts: it
// stands here, and adapters only translate.

// CallHeaders are the headers of a call, pseudo headers first.
func CallHeaders(c *filter.Call) [][2]string {
	method, host := c.Method, c.Host
	if method == "" {
		method = "POST"
	}
	if host == "" {
		host = c.Cluster
	}
	headers := append(make([][2]string, 0, 3+len(c.Headers)),
		[2]string{":method", method}, [2]string{":path", c.Path}, [2]string{":authority", host})
	return append(headers, c.Headers...)
}

// Milliseconds rounds a timeout up: 0 would mean that there is none.
func Milliseconds(d time.Duration) int64 {
	return max(1, int64((d+time.Millisecond-1)/time.Millisecond))
}

// ErrReset is one reason why there is no reply to a call. The others are those of package filter.
var ErrReset = errors.New("the connection was reset before the reply was complete")

// ErrNoCluster says that Envoy does not have the cluster of a call, and which.
func ErrNoCluster(name string) error { return noCluster(name) }

type noCluster string

func (c noCluster) Error() string { return fmt.Sprintf("no cluster %q in Envoy", string(c)) }

// Is makes it two errors of package filter.
func (noCluster) Is(target error) bool {
	return target == filter.ErrNoCluster || target == filter.ErrNotStarted
}

// ReplyHead is the head of the reply to a call, as far as it matters.
type ReplyHead struct {
	status   int
	answered bool // a service has replied, not Envoy
}

// Add takes the next header.
func (h *ReplyHead) Add(name, value string) {
	switch name {
	case ":status":
		h.status, _ = strconv.Atoi(value)
	case serviceTimeHeader:
		h.answered = true
	}
}

// Reply is the reply with this head. Envoy replies itself with 503 when the service cannot be reached, and with 504 when
// the time is over. Its own replies lack the header that it adds to those of a service; their body says what happened.
func (h *ReplyHead) Reply(body []byte) filter.Reply {
	if !h.answered && (h.status == 503 || h.status == 504) {
		return filter.Reply{Err: fmt.Errorf("no reply: %s", body)}
	}
	return filter.Reply{Status: h.status, Body: body}
}

// InternalError is the reply to a request that met a defect of an adapter.
func InternalError() *LocalReply { return localReply(refuseInternal(), llm.OpenAIForm) }
