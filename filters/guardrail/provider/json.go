package provider

import (
	"strconv"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func decimal(n int) string { return strconv.Itoa(n) }

// value is a string, or a number, true, false or null as written.
type value struct {
	text   string
	scalar bool
}

func (v value) isText(s string) bool   { return !v.scalar && v.text == s }
func (v value) isScalar(s string) bool { return v.scalar && v.text == s }

// item is the step of a path into a list.
const item = "[]"

// walk calls each for every value of a document, with the names on the way to it. It reports whether the document is complete, and all
// of it was read. What stands before a fault was passed to each. The path is valid during the call.
func walk(body []byte, each func(path []string, v value)) bool {
	w := walker{each: each}
	w.scanner.ResetLenient(&w)
	return w.scanner.Feed(body) == nil && w.scanner.End() == nil && !w.scanner.Unread() && !w.list && len(w.path) == 0
}

// walker is the handler of walk.
type walker struct {
	scanner jsonscan.Scanner
	each    func(path []string, v value)
	path    []string
	text    []byte
	list    bool // the document is a list, or no container
}

// Open implements jsonscan.Handler.
func (w *walker) Open(array bool) {
	w.list = w.list || array && len(w.path) == 0
	w.path = append(w.path, item)
}

// Close implements jsonscan.Handler.
func (w *walker) Close(bool) { w.path = w.path[:len(w.path)-1] }

// Key implements jsonscan.Handler.
func (w *walker) Key(name []byte) { w.path[len(w.path)-1] = string(name) }

// Text implements jsonscan.Handler.
func (w *walker) Text(piece []byte) { w.text = append(w.text, piece...) }

// TextEnd implements jsonscan.Handler.
func (w *walker) TextEnd() {
	w.take(value{text: string(w.text)})
	w.text = w.text[:0]
}

// Scalar implements jsonscan.Handler.
func (w *walker) Scalar(raw []byte) { w.take(value{text: string(raw), scalar: true}) }

func (w *walker) take(v value) {
	if len(w.path) == 0 {
		w.list = true
		return
	}
	w.each(w.path, v)
}

// appendMember appends a member of an object whose value is a string. before stands before its name.
func appendMember(dst []byte, before, name, text string) []byte {
	dst = llm.AppendString(append(dst, before...), name)
	return llm.AppendString(append(dst, ':'), text)
}
