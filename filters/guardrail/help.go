package guardrail

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// help is for the keys of the configuration.
var help = slices.Concat([]conf.Help{
	{Key: "providers", Text: "what finds"},
	{Key: "providers[].name", Text: "name for policies and the access log"},
	{Key: "providers[].local", Text: "screening in Envoy itself, with at least one of the three keys below"},
	{Key: "providers[].local.detect", Text: "detectors: `all`, or a list of `email`, `card`, `iban`, `ssn`, `phone`, `ip`, `secrets` and `injection`"},
	{Key: "providers[].local.deny", Text: "words and phrases of 2 to 200 bytes; they are found as whole words, in upper and lower case"},
	{Key: "providers[].local.patterns", Text: "regular expressions (RE2 syntax, https://golang.org/s/re2syntax). An entry is one, or an object with the next two keys"},
	{Key: "providers[].local.patterns[].pattern", Text: "the regular expression"},
	{Key: "providers[].local.patterns[].finds", Text: "texts that it must match: a configuration in which it does not is refused"},
	{Key: "providers[].validate", Text: "what the text of a response must be, with at least one of the four keys below; for policies that block or report"},
	{Key: "providers[].validate.json", Text: "it is JSON, with nothing around it"},
	{Key: "providers[].validate.required", Text: "members that it has, as a JSON object"},
	{Key: "providers[].validate.schema", Text: "JSON Schema that it fits, as JSON: the keywords are [here](#validation)"},
	{Key: "providers[].validate.maxBytes", Text: "how long it may be; a longer one is stopped as soon as it is"},
	{Key: "providers[].timeout", Text: "how long a service may take to judge a prompt or a window of a response, retries included"},
	{Key: "providers[].failureMode", Text: "what happens if a service has not judged: `FailClosed` refuses with 503 `guardrail_unavailable`, `FailOpen` goes on, and the audit says so. A policy that only reports stops nothing"},
	{Key: "providers[].retries", Text: "how often a call is repeated, at once and within the timeout, after a failed connection or a status of 500 or more, but not after 429"},
	{Key: "providers[].breaker.failures", Text: "failed checks in a row after which the service is not called for a while, and its failure mode decides at once; 0: never"},
	{Key: "providers[].breaker.open", Text: "for how long; then one half-open probe is sent"},
	{Key: "providers[].cache", Text: "how long a verdict holds for the same text of the same tenant, if it is not a redaction; 0: not at all. Only keyed hashes of texts are kept, 4096 at most"},
	{Key: "policies", Text: "which providers screen what, and what happens on a finding. If several policies find the same, `block` takes precedence over `redact`, and `redact` over `report`"},
	{Key: "policies[].on", Text: "what is screened: prompts, responses, or both"},
	{Key: "policies[].use", Text: "names of providers"},
	{Key: "policies[].action", Text: "what happens on a finding: `block` refuses the request or ends the response; `redact` puts a label in its place; `report` counts it"},
	{Key: "policies[].models", Text: "public names of the models that the policy is for", Default: "all models"},
	{Key: "policies[].pools", Text: "pools that the policy is for", Default: "all pools"},
	{Key: "policies[].products", Text: "products of quota that the policy is for", Default: "all products"},
	{Key: "policies[].headers", Text: "headers that a request must have for the policy to hold; by name, a value or a list of values"},
	{Key: "policies[].roles", Text: "whose text of a prompt is screened: `user`, `system` (with instructions and tools), `assistant`, `tool` (what tools return) and `arguments` (what they are called with)", Default: "all roles"},
	{Key: "policies[].text", Text: "`latest` leaves out the turns of a conversation that the user has answered: what is left are the system prompt, what the user said last, calls and their results since, and the beginning of an answer"},
	{Key: "policies[].storedHistory", Text: "what happens to a request of which the server has a part (`previous_response_id`, `conversation`, items that are named by their ID, a stored `prompt`, audio of an earlier answer): `audit` screens what is in the request, and the audit says `partial`; `refuse` answers with 400"},
	{Key: "policies[].order", Text: "whether the services are asked one after the other, each about what the one before has made of the text, or at once"},
	{Key: "policies[].mode", Text: "`parallel` asks the services about the prompt while the model reads it, and holds the response until they have answered; it cannot redact"},
	{Key: "policies[].window", Text: "how much text of a stream services are asked about at least. With 1 they are asked about all that has arrived, as soon as they are not being asked"},
	{Key: "policies[].overlap", Text: "how much text of a stream waits for what follows it before it goes on, at least: as long as the findings that have several words. The last word always does", Default: "64B to redact, else 0"},
	{Key: "policies[].message", Text: "what the client reads when something was blocked", Default: "`Your request was rejected by the content policy of this gateway.`, or `The response was rejected …`"},
	{Key: "policies[].ending", Text: "how a stream that has begun ends when it is blocked: with an `error` event, or as the API ends one that a `content_filter` has stopped"},
}, protocolHelp())

// protocolHelp is for the objects of the protocols, with the keys that all of them have after each.
func protocolHelp() (all []conf.Help) {
	for _, h := range provider.Help {
		all = append(all, h)
		name := strings.TrimPrefix(h.Key, "providers[].")
		if !slices.ContainsFunc(provider.Protocols, func(p provider.Protocol) bool { return p.Name == name }) {
			continue
		}
		all = append(all,
			conf.Help{Key: h.Key + ".cluster", Text: "Envoy's cluster of the service, which has its TLS and its credentials"},
			conf.Help{Key: h.Key + ".host", Text: "the `:authority` of requests", Default: "the service's public name, else the cluster"})
	}
	return all
}
