// Package guardrail screens prompts. So far a provider is a list of patterns that are
// matched here; providers that are called over the network belong here too.
package guardrail

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter screens the prompt's text.
type Filter struct {
	filter.Base
	policies []policy
}

// Needs requests the prompt's text.
func (f *Filter) Needs() filter.Needs { return filter.NeedPrompt }

// OnRequest blocks a prompt that matches a provider.
func (f *Filter) OnRequest(x *filter.Exchange) filter.Verdict {
	// Text that was not read was not screened, and must not pass as screened.
	switch {
	case x.Request.Template:
		return refuse(400, "template_not_allowed", "A request with its own chat template cannot be screened. Remove chat_template from the request.")
	case x.Request.PromptCut:
		return refuse(413, "prompt_too_large", "The prompt is too long to be screened. Please reduce its length.")
	case x.Request.PromptTokens > 0 || x.Request.PromptEmbeds:
		return refuse(400, "prompt_not_text", "Token IDs and embeddings cannot be screened. Send the prompt as text.")
	}
	for i := range f.policies {
		for _, p := range f.policies[i].use {
			if p.finds(x.Request.Prompt) || p.finds(x.Request.Joined) {
				x.Explain("guardrail", p.name)
				return refuse(400, "content_policy_violation", "Your request was rejected by the content policy of this gateway.")
			}
		}
	}
	return filter.Next
}

// finds reports whether any pattern matches.
func (p *provider) finds(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	for _, re := range p.patterns {
		if re.Match(text) {
			return true
		}
	}
	return false
}

func refuse(status int, code, message string) filter.Verdict {
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
		Status: status, Type: "invalid_request_error", Code: code, Message: message,
	}})
}
