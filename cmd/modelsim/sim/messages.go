package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// Anthropic's Messages API (docs.anthropic.com, Messages and Streaming Messages), which vLLM serves too. The usage counts as
// Anthropic does: input_tokens are those that were not read from the cache.

func (x *exchange) stopReason() string {
	if x.job.finish == "stop" {
		return "end_turn"
	}
	return "max_tokens"
}

// appendMessage appends a message: a whole one, or the empty one that a stream begins with.
func (x *exchange) appendMessage(out []byte, whole bool) []byte {
	out = x.appendID(append(out, `{"id":`...))
	out = append(out, `,"type":"message","role":"assistant","model":`...)
	out = gjson.AppendJSONString(out, x.request.model)
	if whole {
		out = append(out, `,"content":[{"type":"text","text":"`...)
		out = x.appendText(out)
		out = append(out, `"}],"stop_reason":"`+x.stopReason()+`","stop_sequence":null`...)
	} else {
		out = append(out, `,"content":[],"stop_reason":null,"stop_sequence":null`...)
	}
	if !x.fault.NoUsage {
		out = append(out, `,"usage":`...)
		out = x.appendMessageUsage(out)
	}
	return append(out, '}')
}

func (x *exchange) appendMessageUsage(out []byte) []byte {
	j := &x.job
	out = append(out, `{"input_tokens":`...)
	out = strconv.AppendInt(out, int64(j.promptTokens-j.CachedTokens), 10)
	out = append(out, `,"cache_creation_input_tokens":0,"cache_read_input_tokens":`...)
	out = strconv.AppendInt(out, int64(j.CachedTokens), 10)
	out = append(out, `,"output_tokens":`...)
	out = strconv.AppendInt(out, int64(j.sent), 10)
	return append(out, '}')
}

// streamMessage sends message_start, one content block with a delta per token, message_delta with the usage, message_stop.
func (x *exchange) streamMessage(events *eventWriter) {
	send := func(event []byte) {
		x.out = append(event, "\n\n"...)
		events.send(x.out)
	}
	event := append(x.out[:0], "event: message_start\ndata: {\"type\":\"message_start\",\"message\":"...)
	event = x.appendMessage(event, false)
	send(append(event, '}'))
	send(append(x.out[:0], "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}"...))
	send(append(x.out[:0], "event: ping\ndata: {\"type\":\"ping\"}"...))
	echo := x.text
	x.decode(func(i int) {
		event := append(x.out[:0], "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\""...)
		event, echo = appendPiece(event, i, echo)
		send(append(event, `"}}`...))
	})
	send(append(x.out[:0], "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}"...))
	event = append(x.out[:0], "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\""...)
	event = append(event, x.stopReason()...)
	event = append(event, `","stop_sequence":null}`...)
	if !x.fault.NoUsage {
		event = append(event, `,"usage":`...)
		event = x.appendMessageUsage(event)
	}
	send(append(event, '}'))
	send(append(x.out[:0], "event: message_stop\ndata: {\"type\":\"message_stop\"}"...))
}
