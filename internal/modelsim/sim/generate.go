package sim

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
)

// api is the API of a path that runs on the engine.
type api uint8

const (
	apiNone api = iota
	apiChat
	apiCompletions
	apiMessages
	apiResponses
	apiTranscription
	apiEmbeddings // from here on, responses have no output tokens
	apiRerank
	apiScore
)

// content returns the body member that contains the prompt.
func (a api) content() string {
	return [...]string{"", "messages", "prompt", "messages", "input", "file", "input", "query", "text_1"}[a]
}

// idPrefix is the prefix of vLLM's ids in this API.
func (a api) idPrefix() string {
	return [...]string{"", "chatcmpl-", "cmpl-", "chatcmpl-", "resp_", "", "embd-", "rerank-", "score-"}[a]
}

// filler is the text of responses, one word per token. None needs escaping in JSON.
var filler = [...]string{
	"The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", " and", " then", " it", " rests", " for", " a", " while.",
	" Soon", " after", " that", " another", " one", " comes", " along", " to", " see", " what", " all", " of", " this", " is", " about", ".",
}

// generate handles one inference request.
func (s *Server) generate(x *exchange) {
	q, j := &x.request, &x.job
	var err error
	if x.api == apiTranscription {
		err = q.parseForm(x.r.Header.Get("Content-Type"), x.body)
	} else {
		err = q.parse(x.api, x.body)
	}
	x.tellModel(q.model)
	if err != nil {
		x.fail(err)
		return
	}
	x.tellPrompt()
	adapter, err := s.resolve(q)
	if err != nil {
		x.fail(err)
		return
	}
	if err := x.readSay(); err != nil {
		x.fail(err)
		return
	}
	x.model, x.blockSize = q.model, s.cfg.BlockSize
	if adapter == 0 && slices.Contains(s.cfg.Models, q.model) {
		x.model = s.cfg.Models[0] // whatever name was requested, as in vLLM
	}
	j.reset()
	j.promptTokens, j.Adapter = q.promptTokens(s.cfg.BytesPerToken), adapter
	j.Stall, j.streams = x.fault.Hang, q.stream
	j.PromptTokens = max(j.promptTokens, 1) // an empty prompt still has its beginning
	answer := q.maxTokens
	if x.api >= apiEmbeddings {
		answer = 0
	}
	if j.maxTokens, err = fit(j.PromptTokens, answer, s.cfg.MaxModelLen); err != nil {
		x.fail(err)
		return
	}
	if answer == 0 {
		j.OutputTokens, j.finish = 0, "stop"
	} else {
		s.plan(x)
	}
	j.Hashes = engine.Hashes(j.Hashes[:0], s.salt(adapter)+q.partition(s.cfg.Dialect), q.prompt, s.cfg.BlockSize*s.cfg.BytesPerToken)
	if err := s.model.rest.wait(x.r.Context()); err != nil {
		x.fail(err)
		return
	}
	if err := s.model.submit(j); err != nil {
		panic(err) // j was made above, and fits
	}
	defer func() {
		if !j.ended.Load() {
			s.model.cancel(j)
		}
	}()
	if s.cfg.Engines > 1 {
		x.w.Header()["X-Modelsim-Engine"] = []string{strconv.Itoa(j.rank)}
	}
	if x.fault.Hang {
		x.hang()
	}
	switch {
	case x.api >= apiEmbeddings:
		x.wait(0)
		x.tellCached()
		x.encoded()
	case q.stream:
		x.wait(0)
		x.stream()
	default:
		x.whole()
	}
}

// partition is the client's key that separates its cached prefixes from those of others.
func (q *request) partition(d Dialect) string {
	if d == SGLang {
		return q.cacheSalt + "\x00" + q.extraKey
	}
	return q.cacheSalt
}

// salt separates the prefixes of adapters: they compute different keys and values.
func (s *Server) salt(adapter int) string {
	if adapter == 0 {
		return "\x00"
	}
	return s.cfg.LoRAs[adapter-1] + "\x00"
}

// adapterOf returns the name of the adapter that a request asks for, if any: the model's name; with SGLang the part after
// its first colon, or else lora_path.
func (s *Server) adapterOf(q *request) string {
	if s.cfg.Dialect != SGLang {
		return q.model
	}
	if _, own, _ := strings.Cut(q.model, ":"); own != "" {
		return own
	}
	return q.loraPath
}

// resolve finds the adapter for a model name (from 1; 0 is the base model). An unknown name is an error on a strict
// replica; on any other it is the base model under another name. A request without a model gets the first one, as in
// vLLM.
func (s *Server) resolve(q *request) (adapter int, err error) {
	if q.model == "" {
		q.model = s.cfg.Models[0]
		return 0, nil
	}
	if i := slices.Index(s.cfg.LoRAs, s.adapterOf(q)); i >= 0 {
		return i + 1, nil
	}
	if s.cfg.StrictModels && !slices.Contains(s.cfg.Models, q.model) {
		return 0, unknownModel(q.model, s.cfg.Models)
	}
	return 0, nil
}

// plan decides how long the output is and why it ends: filler has no end of its own, an echo and a transcript have one.
func (s *Server) plan(x *exchange) {
	q, j := &x.request, &x.job
	if len(x.text) == 0 && (s.cfg.Echo || x.api == apiTranscription) {
		x.text = append(x.text, q.lastMsg...)
	}
	j.OutputTokens, j.finish = j.maxTokens, "length"
	if len(x.text) == 0 {
		return
	}
	pieces := 0
	for rest := x.text; len(rest) > 0; rest = rest[x.pieceLen(rest):] {
		pieces++
	}
	if x.said {
		j.maxTokens = max(j.maxTokens, min(pieces, s.cfg.MaxModelLen-j.PromptTokens)) // all of it, whatever limit the client sets
	}
	if pieces <= j.maxTokens {
		j.OutputTokens, j.finish = pieces, "stop"
	} else {
		j.OutputTokens = j.maxTokens
	}
}

// appendPiece appends the text of output token i, escaped for JSON but without quotes, and returns the rest of an echo's
// text.
func (x *exchange) appendPiece(dst []byte, i int, echo []byte) (out, rest []byte) {
	if len(echo) == 0 {
		return append(dst, filler[i%len(filler)]...), nil
	}
	n := x.pieceLen(echo)
	quote := len(dst)
	dst = gjson.AppendJSONString(dst, string(echo[:n]))
	dst = slices.Delete(dst, quote, quote+1)
	return dst[:len(dst)-1], echo[n:]
}

// pieceBytes is the approximate length of a piece of an echo.
const pieceBytes = 4

// pieceLen is the length of the first piece of text; it does not split characters.
func (x *exchange) pieceLen(text []byte) int {
	n := 0
	for chars := 0; n < len(text) && (x.piece == 0 && n < pieceBytes || chars < x.piece); chars++ {
		_, size := utf8.DecodeRune(text[n:])
		n += size
	}
	return n
}

// wait blocks until the output has more than n tokens (see job.wait), or ends the request.
func (x *exchange) wait(tokens int) {
	if x.job.wait(x.r.Context(), tokens) != nil {
		x.abort()
	}
}

// decode calls emit for each output token when it is due.
func (x *exchange) decode(emit func(i int)) {
	j := &x.job
	for i := range j.OutputTokens {
		x.wait(i)
		j.sent = i + 1
		emit(i)
	}
}

// appendText appends the whole text of the output, escaped for JSON but without quotes.
func (x *exchange) appendText(dst []byte) []byte {
	echo := x.text
	for i := range x.job.OutputTokens {
		dst, echo = x.appendPiece(dst, i, echo)
	}
	return dst
}

// whole responds without streaming, once all tokens are there.
func (x *exchange) whole() {
	j := &x.job
	x.wait(j.OutputTokens)
	x.tellCached()
	j.sent = j.OutputTokens
	out := x.out[:0]
	switch x.api {
	case apiChat, apiCompletions:
		out = x.appendCompletion(out)
	case apiMessages:
		out = x.appendMessage(out, true)
	case apiResponses:
		out = x.appendResponse(out, x.responseStatus())
	case apiTranscription:
		out = x.appendTranscript(out)
	}
	x.out = out
	x.answer(http.StatusOK, "application/json", x.out)
}

// tellCached sets x-modelsim-cached to the number of the prompt's tokens that were in the cache.
func (x *exchange) tellCached() {
	x.w.Header()["X-Modelsim-Cached"] = []string{strconv.Itoa(x.job.CachedTokens) + "/" + strconv.Itoa(x.job.promptTokens)}
}

// encoded responds for APIs in which the model only encodes.
func (x *exchange) encoded() {
	switch x.api {
	case apiEmbeddings:
		x.embeddings()
	case apiRerank:
		x.rerank()
	case apiScore:
		x.score()
	}
}

// stream responds with server-sent events. Each event is flushed separately, as a real server does.
func (x *exchange) stream() {
	x.tellCached()
	x.w.Header()["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
	x.status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	x.flush()
	events := eventWriter{x: x, resetAt: x.fault.ResetAfter, cutAt: -1}
	if x.fault.CutBody {
		events.cutAt = (x.job.OutputTokens + 2) / 2
	}
	switch x.api {
	case apiChat, apiCompletions:
		x.streamCompletion(&events)
	case apiMessages:
		x.streamMessage(&events)
	case apiResponses:
		x.streamResponse(&events)
	}
	if x.fault.ResetAfter >= 0 {
		x.reset() // there were fewer events than the fault's number: at least the end of the response is missing
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

// appendID appends the response's id as a JSON string. As in vLLM it is made from the request's x-request-id if there is
// one.
func (x *exchange) appendID(dst []byte) []byte {
	if id := x.r.Header.Get("X-Request-Id"); id != "" {
		return gjson.AppendJSONString(dst, x.api.idPrefix()+id)
	}
	var random [8]byte
	binary.LittleEndian.PutUint64(random[:], rand.Uint64())
	dst = append(dst, '"')
	dst = append(dst, x.api.idPrefix()...)
	dst = hex.AppendEncode(dst, random[:])
	return append(dst, '"')
}

// appendNow appends the current time in Unix seconds.
func appendNow(dst []byte) []byte { return strconv.AppendInt(dst, time.Now().Unix(), 10) }
