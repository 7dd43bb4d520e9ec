package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// Chat and text completions of OpenAI's API, members in vLLM's order.

// appendCompletion appends a whole answer.
func (x *exchange) appendCompletion(out []byte) []byte {
	j, chat := &x.job, x.api == apiChat
	if chat {
		out = x.appendStart(out, "chat.completion")
		out = append(out, `{"index":0,"message":{"role":"assistant","content":"`...)
	} else {
		out = x.appendStart(out, "text_completion")
		out = append(out, `{"index":0,"text":"`...)
	}
	out = x.appendText(out)
	if chat {
		out = append(out, `","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"`...)
		out = append(out, j.finish...)
		out = append(out, `","stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null`...)
	} else {
		out = append(out, `","logprobs":null,"finish_reason":"`...)
		out = append(out, j.finish...)
		out = append(out, `","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null}],"service_tier":null,"system_fingerprint":null`...)
	}
	if !x.fault.NoUsage {
		out = append(out, `,"usage":`...)
		out = appendUsage(out, j, true)
	}
	if chat {
		out = append(out, `,"prompt_logprobs":null,"prompt_token_ids":null`...)
	}
	return append(out, `,"kv_transfer_params":null}`...)
}

// streamCompletion sends for chat first the role, then one event per token, the usage if it was asked for, and [DONE].
func (x *exchange) streamCompletion(events *eventWriter) {
	j, q, chat := &x.job, &x.request, x.api == apiChat
	usage := q.includeUsage && !x.fault.NoUsage
	continuous := q.continuousUsage && !x.fault.NoUsage
	object := "text_completion"
	if chat {
		object = "chat.completion.chunk"
	}
	head := x.appendStart(append(x.out[:0], "data: "...), object)
	start := len(head) // every event begins with the same bytes: they stay in x.out
	x.out = head
	send := func(event []byte) {
		x.out = event
		events.send(event)
	}
	end := func(event []byte) []byte {
		if continuous {
			event = append(event, `,"usage":`...)
			event = appendUsage(event, j, false)
		}
		return append(event, "}\n\n"...)
	}
	if chat {
		event := append(x.out, `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null`...)
		send(end(event))
	}
	echo := x.text
	x.decode(func(i int) {
		event := x.out[:start]
		if chat {
			event = append(event, `{"index":0,"delta":{"content":"`...)
		} else {
			event = append(event, `{"index":0,"text":"`...)
		}
		event, echo = appendPiece(event, i, echo)
		if chat {
			event = append(event, `"},"logprobs":null,"finish_reason":`...)
		} else {
			event = append(event, `","logprobs":null,"finish_reason":`...)
		}
		switch {
		case i == j.OutputTokens-1:
			event = append(event, '"')
			event = append(event, j.finish...)
			event = append(event, `","stop_reason":null,"token_ids":null}]`...)
		case chat:
			event = append(event, `null,"token_ids":null}]`...)
		default:
			event = append(event, `null,"stop_reason":null,"token_ids":null}]`...)
		}
		send(end(event))
	})
	if usage {
		event := append(x.out[:start], `],"usage":`...)
		event = appendUsage(event, j, true)
		send(append(event, "}\n\n"...))
	}
	send(append(x.out[:0], "data: [DONE]\n\n"...))
}

// appendStart appends an answer up to its first choice.
func (x *exchange) appendStart(dst []byte, object string) []byte {
	dst = x.appendID(append(dst, `{"id":`...))
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = appendNow(dst)
	dst = append(dst, `,"model":`...)
	dst = gjson.AppendJSONString(dst, x.request.model)
	return append(dst, `,"choices":[`...)
}

// appendUsage appends the usage so far.
func appendUsage(dst []byte, j *job, details bool) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens+j.sent), 10)
	dst = append(dst, `,"completion_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.sent), 10)
	if details {
		dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
		dst = strconv.AppendInt(dst, int64(j.CachedTokens), 10)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}
