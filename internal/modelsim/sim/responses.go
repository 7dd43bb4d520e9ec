package sim

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// OpenAI's Responses API. As in vLLM, a stream also ends with response.completed if the output was cut at its limit; its
// status then says "incomplete".

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
	out = append(out, `,"created_at":`...)
	out = appendNow(out)
	out = append(out, `,"incomplete_details":`...)
	if status == "incomplete" {
		out = append(out, `{"reason":"max_output_tokens"}`...)
	} else {
		out = append(out, "null"...)
	}
	out = append(out, `,"instructions":null,"metadata":null,"model":`...)
	out = gjson.AppendJSONString(out, x.model)
	out = append(out, `,"object":"response","output":[`...)
	if done {
		out = x.appendOutputItem(out, "completed")
	}
	out = append(out, `],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"none","tools":[],"top_p":1.0,"background":false,"max_output_tokens":`...)
	out = strconv.AppendInt(out, int64(j.maxTokens), 10)
	out = append(out, `,"max_tool_calls":null,"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto","status":"`+status+
		`","text":null,"top_logprobs":null,"truncation":"disabled"`...)
	if done && !x.fault.NoUsage {
		out = append(out, `,"usage":{"input_tokens":`...)
		out = strconv.AppendInt(out, int64(j.promptTokens), 10)
		out = append(out, `,"input_tokens_details":{"cached_tokens":`...)
		out = strconv.AppendInt(out, int64(j.CachedTokens), 10)
		out = append(out, `,"cache_write_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":`...)
		out = strconv.AppendInt(out, int64(j.sent), 10)
		out = append(out, `,"output_tokens_details":{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]},"total_tokens":`...)
		out = strconv.AppendInt(out, int64(j.promptTokens+j.sent), 10)
		out = append(out, '}')
	} else {
		out = append(out, `,"usage":null`...)
	}
	return append(out, `,"user":null,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}`...)
}

const responseItem = "msg_0" // id of the only output item

// appendOutputItem appends the message that is the output; while in progress it is empty.
func (x *exchange) appendOutputItem(out []byte, status string) []byte {
	out = append(out, `{"id":"`+responseItem+`","content":[`...)
	if status == "completed" {
		out = x.appendTextPart(out, true)
	}
	return append(out, `],"role":"assistant","status":"`+status+`","type":"message","phase":null}`...)
}

func (x *exchange) appendTextPart(out []byte, whole bool) []byte {
	out = append(out, `{"annotations":[],"text":"`...)
	if !whole {
		return append(out, `","type":"output_text","logprobs":[]}`...)
	}
	return append(x.appendText(out), `","type":"output_text","logprobs":null}`...)
}

// streamResponse sends the events of one output item with one part of text, each with its number.
func (x *exchange) streamResponse(events *eventWriter) {
	const content, item, output = `"content_index":0,`, `,"item_id":"` + responseItem + `"`, `,"output_index":0`
	begin := func(kind, members string) []byte {
		event := append(x.out[:0], "event: "...)
		event = append(event, kind...)
		event = append(event, "\ndata: {"...)
		return append(event, members...)
	}
	number := func(event []byte) []byte {
		return strconv.AppendInt(append(event, `,"sequence_number":`...), int64(events.sent), 10)
	}
	sendNumbered := func(event []byte, kind string) {
		event = append(event, `,"type":"`...)
		event = append(event, kind...)
		x.out = append(event, "\"}\n\n"...)
		events.send(x.out)
	}
	send := func(event []byte, kind string) { sendNumbered(number(event), kind) }
	response := func(kind, status string) {
		send(x.appendResponse(begin(kind, `"response":`), status), kind)
	}
	outputItem := func(kind, status string) {
		send(append(x.appendOutputItem(begin(kind, `"item":`), status), output...), kind)
	}
	part := func(kind string, whole bool) {
		send(x.appendTextPart(begin(kind, content+item[1:]+output+`,"part":`), whole), kind)
	}
	response("response.created", "in_progress")
	response("response.in_progress", "in_progress")
	outputItem("response.output_item.added", "in_progress")
	part("response.content_part.added", false)
	echo := x.text
	x.decode(func(i int) {
		const kind = "response.output_text.delta"
		event := begin(kind, content+`"delta":"`)
		event, echo = x.appendPiece(event, i, echo)
		send(append(event, `"`+item+`,"logprobs":[]`+output...), kind)
	})
	const done = "response.output_text.done"
	event := append(number(begin(done, content+item[1:]+`,"logprobs":[]`+output)), `,"text":"`...)
	sendNumbered(append(x.appendText(event), '"'), done)
	part("response.content_part.done", true)
	outputItem("response.output_item.done", "completed")
	response("response.completed", x.responseStatus())
}
