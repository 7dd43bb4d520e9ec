package sim

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// api is one of the paths that run on the engine.
type api uint8

const (
	apiChat api = iota
	apiCompletions
	apiEmbeddings
)

// content is the body's member that holds the prompt.
func (a api) content() string { return [...]string{"messages", "prompt", "input"}[a] }

// idPrefix is what vLLM's ids of this API begin with.
func (a api) idPrefix() string { return [...]string{"chatcmpl-", "cmpl-", "embd-"}[a] }

// filler is the text of answers, one word a token. None needs escaping in JSON.
var filler = [...]string{
	"The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", " and", " then", " it", " rests", " for", " a", " while.",
	" Soon", " after", " that", " another", " one", " comes", " along", " to", " see", " what", " all", " of", " this", " is", " about", ".",
}

// generate answers one inference request.
func (s *Server) generate(x *exchange, api api) {
	q, j := &x.request, &x.job
	err := q.parse(api, x.body)
	x.tellModel(q.model)
	if err != nil {
		x.fail(err)
		return
	}
	lora, err := s.resolve(q)
	if err != nil {
		x.fail(err)
		return
	}
	*j = job{lora: lora, promptTokens: q.promptTokens(), maxTokens: q.maxTokens, blocks: j.blocks[:0], hashes: j.hashes[:0]}
	if api == apiEmbeddings {
		j.maxTokens = 0
	} else {
		s.plan(x)
	}
	if j.promptTokens+j.maxTokens > s.cfg.MaxModelLen {
		x.fail(tooLong(j.promptTokens, j.maxTokens, s.cfg.MaxModelLen))
		return
	}
	j.hashes = s.engine.kv.hashes(j.hashes, lora+"\x00"+q.cacheSalt, q.prompt, s.cfg.BlockSize*bytesPerToken)
	if err := s.engine.start(x.r.Context(), j); err != nil {
		x.abort()
	}
	done := false
	finish := func(reason string) { // before the last byte of the answer: who has read it sees the slot free
		if !done {
			done = true
			s.engine.done(j, reason)
		}
	}
	defer finish("abort")

	if x.fault.Hang {
		x.hang()
	}
	if sleepUntil(x.r.Context(), j.firstToken) != nil {
		x.abort()
	}
	switch {
	case api == apiEmbeddings:
		finish("stop")
		x.embeddings()
	case q.stream:
		s.stream(x, api, finish)
	default:
		s.whole(x, api, finish)
	}
}

// resolve finds the adapter that a model name means ("" for the base model). An unknown name is an error on a strict replica; on any other
// it is the base model under another name. A request without a model gets the first one, as in vLLM.
func (s *Server) resolve(q *request) (lora string, err error) {
	switch {
	case q.model == "":
		q.model = s.cfg.Models[0]
	case slices.Contains(s.cfg.LoRAs, q.model):
		return q.model, nil
	case s.cfg.StrictModels && !slices.Contains(s.cfg.Models, q.model):
		return "", unknownModel(q.model)
	}
	return "", nil
}

// plan decides how long the answer is and why it ends: filler has no end of its own, an echo has.
func (s *Server) plan(x *exchange) {
	q, j := &x.request, &x.job
	x.text = x.text[:0]
	if s.cfg.Echo {
		x.text = append(x.text, q.lastMsg...)
	}
	j.outputTokens, j.finish = q.maxTokens, "length"
	if len(x.text) == 0 {
		return
	}
	pieces := 0
	for rest := x.text; len(rest) > 0; rest = rest[pieceLen(rest):] {
		pieces++
	}
	if pieces <= q.maxTokens {
		j.outputTokens, j.finish = pieces, "stop"
	}
}

// appendPiece appends the text of output token i, escaped for JSON but without quotes, and returns what is left of an
// echo's text.
func appendPiece(dst []byte, i int, echo []byte) (out, rest []byte) {
	if len(echo) == 0 {
		return append(dst, filler[i%len(filler)]...), nil
	}
	n := pieceLen(echo)
	quote := len(dst)
	dst = gjson.AppendJSONString(dst, string(echo[:n]))
	dst = slices.Delete(dst, quote, quote+1)
	return dst[:len(dst)-1], echo[n:]
}

// pieceLen is the length of the first token of text: about bytesPerToken, no character split.
func pieceLen(text []byte) int {
	n := 0
	for n < len(text) && n < bytesPerToken {
		_, size := utf8.DecodeRune(text[n:])
		n += size
	}
	return n
}

// decode calls emit for each output token when it is due.
func (s *Server) decode(x *exchange, emit func(i int)) {
	j := &x.job
	due := j.firstToken
	for i := range j.outputTokens {
		if i > 0 && s.cfg.Speed > 0 {
			due = due.Add(s.engine.tokenTime())
			if sleepUntil(x.r.Context(), due) != nil {
				x.abort()
			}
		}
		s.engine.token(j)
		emit(i)
	}
}

// whole answers without streaming.
func (s *Server) whole(x *exchange, api api, finish func(reason string)) {
	j := &x.job
	out := x.appendStart(x.out[:0], api, [...]string{"chat.completion", "text_completion"}[api])
	if api == apiChat {
		out = append(out, `{"index":0,"message":{"role":"assistant","content":"`...)
	} else {
		out = append(out, `{"index":0,"text":"`...)
	}
	echo := x.text
	s.decode(x, func(i int) { out, echo = appendPiece(out, i, echo) })
	if api == apiChat {
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
	if api == apiChat {
		out = append(out, `,"prompt_logprobs":null,"prompt_token_ids":null`...)
	}
	x.out = append(out, `,"kv_transfer_params":null}`...)
	finish(j.finish)
	x.answer(http.StatusOK, "application/json", x.out)
}

// stream answers with server-sent events: for chat first the role, then one event per token, the usage if it was
// asked for, and [DONE]. Each event is flushed by itself, as a real server writes them.
func (s *Server) stream(x *exchange, api api, finish func(reason string)) {
	j, q := &x.job, &x.request
	x.w.Header()["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
	x.status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	x.flush()

	usage := q.includeUsage && !x.fault.NoUsage
	continuous := q.continuousUsage && !x.fault.NoUsage
	events := eventWriter{x: x, resetAt: x.fault.ResetAfter, cutAt: -1}
	if x.fault.CutBody {
		events.cutAt = (j.outputTokens + 2) / 2
	}
	head := x.appendStart(append(x.out[:0], "data: "...), api, [...]string{"chat.completion.chunk", "text_completion"}[api])
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
	if api == apiChat {
		event := append(x.out, `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null`...)
		send(end(event))
	}
	echo := x.text
	s.decode(x, func(i int) {
		event := x.out[:start]
		if api == apiChat {
			event = append(event, `{"index":0,"delta":{"content":"`...)
		} else {
			event = append(event, `{"index":0,"text":"`...)
		}
		event, echo = appendPiece(event, i, echo)
		if api == apiChat {
			event = append(event, `"},"logprobs":null,"finish_reason":`...)
		} else {
			event = append(event, `","logprobs":null,"finish_reason":`...)
		}
		if last := i == j.outputTokens-1; last {
			event = append(event, `"`+j.finish+`","stop_reason":null,"token_ids":null}]`...)
			finish(j.finish)
		} else if api == apiChat {
			event = append(event, `null,"token_ids":null}]`...)
		} else {
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
	if x.fault.ResetAfter >= 0 {
		x.reset() // fewer events than the fault counts on: the end of the answer is missing at least
	}
}

// eventWriter writes events until a fault strikes.
type eventWriter struct {
	x              *exchange
	sent           int
	resetAt, cutAt int // number of events before it; -1 never
}

func (e *eventWriter) send(event []byte) {
	switch e.sent {
	case e.resetAt:
		e.x.reset()
	case e.cutAt:
		e.x.abort()
	}
	if _, err := e.x.w.Write(event); err != nil {
		e.x.abort() // the client has gone
	}
	e.x.flush()
	e.sent++
}

// appendStart appends an answer up to its first choice.
func (x *exchange) appendStart(dst []byte, api api, object string) []byte {
	dst = x.appendID(append(dst, `{"id":`...), api)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, time.Now().Unix(), 10)
	dst = append(dst, `,"model":`...)
	dst = gjson.AppendJSONString(dst, x.request.model)
	return append(dst, `,"choices":[`...)
}

// appendID appends the answer's id as a JSON string. Like vLLM it is made of the request's x-request-id if there is one.
func (x *exchange) appendID(dst []byte, api api) []byte {
	if id := x.r.Header.Get("X-Request-Id"); id != "" {
		return gjson.AppendJSONString(dst, api.idPrefix()+id)
	}
	var random [16]byte
	binary.LittleEndian.PutUint64(random[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(random[8:], rand.Uint64())
	dst = append(dst, '"')
	dst = append(dst, api.idPrefix()...)
	dst = hex.AppendEncode(dst, random[:])
	return append(dst, '"')
}

// appendUsage appends the usage so far, members in vLLM's order.
func appendUsage(dst []byte, j *job, details bool) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.promptTokens+j.generated), 10)
	dst = append(dst, `,"completion_tokens":`...)
	dst = strconv.AppendInt(dst, int64(j.generated), 10)
	if details {
		dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
		dst = strconv.AppendInt(dst, int64(j.cachedTokens), 10)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}
