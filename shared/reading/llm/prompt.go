package llm

import (
	"encoding/hex"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// promptReader knows which strings of a body are text for the model: all but those that are known not to be, so that a
// member that a server learns tomorrow is read today. Not text are, outside tools, arguments and other free JSON:
//
//   - images, sound and files: the data and the URL in image_url, video_url, audio_url, input_audio, file and source, unless
//     the source is plain text;
//   - signatures and what is encrypted; both only if they are what they should be, see opaque;
//   - the values of role and type that are words of the protocol.
//
// It keeps no stack. Within what it knows, the way to a place consists of the members content, output and the media above;
// any other member begins free JSON, and free is how deep that stands.
type promptReader struct {
	key  promptKey // of the value that follows; keyText in arrays
	free int       // depth of the object whose member began free JSON; 0 for none

	object int // depth of the outermost object in the top-level member; 0 for none: only arrays so far

	opaque opaque // what stands in a place that is not for text

	word    [maxWord]byte // a role or type so far, or the beginning of what is in such a place
	wordLen int

	media  int      // depth of the object that describes an image, a sound, a file or a source; 0 for none
	source bool     // ... and it is a source: what is in data depends on its type, which may follow
	base64 bool     // ... of the type base64
	data   dataSpan // ... and its data

	role turnRole // of the message that is being read, as far as has been said

	parts     int // depth of the array of parts that is being read; 0 for none
	partTexts int // texts in it
	partsFrom int // where they begin in Joined
	partsID   int // how many such arrays there have been

	block  int  // of Strings: the first of the part that is being read
	signs  bool // the value is a signature
	signed bool // ... and the part has one that is not empty

	partRole Role // of the part, if its type says so
	turn     int  // messages so far
	turnFrom int  // of Strings: the first of the message that is being read

	from int // where in Prompt the string of arguments begins
}

// turnRole says who speaks in a message; of an item that nobody says, such as the output of a function, its type stands for that.
type turnRole struct {
	word  [maxWord]byte
	n     int
	known bool // it is a role
}

// system is the role of a system message.
const system = "system"

func (t *turnRole) text() []byte { return t.word[:t.n] }

func (t *turnRole) is(role string) bool { return t.known && string(t.text()) == role }

// take takes a role, or the type of an item.
func (t *turnRole) take(word []byte, isRole bool) {
	if isRole || !t.known {
		t.n, t.known = copy(t.word[:], word), isRole
	}
}

// dataSpan is the data of a source, read as text until its type says otherwise.
type dataSpan struct {
	complete   bool // the string has been read
	start, end int  // in Prompt
	bytes      int
	cut        bool // the prompt was whole before it and is cut by it
	lost       bool // text after it is missing for that reason
}

const (
	maxWord = 24 // bytes of the longest word of the protocol

	messageDepth = 3 // of a message's members, and of those of a block of a system prompt or of a tool
	effortDepth  = 2 // of the members of what says how much to think
)

// promptKey is what a member's name says about its value, if that is a string.
type promptKey uint8

const (
	keyText      promptKey = iota // text like any other
	keyPart                       // the text of a part of a message
	keyParts                      // a message's text or its parts
	keyMedia                      // an image, a sound or a file: an object or a URL
	keyInfo                       // a source: an object, or text (Anthropic's search results)
	keyBlob                       // not text
	keyData                       // the data of a source
	keyRole                       // who speaks
	keyType                       // what a thing is
	keyArguments                  // JSON in a string, which servers unpack
	keyEmbeds                     // vectors in place of text
	keyTemplate                   // a chat template
)

// promptKeyOf returns what a name says where it is not free JSON.
func promptKeyOf(name []byte) promptKey {
	switch string(name) {
	case "text":
		return keyPart
	case "content", "output":
		return keyParts
	case "role":
		return keyRole
	case "type":
		return keyType
	case "image_url", "video_url", "audio_url", "input_audio", "file":
		return keyMedia
	case "source":
		return keyInfo
	case "image_embeds", "audio_embeds", "file_data", "signature", "encrypted_content":
		return keyBlob
	case "url", "data", "media_type", "format", "detail":
		return keyData // in media; else text
	case "arguments":
		return keyArguments
	case "prompt_embeds":
		return keyEmbeds
	}
	return keyText
}

// protocolWord reports whether a role or type is one that servers know. It is enough to know the common ones: what is not
// here is screened as text.
func protocolWord(word []byte) bool {
	switch string(word) {
	case "user", "assistant", "system", "developer", "tool", "function", "model",
		"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "thinking", "redacted_thinking", "reasoning",
		"image_url", "input_image", "image", "image_embeds", "audio_embeds", "prompt_embeds", "input_audio", "audio_url", "video_url", "file", "input_file",
		"document", "base64", "url", "content", "message", "item_reference",
		"function_call", "function_call_output", "custom", "tool_use", "tool_result", "server_tool_use", "search_result", "tool_reference",
		"string", "number", "integer", "boolean", "object", "array", "null",
		"ephemeral", "json_schema", "json_object", "auto", "any", "none", "enabled", "disabled", "adaptive":
		return true
	}
	return false
}

// begin prepares for the value of a top-level member. In one that is not a conversation all strings are text.
func (p *promptReader) begin(m member) {
	p.key, p.free, p.object, p.media, p.parts, p.role = keyText, 0, 0, 0, 0, turnRole{}
	p.data = dataSpan{}
	if m == memberText || m == memberTemplateArgs || m == memberTools || m == memberShape || m == memberEffort {
		p.free = 1
	}
}

// promptKey takes the name of a member within a prompt.
func (r *requestReader) promptKey(name []byte) {
	p, depth := &r.prompt, r.json.Depth()
	if depth <= p.free {
		p.free = 0
	}
	p.key = promptKeyOf(name)
	p.signs = p.key == keyBlob && string(name) == "signature"
	p.from = len(r.facts.Prompt)
	r.storedKey(name)
	if r.hashing {
		r.prefixKey(name)
	}
	if p.free != 0 {
		switch {
		case r.member == memberTemplateArgs && depth == 2 && string(name) == "chat_template":
			p.key = keyTemplate
		case p.key != keyType && p.key != keyRole && p.key != keyArguments:
			p.key = keyText
		}
		return
	}
	switch p.key {
	case keyParts:
	case keyMedia, keyInfo:
		p.media, p.source, p.base64, p.data = depth+1, p.key == keyInfo, false, dataSpan{}
	case keyData:
		r.mediaKey(name)
	default:
		p.free = depth
	}
}

// mediaKey takes a name that has a meaning of its own in media.
func (r *requestReader) mediaKey(name []byte) {
	p := &r.prompt
	p.free = r.json.Depth()
	switch {
	case p.media != r.json.Depth():
		p.key = keyText
	case !p.source || string(name) != "data":
		p.key = keyBlob
	default:
		p.data = dataSpan{start: len(r.facts.Prompt), bytes: -r.facts.PromptBytes, cut: !r.facts.PromptCut}
	}
}

// promptOpen takes the begin of a container within a prompt.
func (r *requestReader) promptOpen(array bool) {
	p, depth := &r.prompt, r.json.Depth()
	r.storedValue()
	switch key := p.key; {
	case key == keyEmbeds:
		r.facts.PromptEmbeds = true
		r.json.Skip()
	case key == keyTemplate:
		r.facts.Template = true
		r.json.Skip()
	case array && p.parts == 0 && (key == keyParts || depth == 2 && r.member == memberSystem):
		p.parts, p.partTexts, p.partsFrom = depth, 0, len(r.facts.Joined)
		p.partsID++
	}
	if !array && depth == p.parts+1 {
		p.block, p.signed, p.partRole = len(r.facts.Strings), false, UserRole
	}
	p.key = keyText
	if !array {
		if p.object == 0 || depth < p.object {
			p.object = depth
		}
		if depth == messageDepth {
			p.role.n, p.role.known, p.turnFrom = 0, false, len(r.facts.Strings)
			if r.hashing {
				r.prefixTurn(true)
			}
		}
	}
}

// promptClose takes the end of a container within a prompt.
func (r *requestReader) promptClose(array bool) {
	p, depth := &r.prompt, r.json.Depth()+1
	if r.hashing && !array && depth == messageDepth {
		r.prefixTurn(false)
	}
	if depth == p.media {
		if p.data.complete && p.base64 && all(r.facts.Prompt[p.data.start:p.data.end], ofBase64) {
			r.dropData()
		}
		p.media = 0
	}
	if !array && depth == p.parts+1 {
		r.endPart()
	}
	if !array && depth == messageDepth {
		r.storedItem()
		r.endTurn()
	}
	if depth == p.parts {
		if p.partTexts < 2 {
			r.facts.Joined = r.facts.Joined[:p.partsFrom]
		}
		p.parts = 0
	}
}

// dropData takes back what turned out not to be text.
func (r *requestReader) dropData() {
	d := &r.prompt.data
	r.facts.PromptBytes -= d.bytes
	r.facts.Prompt = slices.Delete(r.facts.Prompt, d.start, d.end)
	r.facts.forgetSources(d.start, d.end)
	if d.cut && !d.lost {
		r.facts.PromptCut = false
	}
}

// promptText takes a piece of a string within a prompt.
func (r *requestReader) promptText(piece []byte) {
	p := &r.prompt
	if len(piece) > 0 {
		r.storedValue()
	}
	switch p.key {
	case keyMedia, keyBlob:
		p.signed = p.signed || p.signs
		r.opaqueText(piece)
		return
	case keyEmbeds:
		return
	case keyTemplate:
		if r.counts() {
			r.prefix.write(piece)
		}
		return
	case keyData:
		r.addMedia(piece) // text or not
	case keyRole, keyType:
		if p.wordLen+len(piece) <= maxWord {
			p.wordLen += copy(p.word[p.wordLen:], piece)
			return
		}
		r.notAWord(r.piece.from)
		p.key = keyText
	}
	r.addText(piece)
}

// notAWord reads a role or type as text, since it is none that servers know. In the body it ends at until.
func (r *requestReader) notAWord(until int64) {
	p := &r.prompt
	if r.json.Depth() == p.media {
		p.base64 = false
	}
	r.wordAsText(until)
}

// wordAsText reads the word as text.
func (r *requestReader) wordAsText(until int64) {
	p := &r.prompt
	if p.wordLen > 0 {
		now := r.piece
		r.piece = piece{from: now.start + 1, to: until}
		r.addText(p.word[:p.wordLen])
		r.piece = now
	}
	p.wordLen = 0
}

// promptTextEnd takes the end of a string within a prompt.
func (r *requestReader) promptTextEnd() {
	p := &r.prompt
	switch p.key {
	case keyRole, keyType:
		word := p.word[:p.wordLen]
		if p.key == keyType && r.json.Depth() == p.media {
			p.base64 = string(word) == "base64"
		}
		if r.json.Depth() == messageDepth {
			r.storedType(word)
			p.role.take(word, p.key == keyRole)
		}
		if p.key == keyType && p.parts != 0 && r.json.Depth() == p.parts+1 {
			p.partRole, _ = roleOf(word)
		}
		switch {
		case r.hashing && r.member == memberEffort && p.key == keyType && r.json.Depth() == effortDepth && string(word) == "disabled":
			r.prefix.append(word) // as an effort of its own; what else a type says of thinking is no part of the prompt
		case !protocolWord(word):
			r.notAWord(r.piece.to)
		case r.inJSON():
			r.prefix.write(word)
		}
		p.wordLen = 0
	case keyMedia, keyBlob:
		if p.opaque == undecidedYet {
			r.decideOpaque(p.word[:p.wordLen], r.piece.to)
		}
	case keyData:
		d := &p.data
		d.complete, d.end, d.bytes, d.cut = true, len(r.facts.Prompt), d.bytes+r.facts.PromptBytes, d.cut && r.facts.PromptCut
	case keyArguments:
		r.unpackArguments()
	case keyEmbeds:
		r.facts.PromptEmbeds = true
	case keyTemplate:
		r.facts.Template = true
	}
	if r.counts() {
		r.prefix.end()
	}
	p.key, r.text, p.opaque = keyText, false, undecidedYet
}

// addMedia adds a piece of an image or a file to the prefix.
func (r *requestReader) addMedia(piece []byte) {
	if r.counts() {
		r.prefix.writeMedia(piece)
	}
}

// promptScalar takes a number or literal within a prompt.
func (r *requestReader) promptScalar(raw []byte) {
	p := &r.prompt
	if raw[0] != 'n' {
		r.storedValue()
	}
	number := raw[0] <= '9'
	inObject := p.object != 0 && r.json.Depth() >= p.object
	switch {
	case p.key == keyEmbeds || p.key == keyTemplate:
		if raw[0] != 'n' {
			r.facts.PromptEmbeds = r.facts.PromptEmbeds || p.key == keyEmbeds
			r.facts.Template = r.facts.Template || p.key == keyTemplate
		}
	case number && !inObject && r.member <= memberTokens:
		r.facts.PromptTokens++
		if r.hashing {
			r.prefix.writeToken(raw)
		}
	case r.inJSON() && (raw[0] != 'n' || !r.isMember()): // a member that is null is none
		r.prefix.writeToken(raw)
	}
	p.key = keyText
}

// isMember reports whether the value that is being read is that of a top-level member, or the effort within one.
func (r *requestReader) isMember() bool {
	depth := r.json.Depth()
	return depth == 1 || depth == effortDepth && r.member == memberEffort
}

// addText adds a piece of text to the prompt, and to the joined parts if it belongs to one.
func (r *requestReader) addText(piece []byte) {
	if r.member < memberTokens {
		r.facts.PromptBytes += len(piece)
	}
	if r.counts() && r.prompt.key != keyData {
		if r.isBlock() {
			r.prefix.writeBlock(piece)
		} else {
			r.prefix.write(piece)
		}
	}
	if !r.want.Prompt || r.member == memberEarlier {
		return
	}
	p, first := &r.prompt, !r.text
	r.collect(piece)
	if r.facts.PromptCut {
		p.data.lost = p.data.lost || p.data.complete
		return
	}
	if p.parts == 0 || p.key != keyPart && r.json.Depth() != p.parts {
		return
	}
	if first {
		if p.partTexts++; p.partTexts == 1 && p.partsFrom > 0 {
			r.facts.Joined = append(r.facts.Joined, '\n')
		}
	}
	r.facts.Joined = append(r.facts.Joined, piece...)
}

// collect adds a piece of text to the prompt.
func (r *requestReader) collect(piece []byte) {
	begins := !r.text
	separate := begins && len(r.facts.Prompt) > 0
	r.text = true
	if r.facts.PromptCut {
		return
	}
	if limit := r.want.PromptLimit; limit > 0 {
		room := limit - len(r.facts.Prompt)
		if separate {
			room--
		}
		if len(piece) > room {
			r.facts.PromptCut = true
			if piece = cutAt(piece, room); len(piece) == 0 {
				return
			}
		}
	}
	if separate {
		r.facts.Prompt = append(r.facts.Prompt, '\n')
	}
	if r.want.Strings {
		r.note(piece, begins)
	}
	r.facts.Prompt = append(r.facts.Prompt, piece...)
}

// cutAt returns the longest part of well-formed text, longer than n bytes, that ends with a character and has at most n.
func cutAt(text []byte, n int) []byte {
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:max(n, 0)]
}

// unpackArguments adds a call's arguments once more as servers show them to the model: they read the JSON that is in the
// string and rewrite it, so an escape in it hides nothing.
func (r *requestReader) unpackArguments() {
	if !r.want.Prompt || r.facts.PromptCut || r.prompt.from >= len(r.facts.Prompt) {
		return
	}
	packed := r.facts.Prompt[r.prompt.from:]
	if !slices.Contains(packed, '\\') {
		return
	}
	if limit := r.want.PromptLimit; limit > 0 && len(r.facts.Prompt)+1+len(packed) > limit {
		r.facts.PromptCut = true // unpacked it may be shorter; what is sure not to fit is not worth a second pass
		return
	}
	if packed[0] != '\n' || r.prompt.from == 0 {
		r.facts.Prompt = append(r.facts.Prompt, '\n')
	}
	r.facts.Prompt = appendUnescaped(r.facts.Prompt, packed)
}

// appendUnescaped appends text in which JSON's escapes are undone. Of an escape that is none, the backslash is left out.
func appendUnescaped(dst, text []byte) []byte {
	for len(text) > 0 {
		i := slices.Index(text, '\\')
		if i < 0 || i == len(text)-1 {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			unit, ok := codeUnit(text)
			if !ok {
				dst = append(dst, 'u')
				continue
			}
			text = text[4:]
			if utf16.IsSurrogate(unit) && len(text) >= 6 && text[0] == '\\' && text[1] == 'u' {
				if low, ok := codeUnit(text[2:]); ok && utf16.DecodeRune(unit, low) != utf8.RuneError {
					unit, text = utf16.DecodeRune(unit, low), text[6:]
				}
			}
			dst = utf8.AppendRune(dst, unit)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// codeUnit reads the four hexadecimal digits of a \u escape.
func codeUnit(text []byte) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var b [2]byte
	if _, err := hex.Decode(b[:], text[:4]); err != nil {
		return 0, false
	}
	return rune(b[0])<<8 | rune(b[1]), true
}
