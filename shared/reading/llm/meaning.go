package llm

// meaning is what the name of a JSON member says of the strings in its value.
type meaning uint8

const (
	unknownMember meaning = iota
	aboutMember           // the server's, not the model's
	textMember
	reasoningMember
	argumentsMember
	refusalMember
	deltaMember // of Responses: what it is says the event's type
	finishMember
	choicesMember
	callsMember
	outputMember
	logprobsMember
	modelMember
	indexMember
	outputIndexMember
	contentIndexMember
	responseMember
	messageMember // or a part of one, or what only wraps a text
	metaMember
)

// memberOf returns what a name means. The same names mean the same in all APIs.
func memberOf(name []byte) meaning {
	switch string(name) {
	case "content", "text":
		return textMember
	case "reasoning_content", "reasoning", "thinking", "reasoning_text", "summary", "reasoning_details":
		return reasoningMember
	case "arguments", "partial_json", "input":
		return argumentsMember
	case "refusal":
		return refusalMember
	case "delta":
		return deltaMember
	case "finish_reason":
		return finishMember
	case "choices":
		return choicesMember
	case "tool_calls":
		return callsMember
	case "output":
		return outputMember
	case "logprobs", "top_logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids", "output_ids", "output_token_logprobs",
		"input_token_logprobs", "output_top_logprobs", "input_top_logprobs", "output_token_ids_logprobs", "input_token_ids_logprobs":
		return logprobsMember
	case "model":
		return modelMember
	case "index":
		return indexMember
	case "response":
		return responseMember
	case "message", "content_block", "part", "item", "function":
		return messageMember
	case "meta_info":
		return metaMember
	case "output_index":
		return outputIndexMember
	case "content_index", "summary_index":
		return contentIndexMember
	case "id", "object", "type", "role", "status", "stop_reason", "system_fingerprint", "service_tier", "item_id", "call_id",
		"tool_call_id", "previous_response_id", "signature", "encrypted_content", "obfuscation", "tool_choice", "truncation":
		return aboutMember
	}
	return unknownMember
}

// wraps reports whether a member only wraps a text, or tells it apart by other means than the channel's path.
func (m meaning) wraps() bool {
	switch m {
	case choicesMember, callsMember, outputMember, responseMember, messageMember, deltaMember, textMember:
		return true
	}
	return false
}

// hash tells names apart.
func hash(name []byte) uint32 {
	h := uint32(2166136261)
	for _, b := range name {
		h = (h ^ uint32(b)) * 16777619
	}
	return h
}

var inputName = hash([]byte("input"))
