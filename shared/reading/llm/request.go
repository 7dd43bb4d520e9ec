package llm

import "slices"

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
	// MaxTokens is the most tokens that an answer may have: the largest bound that the client sets, since servers differ in
	// which of several they obey; 0 if there is none.
	MaxTokens int
	// Answers is how many answers are computed for one prompt: the larger of "n" and "best_of"; 0 if the client says neither.
	Answers int

	// PromptBytes counts the bytes of prompt text in what the API is about, unescaped: messages, prompt, input, instructions,
	// system, what is to be ranked. Images, sound and files do not count. Nor do tools and further members, since they are
	// not always read; where they are part of Prefix its length includes them.
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
	// Strings are the strings of Prompt, in order, that stand in the body as such; Source says where. Only with Want.Strings; valid
	// until the next Reset.
	Strings []String
	// PromptCut is true if the prompt is longer than Want.PromptLimit, and Prompt ends before it.
	PromptCut bool
	// PromptEmbeds: the client sends vectors in place of text (vLLM's prompt_embeds, SGLang's input_embeds).
	PromptEmbeds bool
	// Template: the client sends its own chat template, which makes of the text what it likes (vLLM).
	Template bool
	// Earlier: a part of the prompt is on the server: an earlier response, a conversation or items of it, what the model has said in an
	// audio, a stored prompt. Only with Want.Prompt.
	Earlier bool
	// Unread: a string that begins like an image, a file or a signature goes on like text, which is not in Prompt.
	Unread bool

	// Prefix has a hash for each full block of what the model reads, in the order in which it reads it, whatever the order of the
	// members: tools, system prompt, conversation. It has all prompt text, tokens that are sent as numbers, the JSON of tools, and
	// images and files by their hash, and who speaks. What a chat template is given besides counts from the first block on. Equal hashes at
	// one place stand for equal prompts up to there. Neither the model nor anything else that tells caches apart is in it.
	// Only with Want.PrefixBlocks; valid until the next Reset.
	Prefix []uint64

	// Repeated is the first top-level member that is read here and stands twice, or "". Parsers differ in which of the
	// two they take: a filter that decides by one of them must refuse the request.
	Repeated string

	options streamOptions

	names   []string // Want.Fields
	fields  [allFields]Field
	sources sources // of Prompt
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
	PromptLimit int  // most bytes of Prompt, cut at a character's border; 0 for no limit
	Strings     bool // with Prompt: also where its strings stand in the body
	// Fields are names of further top-level members to read, at most MaxFields and those of Partitions. The slice must not change.
	Fields []string

	PrefixBlocks int // most blocks of Prefix; 0 for none at all
}
