package module

import (
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// callout is a call of an exchange, by the chain's number.
type callout struct {
	*stream
	turn, number int
}

// Call starts a call. An error means that OnHttpCalloutDone will not be called.
func (s *stream) Call(number int, c *filter.Call) error {
	result, _ := s.handle.HttpCallout(c.Cluster, chain.CallHeaders(c), c.Body, uint64(chain.Milliseconds(c.Timeout)), &callout{s, s.turn, number})
	return notStarted(result, c.Cluster)
}

// OnHttpCalloutDone hands the answer to the chain. Envoy drops what is still open when the exchange ends.
func (s *callout) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	if s.turn != s.stream.turn {
		return // the stream may serve another exchange, on another thread: nothing of it is touched, not even to find no such call
	}
	s.enter()
	defer s.leave()
	if s.broken {
		return
	}
	s.reply = s.reply[:0]
	reply := readReply(result, headers, body, &s.reply)
	s.chain.Reply(s.number, &reply)
}

// notStarted says why a call was not started, nil if it was.
func notStarted(r shared.HttpCalloutInitResult, cluster string) error {
	switch r {
	case shared.HttpCalloutInitSuccess:
		return nil
	case shared.HttpCalloutInitClusterNotFound:
		return chain.ErrNoCluster(cluster)
	}
	return filter.ErrNotStarted
}

// readReply reads the answer to a call. Its body lies in Envoy's memory, or in
// memory if it came in several pieces.
func readReply(result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer, memory *[]byte) filter.Reply {
	switch result {
	case shared.HttpCalloutSuccess:
	case shared.HttpCalloutExceedResponseBufferLimit:
		return filter.Reply{Err: filter.ErrTooLong}
	default:
		return filter.Reply{Err: chain.ErrReset}
	}
	var head chain.ReplyHead
	for _, h := range headers {
		head.Add(h[0].ToUnsafeString(), h[1].ToUnsafeString())
	}
	return head.Reply(joined(memory, body))
}

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
