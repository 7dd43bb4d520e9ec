package schema

import (
	"fmt"
	"strings"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/check"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Chain returns the JSON Schema of a chain's configuration.
func Chain() ([]byte, error) { return JSON(chain.Describe(filters.All, check.Deps(), check.Embed())) }

// ChainTable returns the key table of what a chain's configuration says beside the filters.
func ChainTable() (string, error) {
	form, help := chain.Describe(filters.All, check.Deps(), check.Embed())
	own := *form
	own.Keys = nil
	for _, k := range form.Keys {
		if k.Name == "filters" {
			k = &conf.Key{Name: k.Name, Required: k.Required, Form: conf.Form{Kind: conf.KindList, Item: &conf.Form{Kind: conf.KindObject}}}
		}
		own.Keys = append(own.Keys, k)
	}
	var about []conf.Help
	for _, h := range help {
		if !strings.HasPrefix(h.Key, "filters[]") {
			about = append(about, h)
		}
	}
	return Table(&own, about)
}

// FilterTable returns the key table of a filter.
func FilterTable(name string) (string, error) {
	form, help := chain.Describe(filters.All, check.Deps(), check.Embed())
	own, about := chain.OfFilter(name, form, help)
	if own == nil {
		return "", fmt.Errorf("there is no filter %q", name)
	}
	return Table(own, about)
}
