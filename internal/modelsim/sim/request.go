package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/tidwall/gjson"
)

// request is the part of a request body that the simulation reads.
type request struct {
	model           string
	stream          bool
	includeUsage    bool // last chunk with the usage
	continuousUsage bool // usage in every chunk
	maxTokens       int
	cacheSalt       string
	extraKey        string // SGLang: separates caches, as cacheSalt does
	loraPath        string // SGLang: the adapter
	base64          bool   // embeddings: encoding_format
	dimensions      int    // embeddings
	topN            int    // rerank; 0: all
	pairs           []pair
	audioSeconds    int  // transcription
	blocks          bool // the system prompt may have blocks that are not shown to the model

	prompt    []byte // text of all messages, as a chat template would lay it out
	inputEnds []int  // where each input ends in prompt; one for a chat
	lastMsg   []byte // text of the last message; aliases prompt
	text      []byte // of all messages, and nothing between
	lastUser  []byte // that of the last message of a user; aliases text
}

// defaultMaxTokens is for a request without max_tokens: vLLM's default for completions. (For chat, vLLM generates until
// the model ends its turn; a simulated model has no end of its own.)
const defaultMaxTokens = 16

// clear resets the fields of the previous request.
func (q *request) clear() {
	clear(q.pairs)
	*q = request{maxTokens: defaultMaxTokens, dimensions: embeddingDimensions, prompt: q.prompt[:0], text: q.text[:0], inputEnds: q.inputEnds[:0], pairs: q.pairs[:0]}
}

// parse reads a body. The last of repeated members counts, as in Python's json, which vLLM uses. gjson checks and walks
// the document without building it: the body may be large, and this server is the upstream of benchmarks. The client gets
// an *apiError.
func (q *request) parse(api api, body []byte) error {
	q.clear()
	if tooDeep(body) || !utf8.Valid(body) || !gjson.ValidBytes(body) {
		return badMember("0", "JSON decode error: the body is not valid JSON")
	}
	// A string over the body's own bytes: ParseBytes would copy them. Values that outlive the request are cloned
	// (stringMember).
	root := gjson.Parse(unsafe.String(unsafe.SliceData(body), len(body)))
	if !root.IsObject() {
		return badRequest("Input should be a valid dictionary: the body is not a JSON object")
	}
	var firstErr error
	var content, tools, system, second, streamOptions, maxCompletionTokens gjson.Result
	member, limit, limited := api.content(), api.limit(), false
	root.ForEach(func(key, value gjson.Result) bool {
		if value.Type == gjson.Null {
			return true // every member that is read is optional, or checked below
		}
		var err error
		switch name := key.String(); name {
		case member:
			content = value
		case limit:
			q.maxTokens, err = positiveMember(name, value)
			limited = true
		case "model":
			q.model, err = stringMember(name, value)
		case "stream":
			q.stream, err = boolMember(name, value)
		case "stream_options":
			streamOptions = value
		case "max_completion_tokens":
			maxCompletionTokens = value
		case "cache_salt":
			q.cacheSalt, err = stringMember(name, value)
		case "extra_key":
			q.extraKey, err = oneMember(name, value)
		case "lora_path":
			q.loraPath, err = oneMember(name, value)
		case "tools":
			tools = value
		case "encoding_format":
			q.base64 = value.String() == "base64"
		case "dimensions":
			if q.dimensions, err = positiveMember(name, value); err == nil && q.dimensions > maxDimensions {
				err = badRequest("dimensions must be at most %d, got %d.", maxDimensions, q.dimensions)
			}
		case api.system():
			system = value
		case "text_2", "documents":
			second = value
		case "top_n":
			if value.Raw != "0" {
				q.topN, err = positiveMember(name, value)
			}
		}
		if firstErr == nil {
			firstErr = err
		}
		return true // to the end, so that the model is also known for a refused body
	})
	if firstErr != nil {
		return firstErr
	}
	if !content.Exists() {
		return badMember(member, "Field required: %s", member)
	}
	if api == apiMessages && !limited {
		return badMember("max_tokens", "Field required: max_tokens")
	}
	if api == apiChat && maxCompletionTokens.Exists() {
		var err error
		if q.maxTokens, err = positiveMember("max_completion_tokens", maxCompletionTokens); err != nil {
			return err
		}
	}
	if err := q.readStreamOptions(streamOptions); err != nil {
		return err
	}
	q.blocks = api == apiMessages
	switch api {
	case apiChat, apiMessages:
		return q.readMessages(tools, system, content)
	case apiResponses:
		return q.readResponseInput(tools, system, content)
	case apiRerank:
		return q.readRerank(content, second)
	case apiScore:
		return q.readScore(content, second)
	default:
		return q.readInputs(api, content)
	}
}

// system is the body member that contains the system prompt, for APIs that have one outside the messages.
func (a api) system() string {
	switch a {
	case apiMessages:
		return "system"
	case apiResponses:
		return "instructions"
	}
	return ""
}

// limit is the body member that limits the output.
func (a api) limit() string {
	if a == apiResponses {
		return "max_output_tokens"
	}
	return "max_tokens"
}

func (q *request) readStreamOptions(options gjson.Result) error {
	if !options.Exists() {
		return nil
	}
	if !q.stream {
		return &apiError{
			status: http.StatusBadRequest, kind: "BadRequestError", param: "stream_options",
			message: "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
		}
	}
	q.includeUsage = true // vLLM's default once there are stream options
	var err error
	if v := options.Get("include_usage"); v.Exists() && v.Type != gjson.Null {
		if q.includeUsage, err = boolMember("include_usage", v); err != nil {
			return err
		}
	}
	if v := options.Get("continuous_usage_stats"); v.Exists() && v.Type != gjson.Null {
		q.continuousUsage, err = boolMember("continuous_usage_stats", v)
		q.continuousUsage = q.continuousUsage && q.includeUsage
	}
	return err
}

// readResponseInput reads the input of the Responses API: a string, or items, one kind of which are messages.
func (q *request) readResponseInput(tools, instructions, input gjson.Result) error {
	if input.Type == gjson.String {
		q.lead(tools, instructions)
		q.prompt = append(q.prompt, "\nuser\n"...)
		start := len(q.prompt)
		q.prompt = append(q.prompt, input.Str...)
		q.lastMsg = q.prompt[start:]
		q.text = append(q.text, input.Str...)
		q.lastUser = q.text[len(q.text)-len(input.Str):]
		return nil
	}
	if !input.IsArray() {
		return badRequest("Input should be a valid string or list: input")
	}
	return q.readMessages(tools, instructions, input)
}

// lead adds what precedes the messages: tools, and the system prompt of Messages and Responses.
func (q *request) lead(tools, system gjson.Result) {
	if tools.Exists() {
		q.prompt = append(q.prompt, tools.Raw...)
	}
	if !system.Exists() {
		return
	}
	before := len(q.prompt)
	q.prompt = append(q.prompt, "\nsystem\n"...)
	start := len(q.prompt)
	if system.Type == gjson.String { // shown unchanged
		q.prompt = append(q.prompt, system.Str...)
		q.text = append(q.text, system.Str...)
	} else {
		q.appendContent(system, q.blocks)
	}
	if len(q.prompt) == start {
		q.prompt = q.prompt[:before]
	}
}

// readMessages lays the prompt out as chat templates do: the tools first, then each message under its role.
func (q *request) readMessages(tools, system, messages gjson.Result) error {
	if !messages.IsArray() {
		return badMember("messages", "Input should be a valid list: messages")
	}
	q.lead(tools, system)
	var err error
	lastStart := 0
	messages.ForEach(func(_, message gjson.Result) bool {
		if !message.IsObject() {
			err = badRequest("Input should be a valid dictionary: messages")
			return false
		}
		var role, content, toolCalls gjson.Result
		message.ForEach(func(key, value gjson.Result) bool {
			switch key.Str {
			case "role":
				role = value
			case "content":
				content = value
			case "tool_calls":
				toolCalls = value
			}
			return true
		})
		before := len(q.prompt)
		q.prompt = append(q.prompt, '\n')
		q.prompt = append(q.prompt, role.Str...)
		q.prompt = append(q.prompt, '\n')
		start, said := len(q.prompt), len(q.text)
		system := q.blocks && role.Str == "system"
		q.appendContent(content, system)
		if role.Str == "user" {
			q.lastUser = q.text[said:]
		}
		if system && len(q.prompt) == start {
			q.prompt = q.prompt[:before] // a message of which nothing is left has no turn
			return true
		}
		lastStart = start
		q.prompt = append(q.prompt, toolCalls.Raw...)
		return true
	})
	q.lastMsg = q.prompt[lastStart:]
	return err
}

// billing is the beginning of a block that Claude Code puts before its system prompt. vLLM leaves the block out.
const billing = "x-anthropic-billing-header"

// appendContent adds a message's content: a string, or parts; of a system prompt only what is shown. Parts that are not
// text (an image) add a digest, so that equal images are equal prefixes.
func (q *request) appendContent(content gjson.Result, system bool) {
	appendText := func(text string) {
		if !system || !strings.HasPrefix(text, billing) {
			q.prompt = append(q.prompt, text...)
			q.text = append(q.text, text...)
		}
	}
	if content.Type == gjson.String {
		appendText(content.Str)
		return
	}
	content.ForEach(func(_, part gjson.Result) bool {
		if text := part.Get("text"); text.Type == gjson.String {
			appendText(text.Str)
			return true
		}
		digest := sha256.Sum256([]byte(part.Raw))
		q.prompt = hex.AppendEncode(q.prompt, digest[:])
		return true
	})
}

// readInputs reads a prompt of completions or an input of embeddings: a string, a list of strings, a list of token ids, or a list
// of such lists. A list of prompts for completions is joined into one.
func (q *request) readInputs(api api, content gjson.Result) error {
	switch {
	case content.Type == gjson.String:
		q.prompt = append(q.prompt, content.Str...)
	case content.IsArray():
		content.ForEach(func(_, item gjson.Result) bool {
			switch {
			case item.Type == gjson.String:
				q.prompt = append(q.prompt, item.Str...)
				q.inputEnds = append(q.inputEnds, len(q.prompt))
			case item.IsArray():
				item.ForEach(func(_, id gjson.Result) bool { q.appendTokenID(id); return true })
				q.inputEnds = append(q.inputEnds, len(q.prompt))
			default:
				q.appendTokenID(item)
			}
			return true
		})
	default:
		return badRequest("Input should be a valid string or list: %s", api.content())
	}
	if len(q.inputEnds) == 0 {
		q.inputEnds = append(q.inputEnds, len(q.prompt))
	}
	q.lastMsg = q.prompt
	q.text = append(q.text, q.prompt...)
	q.lastUser = q.text
	return nil
}

// appendTokenID adds one token given as its number: as many bytes as a token has.
func (q *request) appendTokenID(id gjson.Result) {
	n := id.Uint()
	q.prompt = append(q.prompt, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

func (q *request) promptTokens(bytesPerToken int) int {
	if q.audioSeconds > 0 {
		return q.audioSeconds * audioTokensPerSecond
	}
	return (len(q.prompt) + bytesPerToken - 1) / bytesPerToken
}

func stringMember(name string, v gjson.Result) (string, error) {
	if v.Type != gjson.String {
		return "", badRequest("Input should be a valid string: %s", name)
	}
	return strings.Clone(v.Str), nil
}

// oneMember is a string, or one for each prompt, of which there is one.
func oneMember(name string, v gjson.Result) (string, error) {
	if v.IsArray() && len(v.Array()) == 1 {
		v = v.Array()[0]
	}
	return stringMember(name, v)
}

func boolMember(name string, v gjson.Result) (bool, error) {
	if !v.IsBool() {
		return false, badRequest("Input should be a valid boolean: %s", name)
	}
	return v.Bool(), nil
}

func positiveMember(name string, v gjson.Result) (int, error) {
	if v.Type != gjson.Number || v.Num != float64(int32(v.Num)) {
		return 0, badRequest("Input should be a valid integer: %s", name)
	}
	if v.Num < 1 {
		return 0, tooFew(name, int(v.Num))
	}
	return int(v.Num), nil
}

// maxDepth is how deep JSON may nest, about Python's recursion limit; beyond it vLLM responds with 400 too.
const maxDepth = 1000

// tooDeep guards the recursive JSON walk. Counting brackets is cheap and decides it for nearly every body.
func tooDeep(body []byte) bool {
	if bytes.Count(body, []byte{'['})+bytes.Count(body, []byte{'{'}) <= maxDepth {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
