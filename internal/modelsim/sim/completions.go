package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// Chat and text completions of OpenAI's API, members in vLLM's order.

// appendCompletion appends a complete response.
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
		out = append(out, `","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"`...)
		out = append(out, j.finish...)
		out = append(out, `","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"`+fingerprint+`"`...)
	} else {
		out = append(out, `","logprobs":null,"finish_reason":"`...)
		out = append(out, j.finish...)
		out = append(out, `","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"`+fingerprint+`"`...)
	}
	if !x.fault.NoUsage {
		out = append(out, `,"usage":`...)
		out = x.appendUsage(out)
	}
	if chat {
		out = append(out, `,"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null`...)
	}
	return append(out, `,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}`...)
}

// streamCompletion sends first the role (for chat), then one event per token, the usage if it was requested, and [DONE].
func (x *exchange) streamCompletion(events *eventWriter) {
	j, q, chat := &x.job, &x.request, x.api == apiChat
	usage := q.includeUsage && !x.fault.NoUsage
	continuous := q.continuousUsage && !x.fault.NoUsage
	object := "text_completion"
	if chat {
		object = "chat.completion.chunk"
	}
	head := x.appendStart(append(x.out[:0], "data: "...), object)
	start := len(head) // every event begins with the same bytes, which stay in x.out
	x.out = head
	send := func(event []byte) {
		x.out = event
		events.send(event)
	}
	end := func(event []byte) []byte {
		if continuous {
			event = append(event, `,"usage":`...)
			event = append(appendTokens(event, j), `,"completion_tokens_details":null}`...)
		}
		return event
	}
	if chat {
		event := append(x.out, `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`...)
		send(append(end(event), `,"prompt_token_ids":null,"prompt_text":null`+"}\n\n"...))
	}
	echo := x.text
	x.decode(func(i int) {
		event := x.out[:start]
		if chat {
			event = append(event, `{"index":0,"delta":{"content":"`...)
		} else {
			event = append(event, `{"index":0,"text":"`...)
		}
		event, echo = x.appendPiece(event, i, echo)
		if chat {
			event = append(event, `"},"logprobs":null,"finish_reason":`...)
		} else {
			event = append(event, `","logprobs":null,"finish_reason":`...)
		}
		switch {
		case i == j.OutputTokens-1:
			event = append(event, '"')
			event = append(event, j.finish...)
			event = append(event, '"')
		default:
			event = append(event, "null"...)
		}
		switch {
		case !chat:
			event = append(event, `,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]`...)
		case i == j.OutputTokens-1:
			event = append(event, `,"stop_reason":null,"token_ids":null}]`...)
		default:
			event = append(event, `,"token_ids":null}]`...)
		}
		event = end(event)
		if i == j.OutputTokens-1 && !usage { // the last event contains the response headers' values
			event = append(event, `,"system_fingerprint":"`+fingerprint+`"`...)
		}
		send(append(event, "}\n\n"...))
	})
	if usage {
		event := append(x.out[:start], `],"usage":`...)
		event = appendTokens(event, j)
		if !x.fault.NoCached {
			event = append(event, `,"prompt_tokens_details":{"cached_tokens":`...)
			event = strconv.AppendInt(event, int64(j.CachedTokens), 10)
			if chat {
				event = append(event, `,"created_cache_tokens":`...)
				event = strconv.AppendInt(event, int64(x.createdTokens()), 10)
			}
			event = append(event, '}')
		}
		send(append(event, `},"system_fingerprint":"`+fingerprint+"\"}\n\n"...))
	}
	send(append(x.out[:0], "data: [DONE]\n\n"...))
}

// appendStart appends a response up to its first choice.
func (x *exchange) appendStart(dst []byte, object string) []byte {
	dst = x.appendID(append(dst, `{"id":`...))
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = appendNow(dst)
	dst = append(dst, `,"model":`...)
	dst = gjson.AppendJSONString(dst, x.model)
	return append(dst, `,"choices":[`...)
}

// fingerprint is the system_fingerprint of every response.
const fingerprint = "vllm-0.32.0-modelsim"

// appendTokens begins the usage so far.
func appendTokens(dst []byte, j *job) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens+j.sent), 10)
	dst = append(dst, `,"completion_tokens":`...)
	return strconv.AppendInt(dst, int64(j.sent), 10)
}

// appendUsage appends the usage of a complete response.
func (x *exchange) appendUsage(dst []byte) []byte {
	dst = appendTokens(dst, &x.job)
	if x.fault.NoCached {
		return append(dst, `,"prompt_tokens_details":null,"completion_tokens_details":null}`...)
	}
	dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
	dst = strconv.AppendInt(dst, int64(x.job.CachedTokens), 10)
	dst = append(dst, `,"created_cache_tokens":`...)
	if x.api == apiChat {
		dst = strconv.AppendInt(dst, int64(x.createdTokens()), 10)
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, `,"multimodal_tokens":null},"completion_tokens_details":null}`...)
}

// createdTokens returns the tokens of the prompt's whole blocks that were not cached before.
func (x *exchange) createdTokens() int {
	return max(0, x.job.promptTokens/x.blockSize*x.blockSize-x.job.CachedTokens)
}
