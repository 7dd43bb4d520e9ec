package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a document.
type Error struct {
	Path    string // position in the document, such as "filters[1].quota"; "" is the root
	Line    int    // starts at 1
	Column  int    // starts at 1, in characters
	Message string // what is wrong and what is expected, without the position
}

// Error returns the mistake on one line: path, line and column, message.
func (e Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
	}
	return fmt.Sprintf("%s: %d:%d: %s", e.Path, e.Line, e.Column, e.Message)
}

// Errors are all mistakes in a document, in document order. It is never empty.
type Errors []Error

// maxPrinted limits the output of Errors.Error, because an operator reads it as a log line.
const maxPrinted = 100

// Error returns one mistake per line. After the first hundred it only gives the number of the rest.
func (e Errors) Error() string {
	lines := make([]string, 0, min(len(e), maxPrinted+1))
	for i, one := range e {
		if i == maxPrinted {
			lines = append(lines, fmt.Sprintf("and %d more", len(e)-maxPrinted))
			break
		}
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// sorted returns the mistakes in document order without duplicates, because a filter may read one key twice.
func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, position)
	return slices.Compact(e)
}

// position orders mistakes by their place.
func position(a, b Error) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
