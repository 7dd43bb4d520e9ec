package llm

import "strconv"

// Ending is the last that a client gets of a stream that the gateway ends.
type Ending struct {
	API     API
	ID      string // of the response: some clients refuse events of another one
	Model   string // as the client knows it
	Created int64  // now, in seconds
	Choices []int  // whose end the client has not got
	Events  int    // that it has had
	Tokens  int    // of the response, as far as they are known
}

// Ending returns what ends a screened stream here: in the replica's words where nothing else is known. Model is that of the
// response if it is empty.
func (r *ResponseScanner) Ending(model string, created int64) Ending {
	t := &r.reader.texts
	if model == "" {
		model = string(t.model)
	}
	e := Ending{API: r.reader.api, ID: r.ID(), Model: model, Created: created, Events: r.n, Tokens: r.Usage().Completion}
	choices := t.choices
	if choices == (choiceSet{}) {
		choices.add(0) // the client waits for one at least
	}
	for i := range 128 {
		if choices.has(i) && !r.finished.has(i) {
			e.Choices = append(e.Choices, i)
		}
	}
	return e
}

// AppendFiltered appends the events by which the API says that a content filter has stopped the response. Clients take what
// they have got for the whole of it. An API that cannot say so has the error.
func (e *Ending) AppendFiltered(dst []byte, r Refusal) []byte {
	switch e.API {
	case Messages:
		dst = append(dst, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":"...)
		dst = strconv.AppendInt(dst, int64(e.Tokens), 10)
		return append(dst, "}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"...)
	case Responses:
		return e.appendResponse(dst, "response.incomplete", `"status":"incomplete","error":null,"incomplete_details":{"reason":"content_filter"}`)
	case Completions:
		return e.appendChunk(dst, "text_completion", `"text":""`)
	case Chat:
		return e.appendChunk(dst, "chat.completion.chunk", `"delta":{}`)
	}
	return e.AppendError(dst, r)
}

// AppendError appends the event by which clients of the API learn that the response failed: their official ones raise it.
// After it comes "[DONE]" for OpenAI's clients.
func (e *Ending) AppendError(dst []byte, r Refusal) []byte {
	switch e.API {
	case Messages:
		dst = append(dst, "event: error\ndata: "...)
		return append(r.AppendJSON(dst, AnthropicForm), "\n\n"...)
	case Responses:
		failure := append([]byte(`"status":"failed","incomplete_details":null,"error":{"code":`), orServerError(r.Code)...)
		failure = AppendString(append(failure, `,"message":`...), r.Message)
		return e.appendResponse(dst, "response.failed", string(append(failure, '}')))
	}
	dst = append(dst, "event: error\ndata: "...)
	return append(r.AppendJSON(dst, OpenAIForm), "\n\ndata: [DONE]\n\n"...)
}

func orServerError(code string) []byte {
	if code == "" {
		code = "server_error"
	}
	return AppendString(nil, code)
}

// appendChunk appends the last chunk of each choice that has not had one, and the closing marker.
func (e *Ending) appendChunk(dst []byte, object, empty string) []byte {
	const done = "data: [DONE]\n\n"
	if len(e.Choices) == 0 {
		return append(dst, done...)
	}
	dst = append(dst, `data: {"id":`...)
	dst = append(AppendString(dst, e.ID), `,"object":"`...)
	dst = append(append(dst, object...), `","created":`...)
	dst = strconv.AppendInt(dst, e.Created, 10)
	dst = AppendString(append(dst, `,"model":`...), e.Model)
	dst = append(dst, `,"choices":[`...)
	for i, choice := range e.Choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(append(dst, `{"index":`...), int64(choice), 10)
		dst = append(append(dst, ','), empty...)
		dst = append(dst, `,"logprobs":null,"finish_reason":"content_filter"}`...)
	}
	return append(append(dst, "]}\n\n"...), done...)
}

// appendResponse appends the last event of a stream of Responses. The API has no "[DONE]", but OpenAI's clients stop reading there: else they
// would take it for an error that the wasm build cannot end a stream without breaking the connection.
func (e *Ending) appendResponse(dst []byte, event, why string) []byte {
	dst = append(append(append(dst, "event: "...), event...), "\ndata: {\"type\":\""...)
	dst = append(append(dst, event...), `","sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(e.Events), 10)
	dst = append(dst, `,"response":{"id":`...)
	dst = append(AppendString(dst, e.ID), `,"object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, e.Created, 10)
	dst = AppendString(append(dst, `,"model":`...), e.Model)
	dst = append(append(append(dst, ','), why...), `,"output":[],"parallel_tool_calls":false,"tool_choice":"auto","tools":[]}}`...)
	return append(dst, "\n\ndata: [DONE]\n\n"...)
}
