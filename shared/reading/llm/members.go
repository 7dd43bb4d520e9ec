package llm

// member is a top-level member that is read.
type member uint8

const (
	memberOther member = iota
	memberModel
	memberStream
	memberStreamOptions
	memberMaxTokens           // "max_tokens": of all APIs but Responses, deprecated in Chat
	memberMaxCompletionTokens // "max_completion_tokens": Chat
	memberMaxOutputTokens     // "max_output_tokens": Responses
	memberN                   // "n": Chat, Completions
	memberBestOf              // "best_of": Completions
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
	memberN:                   "n",
	memberBestOf:              "best_of",
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
type memberSet uint64

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
	Chat:           set(memberModel, memberStream, memberStreamOptions, memberMaxTokens, memberMaxCompletionTokens, memberN, memberMessages) | texts,
	Completions:    set(memberModel, memberStream, memberStreamOptions, memberMaxTokens, memberN, memberBestOf, memberPrompt, memberSuffix) | texts,
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
	case "n":
		m = memberN
	case "best_of":
		m = memberBestOf
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

// named are the members of which several share one constant, by name. What else is text may repeat: all that it says is counted.
var named = [...]string{
	"tools", "functions", "chat_template", "chat_template_kwargs", "documents", "prompt", "previous_response_id",
	"prompt_token_ids", "input_ids", "token_ids", "prompt_embeds", "input_embeds",
	"reasoning_effort", "reasoning", "output_config", "thinking", "add_special_tokens", "mm_processor_kwargs", "media_io_kwargs",
}
