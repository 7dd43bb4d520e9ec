package provider

import (
	"strconv"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

func decimal(n int) string { return strconv.Itoa(n) }

// value is a string; or a number, true, false or null as written; or the beginning of an object or a list.
type value struct {
	kind kind
	text string
}

type kind uint8

const (
	isString kind = iota
	isScalar
	isContainer
)

func (v value) isText(s string) bool   { return v.kind == isString && v.text == s }
func (v value) isScalar(s string) bool { return v.kind == isScalar && v.text == s }

// item is the step of a path into a list.
const item = "[]"

// walk calls each for every value of a document, with the names on the way to it, and reports whether the document is JSON and an object. If
// it is not, what can be read of it is passed to each all the same, possibly twice: a service may say "block" in it. The path is valid
// during the call.
func walk(body []byte, each func(path []string, v value)) bool {
	w := walker{each: each}
	w.scanner.Reset(&w, jsonscan.Limits{})
	if w.scanner.Feed(body) == nil && w.scanner.End() == nil && !w.list {
		return true
	}
	w = walker{each: each}
	w.scanner.ResetLenient(&w)
	_ = w.scanner.Feed(body)
	return false
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
	if len(w.path) > 0 {
		w.each(w.path, value{kind: isContainer})
	}
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
func (w *walker) Scalar(raw []byte) { w.take(value{kind: isScalar, text: string(raw)}) }

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
