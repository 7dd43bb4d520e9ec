package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// Anthropic's Messages API (docs.anthropic.com, Messages and Streaming Messages), which vLLM serves too. The usage counts
// as in Anthropic's API: input_tokens are those that were neither read from the cache nor written to it.

func (x *exchange) stopReason() string {
	if x.job.finish == "stop" {
		return "end_turn"
	}
	return "max_tokens"
}

// appendMessage appends a message: a complete one, or the empty one that a stream begins with.
func (x *exchange) appendMessage(out []byte, whole bool) []byte {
	out = x.appendID(append(out, `{"id":`...))
	out = append(out, `,"type":"message","role":"assistant","content":[`...)
	if whole {
		out = append(out, `{"type":"text","text":"`...)
		out = x.appendText(out)
		out = append(out, `"}`...)
	}
	out = append(out, `],"model":`...)
	out = gjson.AppendJSONString(out, x.model)
	if whole {
		out = append(out, `,"stop_reason":"`+x.stopReason()+`"`...)
	} else {
		out = append(out, `,"stop_reason":null,"stop_sequence":null`...)
	}
	if !x.fault.NoUsage {
		out = append(out, `,"usage":`...)
		out = x.appendMessageUsage(out, whole)
	}
	return append(out, '}')
}

// appendMessageUsage appends the usage. In the message that begins a stream the cache is not known yet, so the whole
// prompt is input.
func (x *exchange) appendMessageUsage(out []byte, done bool) []byte {
	j := &x.job
	input := j.promptTokens
	cached := done && !x.fault.NoCached
	if cached {
		input -= j.CachedTokens + x.createdTokens()
	}
	out = append(out, `{"input_tokens":`...)
	out = strconv.AppendInt(out, int64(input), 10)
	out = append(out, `,"output_tokens":`...)
	out = strconv.AppendInt(out, int64(j.sent), 10)
	if cached {
		out = append(out, `,"cache_creation_input_tokens":`...)
		out = strconv.AppendInt(out, int64(x.createdTokens()), 10)
		out = append(out, `,"cache_read_input_tokens":`...)
		out = strconv.AppendInt(out, int64(j.CachedTokens), 10)
	}
	return append(out, '}')
}

// streamMessage sends message_start, one content block with a delta per token, message_delta with the usage,
// message_stop.
func (x *exchange) streamMessage(events *eventWriter) {
	send := func(event []byte) {
		x.out = append(event, "\n\n"...)
		events.send(x.out)
	}
	event := append(x.out[:0], "event: message_start\ndata: {\"type\":\"message_start\",\"message\":"...)
	event = x.appendMessage(event, false)
	send(append(event, '}'))
	send(append(x.out[:0], "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"},\"index\":0}"...))
	echo := x.text
	x.decode(func(i int) {
		event := append(x.out[:0], "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\""...)
		event, echo = x.appendPiece(event, i, echo)
		send(append(event, `"},"index":0}`...))
	})
	send(append(x.out[:0], "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}"...))
	event = append(x.out[:0], "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\""...)
	event = append(event, x.stopReason()...)
	event = append(event, `","stop_sequence":null}`...)
	if !x.fault.NoUsage {
		event = append(event, `,"usage":`...)
		event = x.appendMessageUsage(event, true)
	}
	send(append(event, '}'))
	send(append(x.out[:0], "event: message_stop\ndata: {\"type\":\"message_stop\"}"...))
}
