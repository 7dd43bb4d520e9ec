// Package check finds faults in configuration before Envoy or a request does: in a chain's configuration, and in an Envoy
// bootstrap that has Inlet in it. It reads files and nothing else; `inletctl check` prints what it finds.
package check

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Severity says how bad a finding is.
type Severity string

const (
	// Error: Envoy or Inlet refuses the file, requests fail, or a client can go around Inlet.
	Error Severity = "error"
	// Warning: it works, but worse than it could.
	Warning Severity = "warning"
)

// Finding is one fault.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // from 1, in characters
	Severity Severity `json:"severity"`
	// Check is the name of the check that found it; Checks lists them.
	Check string `json:"check"`
	// Path is where in the chain's configuration, such as "filters[1].quota.keys"; "" for its root and for the bootstrap.
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	// Fix says what to write instead, "" where the message says it.
	Fix string `json:"fix,omitempty"`
}

// String is the finding as compilers print theirs.
func (f *Finding) String() string {
	place := ""
	if f.Path != "" {
		place = f.Path + ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s%s [%s]", f.File, f.Line, f.Column, f.Severity, place, f.Message, f.Check)
}

// sorted orders findings by place.
func sorted(found []Finding) []Finding {
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Check, b.Check))
	})
	return slices.Compact(found)
}

// Count returns how many of the findings are errors, and how many warnings.
func Count(found []Finding) (errors, warnings int) {
	for i := range found {
		if found[i].Severity == Error {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// WriteText prints findings for people, each with its fix on a line of its own.
func WriteText(w io.Writer, found []Finding) {
	for i := range found {
		fmt.Fprintln(w, found[i].String())
		if found[i].Fix != "" {
			fmt.Fprintln(w, "    fix: "+found[i].Fix)
		}
	}
}

// WriteJSON prints findings for programs.
func WriteJSON(w io.Writer, found []Finding) error {
	errors, warnings := Count(found)
	if found == nil {
		found = []Finding{} // an empty list, not null
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Findings []Finding `json:"findings"`
		Errors   int       `json:"errors"`
		Warnings int       `json:"warnings"`
	}{found, errors, warnings})
}
