package main

import (
	"fmt"
	"slices"
	"strings"
)

// group is a set of packages whose mutants are drawn, and counted, together.
type group struct {
	name     string
	packages []string   // what is changed; their tests run first
	also     [][]string // arguments of further `go test` runs: packages that use these
}

var scenarios = []string{"-run=^TestNative$", "./shared/hosttest"}

var groups = []group{
	{"bbr", []string{"./filters/bbr"}, [][]string{{"./filters"}, scenarios}},
	{"llm", []string{"./shared/llm"}, [][]string{{"./shared/chain", "./filters/bbr"}, scenarios}},
	{"module", []string{"./shared/abi/module"}, nil},
	{"endpoint", []string{"./shared/endpoint", "./shared/feed"}, [][]string{{"./shared/abi/wasm", "./filters/picker", "./cmd/companion/relay"}}},
	{"relay", []string{"./cmd/companion/relay"}, [][]string{{"./cmd/companion"}}},
	{"scanners", []string{"./shared/sse", "./shared/jsonscan"}, [][]string{{"./shared/llm"}}},
	{"chain", []string{"./shared/chain"}, [][]string{{"./filters", "./shared/abi/wasm"}, scenarios}},
	{"kv", []string{"./shared/kv", "./shared/kv/mem"}, [][]string{{"./shared/abi/wasm", "./filters/picker"}}},
	{"scrape", []string{"./cmd/companion/scrape"}, [][]string{{"./cmd/companion"}}},
	{"picker", []string{"./filters/picker", "./filters/picker/prefix", "./filters/picker/scorer"}, [][]string{{"./filters"}, scenarios}},
}

// choose returns the groups that are named, all if none is.
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
			return nil, fmt.Errorf("no group %q; there are %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, groups[i])
	}
	return chosen, nil
}

// runs are the `go test` runs for a change in one of the group's packages, the likeliest to notice it first.
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
