package llm

import (
	"slices"

	"github.com/inlet-proxy/inlet/shared/reading/formscan"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// MaxModelBytes bounds a model's name. A longer one is refused as a string that is too long.
const MaxModelBytes = 1024

// Bounds of the members that are read by name, see Want.Fields.
const (
	MaxFields     = 8 // besides Partitions
	MaxFieldBytes = 256

	allFields = MaxFields + len(Partitions)
)

// Partitions are members by which servers keep what they compute apart: the same prompt with another value is another one. The first is
// vLLM's and SGLang's, the others are SGLang's; the last names a LoRA adapter.
var Partitions = [...]string{"cache_salt", "extra_key", "lora_path"}

// maxFormText bounds the text fields of a form that are read. A transcription's prompt has some hundred tokens.
const maxFormText = 64 << 10

// keepPrompt is the size up to which a scanner keeps the buffer of one prompt for the next.
const keepPrompt = 2 << 20

// Request is what the body of a request says. Of a member that stands twice the last one counts, as for the Python
// servers behind; see Repeated.
type Request struct {
	API API

	// Form: the body is multipart/form-data. Its fields stand bare in it, not as JSON.
	Form bool

	Model         string // the name, unescaped; the same string for the same name
	HasModel      bool   // "model" is there
	ModelIsString bool   // ... and is a string
	ModelSpan     Span   // the model as it stands in the body, a JSON string's quotes included; absent unless it is a string

	Stream       bool // the client asks for server-sent events
	IncludeUsage bool // ... and for the tokens used, in the last of them ("stream_options": {"include_usage": true})
	MaxTokens    int  // most tokens that the answer may have; 0 if the client sets no bound

	// PromptBytes counts the bytes of prompt text in what the API is about, unescaped: messages, prompt, input, instructions,
	// system, what is to be ranked. Images, sound and files do not count. Nor do tools and further members, since they are
	// not always read; where they are part of Prefix its length tells of them.
	PromptBytes int
	// PromptTokens counts tokens that the client sends as numbers in place of text (completions, embeddings).
	PromptTokens int
	// Prompt is all text that a server may show to the model: every string value of the body that is not known to be
	// something else, with '\n' between different strings. Tools, documents and members that nobody knows are in it. A
	// call's arguments that have escapes within their JSON stand in it a second time without. Only with Want.Prompt; valid
	// until the next Reset.
	Prompt []byte
	// Joined is the text of messages that consist of several parts, without anything between the parts of one message:
	// whether a server puts a line feed there depends on the model's chat template. Empty if the prompt is cut; otherwise
	// as Prompt.
	Joined []byte
	// PromptCut is true if the prompt is longer than Want.PromptLimit, and Prompt ends before it.
	PromptCut bool
	// PromptEmbeds: the client sends vectors in place of text (vLLM's prompt_embeds, SGLang's input_embeds).
	PromptEmbeds bool
	// Template: the client sends its own chat template, which makes of the text what it likes (vLLM).
	Template bool

	// Prefix has a hash for each full block of what the model reads, in the order in which it reads it, whatever the order of the
	// members: tools, system prompt, conversation. It has all prompt text, tokens that are sent as numbers, the JSON of tools, and
	// images and files by their hash, and who speaks. What a chat template is given besides counts from the first block on. Equal hashes at
	// one place stand for equal prompts up to there. Neither the model nor anything else that tells caches apart is in it.
	// Only with Want.PrefixBlocks; valid until the next Reset.
	Prefix []uint64

	// Repeated is the first top-level member that is read here and stands twice, or "". Parsers differ in which of the
	// two they take: whoever decides by one of them must refuse the request.
	Repeated string

	names  []string // Want.Fields
	fields [allFields]Field
}

// FieldKind says what a member's value is.
type FieldKind uint8

// The kinds of values.
const (
	FieldAbsent  FieldKind = iota // the member is not there
	FieldNull                     // null
	FieldText                     // a string
	FieldScalar                   // a number, true or false
	FieldTooLong                  // more than MaxFieldBytes
	FieldOther                    // an object, an array or a file
)

// Field is one top-level member of a request.
type Field struct {
	Kind  FieldKind
	Value []byte // a string unescaped, a number or boolean as written; valid until the next Reset
}

// Field returns the member of a name that Want.Fields asked for.
func (r *Request) Field(name string) Field {
	if i := slices.Index(r.names, name); i >= 0 {
		return r.fields[i]
	}
	return Field{}
}

// Want says what a RequestScanner is to collect besides the facts that cost nothing.
type Want struct {
	Prompt      bool
	PromptLimit int // most bytes of Prompt, cut at a character's border; 0 for no limit
	// Fields are names of further top-level members to read, at most MaxFields and those of Partitions. The slice must not change.
	Fields []string

	PrefixBlocks int // most blocks of Prefix; 0 for none at all
}

// RequestScanner reads the facts of one request from its body, in chunks. The zero value is ready after Reset, and a
// scanner that is used again allocates nothing once it has seen the models and the prompt sizes that it gets.
type RequestScanner struct {
	json   jsonscan.Scanner
	form   formscan.Scanner
	reader requestReader
	prefix prefixer
	fields formReader
}

// Reset makes the scanner ready for the JSON body of a request to api. It invalidates the last Request.
func (r *RequestScanner) Reset(api API, want Want, lim jsonscan.Limits) {
	r.reset(api, want)
	r.json.Reset(&r.reader, lim)
}

// ResetForm makes the scanner ready for a form with this boundary, see [formscan.Boundary]. Of the limits, Members bounds
// the parts.
func (r *RequestScanner) ResetForm(api API, want Want, lim jsonscan.Limits, boundary string) {
	r.reset(api, want)
	r.reader.facts.Form = true
	r.fields.requestReader, r.fields.form = &r.reader, &r.form
	r.form.Reset(&r.fields, boundary, lim.Members)
}

func (r *RequestScanner) reset(api API, want Want) {
	want.Fields = want.Fields[:min(len(want.Fields), allFields)]
	reader := &r.reader
	facts, fields, model, models, name := &reader.facts, reader.facts.fields, reader.model, reader.models, reader.name
	prompt, joined := reuse(facts.Prompt), reuse(facts.Joined)
	*reader = requestReader{} // at once, and then what is not zero: the reader is large
	reader.json, reader.members, reader.want = &r.json, members[min(int(api), len(members)-1)], want
	reader.field, reader.model, reader.models, reader.name = noField, model[:0], models, name[:0]
	facts.API, facts.ModelSpan, facts.Prompt, facts.Joined, facts.names = api, absent, prompt, joined, want.Fields
	for i := range want.Fields {
		facts.fields[i].Value = fields[i].Value[:0]
	}
	if want.PrefixBlocks > 0 && int(api) < len(hasPrefixes) && hasPrefixes[api] {
		r.prefix.reset(want.PrefixBlocks)
		r.reader.prefix = &r.prefix
	}
}

// reuse returns the buffer of a prompt for the next one, unless it is huge.
func reuse(buffer []byte) []byte {
	if cap(buffer) > keepPrompt {
		return nil
	}
	return buffer[:0]
}

// Feed reads the next bytes of the body. It returns nil, a *jsonscan.Error or a *formscan.Error, and the same error ever
// after.
func (r *RequestScanner) Feed(chunk []byte) error {
	if r.reader.facts.Form {
		return r.form.Feed(chunk)
	}
	if r.reader.err != nil {
		return r.reader.err
	}
	if err := r.json.Feed(chunk); err != nil && r.reader.err == nil {
		return err
	}
	return r.reader.failure()
}

// End says that the body is complete. It returns nil or an error as Feed does.
func (r *RequestScanner) End() error {
	if facts := &r.reader.facts; facts.PromptCut {
		facts.Joined = facts.Joined[:0]
	}
	if r.reader.facts.Form {
		return r.form.End()
	}
	if r.reader.err != nil {
		return r.reader.err
	}
	if r.reader.prefix != nil {
		r.reader.facts.Prefix = r.prefix.finish()
	}
	return r.json.End()
}

// Within returns the top-level member in whose value the scanner is: after an error the one that is at fault. It is "" in no
// member's value, and cut if the name is long.
func (r *RequestScanner) Within() string {
	if r.reader.err != nil {
		return memberNames[memberModel] // it is too long; the document may be sound
	}
	if r.reader.facts.Form || r.json.Depth() > 1 || r.json.InValue() {
		return string(r.reader.name)
	}
	return ""
}

// Decided reports whether the model and all of Want.Fields have been read. Nothing that follows changes them, but a member
// that stands twice: see Request.Repeated.
func (r *RequestScanner) Decided() bool {
	facts := &r.reader.facts
	if !facts.ModelIsString || r.reader.field != noField {
		return false // a field's value is complete when the next member begins
	}
	for i := range facts.names {
		if facts.fields[i].Kind == FieldAbsent {
			return false
		}
	}
	return true
}

// Request returns the facts read so far: all of them after End returned nil.
func (r *RequestScanner) Request() *Request { return &r.reader.facts }

// member is a top-level member that is read.
type member uint8

const (
	memberOther member = iota
	memberModel
	memberStream
	memberStreamOptions
	memberMaxTokens           // "max_tokens": of all APIs but Responses, deprecated in Chat
	memberMaxCompletionTokens // "max_completion_tokens": Chat; goes before max_tokens, as in vLLM
	memberMaxOutputTokens     // "max_output_tokens": Responses
	memberMessages            // Chat, Messages
	memberPrompt              // Completions, Images
	memberSuffix              // Completions: text after the place to fill
	memberInput               // Responses, Embeddings, Audio
	memberInstructions        // Responses, Audio
	memberSystem              // Messages
	memberQuery               // Rerank
	memberDocuments           // Rerank, Score
	memberQueries             // Score
	memberItems               // Score
	memberText1               // Score
	memberText2               // Score
	memberData1               // Score
	memberData2               // Score
	memberStreamIncludeUsage  // Transcriptions: what stream_options.include_usage is elsewhere
	memberTokens              // "prompt_token_ids", "input_ids", "token_ids": numbers in place of text
	memberEmbeds              // "prompt_embeds", "input_embeds": vectors in place of text
	memberTemplate            // "chat_template"
	memberTemplateArgs        // "chat_template_kwargs": what the chat template may show to the model
	memberTools               // "tools", "functions"
	memberShape               // what else a chat template may show to the model, or makes something else of the prompt: documents, how much to think
	memberEffort              // "reasoning", "output_config", "thinking": how much to think, which alone counts, and more
	memberEarlier             // "previous_response_id": a conversation that the server has
	memberText                // any other that is not known to be a setting: schemas and what is new
)

var memberNames = [...]string{
	memberModel:               "model",
	memberStream:              "stream",
	memberStreamOptions:       "stream_options",
	memberMaxTokens:           "max_tokens",
	memberMaxCompletionTokens: "max_completion_tokens",
	memberMaxOutputTokens:     "max_output_tokens",
	memberMessages:            "messages",
	memberPrompt:              "prompt",
	memberSuffix:              "suffix",
	memberInput:               "input",
	memberInstructions:        "instructions",
	memberSystem:              "system",
	memberQuery:               "query",
	memberDocuments:           "documents",
	memberQueries:             "queries",
	memberItems:               "items",
	memberText1:               "text_1",
	memberText2:               "text_2",
	memberData1:               "data_1",
	memberData2:               "data_2",
	memberStreamIncludeUsage:  "stream_include_usage",
}

// memberSet is a set of members, by bit.
type memberSet uint32

func set(ms ...member) (s memberSet) {
	for _, m := range ms {
		s |= 1 << m
	}
	return s
}

func (s memberSet) has(m member) bool { return s>>m&1 == 1 }

// texts are the members that are read of every API whose requests are understood.
const texts memberSet = 1<<memberTokens | 1<<memberEmbeds | 1<<memberTemplate | 1<<memberTemplateArgs | 1<<memberTools | 1<<memberShape | 1<<memberEffort |
	1<<memberText

// members that are read, by API. Others are skipped.
var members = [...]memberSet{
	Unknown:        set(memberModel, memberStream, memberStreamOptions, memberMaxTokens),
	Chat:           set(memberModel, memberStream, memberStreamOptions, memberMaxTokens, memberMaxCompletionTokens, memberMessages) | texts,
	Completions:    set(memberModel, memberStream, memberStreamOptions, memberMaxTokens, memberPrompt, memberSuffix) | texts,
	Responses:      set(memberModel, memberStream, memberMaxOutputTokens, memberInput, memberInstructions, memberEarlier) | texts,
	Embeddings:     set(memberModel, memberInput, memberMessages) | texts,
	Images:         set(memberModel, memberStream, memberPrompt) | texts,
	Audio:          set(memberModel, memberInput, memberInstructions) | texts,
	Messages:       set(memberModel, memberStream, memberMaxTokens, memberMessages, memberSystem) | texts,
	Models:         set(memberModel),
	ImageEdits:     set(memberModel, memberStream, memberPrompt) | texts,
	Transcriptions: set(memberModel, memberStream, memberStreamIncludeUsage, memberMaxCompletionTokens, memberPrompt) | texts,
	CountTokens:    set(memberModel, memberMessages, memberSystem) | texts,
	Rerank:         set(memberModel, memberQuery, memberDocuments) | texts,
	Score:          set(memberModel, memberQueries, memberDocuments, memberItems, memberText1, memberText2, memberData1, memberData2) | texts,
	Pooling:        set(memberModel, memberInput, memberMessages) | texts,
	Classify:       set(memberModel, memberInput, memberMessages) | texts,
	Tokenize: set(memberModel, memberMessages, memberPrompt, memberSuffix, memberInput, memberInstructions, memberSystem) |
		texts,
	Detokenize:  set(memberModel), // no model reads these tokens
	Generate:    set(memberModel, memberStream, memberStreamOptions) | texts,
	Videos:      set(memberModel, memberPrompt) | texts,
	Moderations: set(memberModel, memberInput) | texts,
	CohereChat:  set(memberModel, memberStream, memberMaxTokens) | texts,
	CohereEmbed: set(memberModel) | texts,
	Other:       set(memberModel, memberStream, memberStreamOptions, memberMaxTokens) | texts,
}

// prompts are the members that hold prompt text.
var prompts = set(memberMessages, memberPrompt, memberSuffix, memberInput, memberInstructions, memberSystem, memberQuery,
	memberDocuments, memberQueries, memberItems, memberText1, memberText2, memberData1, memberData2, memberEarlier) | texts

// lookup returns the member of a name, or memberOther if it is not in s.
func (s memberSet) lookup(name []byte) member {
	var m member
	switch string(name) {
	case "model":
		m = memberModel
	case "stream":
		m = memberStream
	case "stream_options":
		m = memberStreamOptions
	case "max_tokens":
		m = memberMaxTokens
	case "max_completion_tokens":
		m = memberMaxCompletionTokens
	case "max_output_tokens":
		m = memberMaxOutputTokens
	case "messages":
		m = memberMessages
	case "prompt":
		m = memberPrompt
	case "suffix":
		m = memberSuffix
	case "input":
		m = memberInput
	case "instructions":
		m = memberInstructions
	case "system":
		m = memberSystem
	case "query":
		m = memberQuery
	case "documents":
		m = memberDocuments
	case "queries":
		m = memberQueries
	case "items":
		m = memberItems
	case "text_1":
		m = memberText1
	case "text_2":
		m = memberText2
	case "data_1":
		m = memberData1
	case "data_2":
		m = memberData2
	case "stream_include_usage":
		m = memberStreamIncludeUsage
	case "prompt_token_ids", "input_ids", "token_ids":
		m = memberTokens
	case "prompt_embeds", "input_embeds":
		m = memberEmbeds
	case "chat_template":
		m = memberTemplate
	case "chat_template_kwargs":
		m = memberTemplateArgs
	case "tools", "functions":
		m = memberTools
	case "reasoning", "output_config", "thinking":
		m = memberEffort
	case "reasoning_effort", "add_special_tokens", "mm_processor_kwargs", "media_io_kwargs":
		m = memberShape
	case "previous_response_id":
		m = memberEarlier
	default:
		if !isSetting(name) {
			m = memberText
		}
	}
	switch {
	case s.has(m):
		return m
	case m == memberOther || m == memberEarlier || !s.has(memberText):
		return memberOther
	case m == memberDocuments || m == memberPrompt:
		return memberShape // chat templates are given documents, and a stored prompt goes before the conversation
	}
	return memberText // of another API, and who knows what this server makes of it
}

// isSetting reports whether a member is known not to be text for the model: who asks, how the answer is to be made and
// given, and images.
func isSetting(name []byte) bool {
	switch string(name) {
	case "user", "metadata", "safety_identifier", "prompt_cache_key", "cache_salt", "extra_key", "lora_path", "request_id",
		"service_tier", "tool_choice", "verbosity", "truncation", "include", "stop", "stop_sequences",
		"encoding_format", "voice", "size", "quality", "style", "background", "output_format", "moderation", "input_fidelity",
		"image", "images", "mask":
		return true
	}
	return false
}

// requestReader takes the tokens of a body. It is told only of what it does not skip: the top-level members of interest.
type requestReader struct {
	json    *jsonscan.Scanner
	members memberSet
	want    Want
	facts   Request
	err     *jsonscan.Error

	member    member // the top-level member whose value is being read
	name      []byte // ... and its name, cut at maxName
	field     int    // ... and its index in want.Fields, or noField
	seen      memberSet
	seenNamed uint32 // of named, by index
	usageNext bool   // the value that follows is include_usage
	setting   settingText

	model  []byte
	models interner

	text   bool // the string being read has had a piece
	prompt promptReader

	prefix  *prefixer // nil: not wanted
	hashing bool      // the member that is being read is part of the prefix

	maxTokens           int
	maxCompletionTokens int
}

const (
	noField = -1
	maxName = 64
)

// failure returns the reader's own error as an error, nil if there is none.
func (r *requestReader) failure() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

func (r *requestReader) Open(array bool) {
	switch depth := r.json.Depth(); {
	case depth == 1 && array:
		// Not an object: it has no members. Servers refuse it.
		r.json.Skip()
	case depth == 2:
		r.usageNext = false
		if r.field != noField {
			r.facts.fields[r.field].Kind = FieldOther
		}
		if r.member == memberStreamOptions {
			if array {
				r.json.Skip()
			}
		} else if !prompts.has(r.member) {
			r.json.Skip()
		}
	case r.member == memberStreamOptions:
		r.usageNext = false
		r.json.Skip()
	}
	if r.inPrompt() {
		r.promptOpen(array)
		if r.hashing {
			r.prefixMark(beginOf, r.json.Depth())
		}
	}
}

func (r *requestReader) Close(array bool) {
	if r.inPrompt() {
		r.promptClose(array)
		if r.hashing {
			r.prefixMark(endOf, r.json.Depth()+1)
		}
	}
}

// inPrompt reports whether the scanner is in a member that holds prompt text.
func (r *requestReader) inPrompt() bool { return prompts.has(r.member) && r.json.Depth() > 0 }

func (r *requestReader) Key(name []byte) {
	switch {
	case r.json.Depth() == 1:
		r.topLevel(name)
	case r.member == memberStreamOptions:
		if r.usageNext = string(name) == "include_usage"; !r.usageNext {
			r.json.Skip()
		}
	default:
		r.promptKey(name)
	}
}

// topLevel takes the name of a member of the body.
func (r *requestReader) topLevel(name []byte) {
	if r.enter(name); r.member == memberOther && r.field == noField {
		r.json.Skip()
	}
}

// enter begins the member of a name.
func (r *requestReader) enter(name []byte) {
	r.member = r.members.lookup(name)
	r.hashing = r.prefix != nil && r.prefix.begin(r.member, name)
	if !r.hashing && !r.shown() {
		r.member = memberOther
	}
	r.field = r.wanted(name)
	r.name = append(r.name[:0], name[:min(len(name), maxName)]...)
	if r.field != noField {
		f := &r.facts.fields[r.field]
		if f.Kind != FieldAbsent && r.facts.Repeated == "" {
			r.facts.Repeated = r.want.Fields[r.field]
		}
		f.Kind, f.Value = FieldText, f.Value[:0]
	}
	if r.member == memberOther {
		return
	}
	r.prompt.begin(r.member)
	if r.member >= memberTokens {
		if r.member != memberText {
			r.seeNamed(name)
		}
		switch r.member {
		case memberEmbeds:
			r.prompt.key = keyEmbeds
		case memberTemplate:
			r.prompt.key = keyTemplate
		}
		return
	}
	if r.seen.has(r.member) && r.facts.Repeated == "" {
		r.facts.Repeated = memberNames[r.member]
	}
	r.seen |= set(r.member)
	// The last one counts, so what an earlier one said is forgotten.
	switch r.member {
	case memberModel:
		r.facts.HasModel, r.facts.ModelIsString, r.facts.Model, r.facts.ModelSpan = true, false, "", absent
		r.model = r.model[:0]
	case memberStream:
		r.facts.Stream = false
	case memberStreamOptions, memberStreamIncludeUsage:
		r.facts.IncludeUsage = false
	case memberMaxTokens, memberMaxOutputTokens:
		r.setMaxTokens(0, r.maxCompletionTokens)
	case memberMaxCompletionTokens:
		r.setMaxTokens(r.maxTokens, 0)
	}
}

// named are the members of which several share one constant, by name. What else is text may repeat: all that it says is counted.
var named = [...]string{
	"tools", "functions", "chat_template", "chat_template_kwargs", "documents", "prompt", "previous_response_id",
	"prompt_token_ids", "input_ids", "token_ids", "prompt_embeds", "input_embeds",
	"reasoning_effort", "reasoning", "output_config", "thinking", "add_special_tokens", "mm_processor_kwargs", "media_io_kwargs",
}

// seeNamed takes note of one of them.
func (r *requestReader) seeNamed(name []byte) {
	for i, known := range named {
		if string(name) != known {
			continue
		}
		if r.seenNamed>>i&1 == 1 && r.facts.Repeated == "" {
			r.facts.Repeated = known
		}
		r.seenNamed |= 1 << i
	}
}

// shown reports whether a member is read although it is not part of the prefix.
func (r *requestReader) shown() bool {
	switch r.member {
	case memberTools, memberShape, memberEffort, memberText:
		return r.want.Prompt
	case memberEarlier:
		return false
	}
	return true
}

// wanted returns the index of a name in Want.Fields, or noField.
func (r *requestReader) wanted(name []byte) int {
	for i, want := range r.want.Fields {
		if want == string(name) {
			return i
		}
	}
	return noField
}

func (r *requestReader) Text(piece []byte) {
	if r.field != noField && r.json.Depth() == 1 {
		r.keepField(piece)
	}
	switch {
	case r.member == memberModel:
		if len(r.model)+len(piece) > MaxModelBytes {
			if r.err == nil {
				r.err = &jsonscan.Error{Code: jsonscan.StringTooLong, Offset: r.json.Start()}
			}
			return
		}
		r.model = append(r.model, piece...)
	case settings.has(r.member):
		r.setting.add(piece)
	case prompts.has(r.member):
		r.promptText(piece)
	}
}

// keepField adds a piece of text to the field that is being read.
func (r *requestReader) keepField(piece []byte) {
	f := &r.facts.fields[r.field]
	if f.Kind == FieldTooLong || len(f.Value)+len(piece) > MaxFieldBytes {
		f.Kind, f.Value = FieldTooLong, f.Value[:0]
		return
	}
	f.Value = append(f.Value, piece...)
}

func (r *requestReader) TextEnd() {
	switch {
	case prompts.has(r.member):
		r.promptTextEnd()
	case settings.has(r.member):
		r.set(r.setting.take(), true)
	}
	if r.member == memberModel && r.err == nil {
		r.facts.ModelIsString = true
		r.facts.Model = r.models.string(r.model)
		r.facts.ModelSpan = Span{r.json.Start(), r.json.Offset()}
	}
}

func (r *requestReader) Scalar(raw []byte) {
	if r.field != noField && r.json.Depth() == 1 {
		r.scalarField(raw)
	}
	switch {
	case settings.has(r.member):
		r.set(raw, false)
	case prompts.has(r.member):
		r.promptScalar(raw)
	}
}

func (r *requestReader) scalarField(raw []byte) {
	f := &r.facts.fields[r.field]
	f.Kind = FieldScalar
	if raw[0] == 'n' {
		f.Kind = FieldNull
		return
	}
	r.keepField(raw)
}
