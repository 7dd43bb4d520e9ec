package chain

import (
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Describe returns what a chain's configuration may say, as the code that reads it asks for it, and help for its keys. The
// keys of a filter begin with "filters[].<name>.".
func Describe(known []filter.Factory, deps *filter.Deps, options ...Option) (*conf.Form, []conf.Help) {
	c := newChain(deps, options)
	form := conf.Describe(func(o *conf.Object) { c.read(o, known) })
	var all []conf.Help
	for _, h := range help {
		all = append(all, h)
		if h.Key != "companion.embedded" {
			continue
		}
		for _, h := range c.embedHelp {
			h.Key = "companion.embedded." + h.Key
			all = append(all, h)
		}
	}
	for _, f := range known {
		under := "filters[]." + f.Name + "."
		for _, h := range f.Help {
			h.Key = under + h.Key
			all = append(all, h)
		}
		all = append(all, conf.Help{Key: under + "failureMode", Text: "what happens to a request when the filter itself fails: `FailOpen` goes on without it, `FailClosed` refuses with 503"})
	}
	return form, all
}

// help is for the chain's own keys.
var help = []conf.Help{
	{Key: "filters", Text: "the filters, in the order in which they see a request; each has one key, its name"},
	{Key: "companion.cluster", Text: "Envoy cluster of the companion, from which the chain gets what it knows of the replicas. `companion` needs this, or `embedded`"},
	{Key: "companion.wait", Text: "how long one long poll of the companion may stay open"},
	{Key: "companion.embedded", Text: "the native module finds and scrapes the replicas itself, in place of a companion process"},
	{Key: "pathPrefix", Text: "prefixes of the standard paths, such as `/team-a`. The path is forwarded unchanged"},
	{Key: "paths", Text: "further paths whose bodies are read; they take precedence over the standard ones"},
	{Key: "paths[].path", Text: "the path, compared exactly"},
	{Key: "paths[].api", Text: "the API whose form the bodies have; `other` is any JSON or form with a `model`"},
	{Key: "passThrough", Text: "prefixes of paths that no filter sees; API keys in such requests are forwarded, too"},
	{Key: "controlHeaders", Text: "what happens to control headers of a request. `trust` is for a chain behind another gateway that removes clients' own"},
	{Key: "countTokens", Text: "whether the tokens of responses are counted as metrics"},
	{Key: "limits.body", Text: "bytes of a body, both encoded and decoded; a larger one gets 413. Envoy's buffers must hold it"},
	{Key: "limits.prompt", Text: "bytes of prompt that filters see; a guardrail refuses longer ones"},
	{Key: "limits.response", Text: "bytes of a response that are held while filters screen it"},
	{Key: "limits.prefix", Text: "bytes of prompt that are hashed to find the replica that has computed its beginning"},
	{Key: "limits.depth", Text: "nesting depth of objects and arrays"},
	{Key: "limits.keyLength", Text: "bytes of a member's name"},
	{Key: "limits.stringLength", Text: "bytes of one string"},
	{Key: "limits.members", Text: "members of one object, and parts of a form"},
	{Key: "limits.items", Text: "items of one array"},
}

// OfFilter returns the form of a filter's configuration within that of a chain, and the help for its keys, which then begin
// with none of the chain's.
func OfFilter(name string, form *conf.Form, all []conf.Help) (*conf.Form, []conf.Help) {
	under := "filters[]." + name + "."
	var own []conf.Help
	for _, h := range all {
		if key, ok := strings.CutPrefix(h.Key, under); ok {
			h.Key = key
			own = append(own, h)
		}
	}
	return form.At("filters[]." + name), own
}
