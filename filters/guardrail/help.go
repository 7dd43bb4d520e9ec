package guardrail

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "providers", Text: "providers that screen text"},
	{Key: "providers[].name", Text: "name for policies and the access log"},
	{Key: "providers[].local", Text: "screening in Envoy itself"},
	{Key: "providers[].local.patterns", Text: "regular expressions (RE2 syntax, https://golang.org/s/re2syntax); a prompt that one of them matches is a finding"},
	{Key: "policies", Text: "which providers screen what, and what happens on a finding"},
	{Key: "policies[].on", Text: "what is screened: the prompt of a request"},
	{Key: "policies[].use", Text: "names of providers, in order"},
	{Key: "policies[].action", Text: "what happens on a finding: the request is refused with 400"},
}
