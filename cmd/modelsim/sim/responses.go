package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// OpenAI's Responses API. As in vLLM a stream ends with response.completed also when the answer was cut at its limit,
// which its status tells ("incomplete").

func (x *exchange) responseStatus() string {
	if x.job.finish == "stop" {
		return "completed"
	}
	return "incomplete"
}

// appendResponse appends the response object; one in progress has neither output nor usage.
func (x *exchange) appendResponse(out []byte, status string) []byte {
	j := &x.job
	done := status != "in_progress"
	out = x.appendID(append(out, `{"id":`...))
	out = append(out, `,"object":"response","created_at":`...)
	out = appendNow(out)
	out = append(out, `,"status":"`+status+`","error":null,"incomplete_details":`...)
	if status == "incomplete" {
		out = append(out, `{"reason":"max_output_tokens"}`...)
	} else {
		out = append(out, "null"...)
	}
	out = append(out, `,"instructions":null,"metadata":null,"max_output_tokens":`...)
	out = strconv.AppendInt(out, int64(j.maxTokens), 10)
	out = append(out, `,"model":`...)
	out = gjson.AppendJSONString(out, x.request.model)
	out = append(out, `,"output":[`...)
	if done {
		out = x.appendOutputItem(out, "completed")
	}
	out = append(out, `],"parallel_tool_calls":true,"previous_response_id":null,"service_tier":"auto","temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled"`...)
	if done && !x.fault.NoUsage {
		out = append(out, `,"usage":{"input_tokens":`...)
		out = strconv.AppendInt(out, int64(j.promptTokens), 10)
		out = append(out, `,"input_tokens_details":{"cached_tokens":`...)
		out = strconv.AppendInt(out, int64(j.CachedTokens), 10)
		out = append(out, `},"output_tokens":`...)
		out = strconv.AppendInt(out, int64(j.sent), 10)
		out = append(out, `,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":`...)
		out = strconv.AppendInt(out, int64(j.promptTokens+j.sent), 10)
		out = append(out, '}')
	} else {
		out = append(out, `,"usage":null`...)
	}
	return append(out, `,"user":null}`...)
}

const responseItem = "msg_0" // id of the only output item

// appendOutputItem appends the message that is the output; one in progress is empty.
func (x *exchange) appendOutputItem(out []byte, status string) []byte {
	out = append(out, `{"id":"`+responseItem+`","type":"message","status":"`+status+`","role":"assistant","content":[`...)
	if status == "completed" {
		out = append(x.appendTextPart(out, true), ']', '}')
		return out
	}
	return append(out, "]}"...)
}

func (x *exchange) appendTextPart(out []byte, whole bool) []byte {
	out = append(out, `{"type":"output_text","text":"`...)
	if whole {
		out = x.appendText(out)
	}
	return append(out, `","annotations":[],"logprobs":null}`...)
}

// streamResponse sends the events of one output item with one part of text, each with its number.
func (x *exchange) streamResponse(events *eventWriter) {
	const place = `,"item_id":"` + responseItem + `","output_index":0,"content_index":0`
	begin := func(kind string) []byte {
		event := append(x.out[:0], "event: "...)
		event = append(event, kind...)
		event = append(event, "\ndata: {\"type\":\""...)
		event = append(event, kind...)
		event = append(event, `","sequence_number":`...)
		return strconv.AppendInt(event, int64(events.sent), 10)
	}
	send := func(event []byte) {
		x.out = append(event, "}\n\n"...)
		events.send(x.out)
	}
	send(x.appendResponse(append(begin("response.created"), `,"response":`...), "in_progress"))
	send(x.appendResponse(append(begin("response.in_progress"), `,"response":`...), "in_progress"))
	send(x.appendOutputItem(append(begin("response.output_item.added"), `,"output_index":0,"item":`...), "in_progress"))
	send(x.appendTextPart(append(begin("response.content_part.added"), place+`,"part":`...), false))
	echo := x.text
	x.decode(func(i int) {
		event := append(begin("response.output_text.delta"), place+`,"logprobs":[],"delta":"`...)
		event, echo = appendPiece(event, i, echo)
		send(append(event, '"'))
	})
	send(append(x.appendText(append(begin("response.output_text.done"), place+`,"logprobs":[],"text":"`...)), '"'))
	send(x.appendTextPart(append(begin("response.content_part.done"), place+`,"part":`...), true))
	send(x.appendOutputItem(append(begin("response.output_item.done"), `,"output_index":0,"item":`...), "completed"))
	send(x.appendResponse(append(begin("response.completed"), `,"response":`...), x.responseStatus()))
}
