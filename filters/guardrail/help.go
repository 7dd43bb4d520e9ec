package guardrail

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "providers", Text: "what finds"},
	{Key: "providers[].name", Text: "name for policies and the access log"},
	{Key: "providers[].local", Text: "screening in Envoy itself, with at least one of the three keys below"},
	{Key: "providers[].local.detect", Text: "detectors: `all`, or a list of `email`, `card`, `iban`, `ssn`, `phone`, `ip`, `secrets` and `injection`"},
	{Key: "providers[].local.deny", Text: "words and phrases of 2 to 200 bytes; they are found as whole words, in upper and lower case"},
	{Key: "providers[].local.patterns", Text: "regular expressions (RE2 syntax, https://golang.org/s/re2syntax). An entry is one, or an object with the next two keys"},
	{Key: "providers[].local.patterns[].pattern", Text: "the regular expression"},
	{Key: "providers[].local.patterns[].finds", Text: "texts that it must match: a configuration in which it does not is refused"},
	{Key: "policies", Text: "which providers screen what, and what happens on a finding. If several policies find the same, `block` goes before `redact`, and that before `report`"},
	{Key: "policies[].on", Text: "what is screened: prompts, responses, or both"},
	{Key: "policies[].use", Text: "names of providers"},
	{Key: "policies[].action", Text: "what happens on a finding: `block` refuses the request or ends the response; `redact` puts a label in its place; `report` counts it"},
	{Key: "policies[].models", Text: "public names of the models that the policy is for", Default: "all models"},
	{Key: "policies[].message", Text: "what the client reads when something was blocked", Default: "a sentence that says so"},
	{Key: "policies[].ending", Text: "how a stream that has begun ends when it is blocked: with an `error` event, or as the API ends one that a `content_filter` has stopped"},
}
