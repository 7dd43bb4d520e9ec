package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const equivalentFile = "tools/mutate/equivalent.txt"

// equivalents are the blocks of mutants that no test can detect, with the reason.
type equivalents map[string]string

// readEquivalent reads the file of equivalent mutants: blocks between empty lines, each with its reason in comments.
func readEquivalent(path string) (equivalents, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseEquivalent(string(text))
}

func parseEquivalent(text string) (equivalents, error) {
	known := equivalents{}
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var reason, block []string
		for line := range strings.SplitSeq(part, "\n") {
			if why, ok := strings.CutPrefix(line, "#"); ok {
				reason = append(reason, strings.TrimSpace(why))
			} else {
				block = append(block, strings.TrimSpace(line))
			}
		}
		if len(block) == 0 {
			continue // a remark
		}
		if len(reason) == 0 {
			return nil, fmt.Errorf("%s: no reason for %q", equivalentFile, block[0])
		}
		known[strings.Join(block, "\n")+"\n"] = strings.Join(reason, " ")
	}
	return known, nil
}

// has reports whether the mutant is known to be equivalent.
func (e equivalents) has(m *mutant) bool { return e[m.block()] != "" }

// check returns an error for each entry whose text is no longer in its file.
func (e equivalents) check(root string) error {
	var stale []error
	for block := range e {
		head, rest, _ := strings.Cut(block, "\n")
		file, _, _ := strings.Cut(head, " ")
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			stale = append(stale, err)
			continue
		}
		lines := map[string]bool{}
		for line := range strings.SplitSeq(string(source), "\n") {
			lines[strings.TrimSpace(line)] = true
		}
		for line := range strings.SplitSeq(rest, "\n") {
			if was, ok := strings.CutPrefix(line, "- "); ok && !lines[was] {
				stale = append(stale, fmt.Errorf("%s: %s no longer has %q", equivalentFile, file, was))
			}
		}
	}
	return errors.Join(stale...)
}
