package main

import (
	"fmt"
	"slices"
	"strings"
)

// group is a set of packages whose mutants are drawn and counted together.
type group struct {
	name     string
	packages []string   // the packages to change; their tests run first
	also     [][]string // arguments of further `go test` runs: packages that use these
}

var scenarios = []string{"-run=^TestNative$", "./internal/scenarios"}

var groups = []group{
	{"bbr", []string{"./filters/bbr"}, [][]string{{"./filters"}, scenarios}},
	{"llm", []string{"./shared/reading/llm"}, [][]string{{"./internal/chain", "./filters/bbr"}, scenarios}},
	{"module", []string{"./shared/adapters/module"}, nil},
	{"endpoint", []string{"./shared/state/endpoint", "./internal/feed"}, [][]string{{"./shared/adapters/wasm", "./filters/picker", "./internal/companion/relay"}}},
	{"relay", []string{"./internal/companion/relay"}, [][]string{{"./cmd/companion"}}},
	{"scanners", []string{"./shared/reading/sse", "./shared/reading/jsonscan"}, [][]string{{"./shared/reading/llm"}}},
	{"chain", []string{"./internal/chain"}, [][]string{{"./filters", "./shared/adapters/wasm"}, scenarios}},
	{"account", []string{"./shared/state/account"}, nil},
	{"kv", []string{"./shared/state/kv", "./shared/state/kv/mem"}, [][]string{{"./shared/adapters/wasm", "./filters/picker"}}},
	{"scrape", []string{"./internal/companion/scrape", "./internal/companion/http1"}, [][]string{{"./cmd/companion"}}},
	{"picker", []string{"./filters/picker", "./filters/picker/prefix", "./filters/picker/scorer"}, [][]string{{"./filters"}, scenarios}},
	{"detect", []string{"./filters/guardrail/detect"}, nil},
	{"quota", []string{"./filters/quota"}, [][]string{{"./filters"}, scenarios}},
}

// choose returns the given groups, all if none is given.
func choose(names string) ([]group, error) {
	if names == "" {
		return groups, nil
	}
	var chosen []group
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == strings.TrimSpace(name) })
		if i < 0 {
			var all []string
			for _, g := range groups {
				all = append(all, g.name)
			}
			return nil, fmt.Errorf("unknown group %q, want one of %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, groups[i])
	}
	return chosen, nil
}

// runs are the `go test` runs for a change in one of the group's packages, the one most likely to detect it first.
func (g group) runs(changed string) [][]string {
	runs := [][]string{{changed}}
	var others []string
	for _, p := range g.packages {
		if p != changed {
			others = append(others, p)
		}
	}
	if len(others) > 0 {
		runs = append(runs, others)
	}
	return append(runs, g.also...)
}
