// Package conf decodes configurations strictly: YAML or JSON, no unknown keys, and all errors at once, each with path,
// line, column and, if a word looks misspelled, a suggestion.
//
// The caller walks the document with functions instead of struct tags, so that defaults, ranges and checks are next to
// the field that they belong to:
//
//	err := conf.Decode(doc, func(o *conf.Object) {
//		o.String("header", &c.Header, conf.HeaderName)
//		o.Duration("timeout", &c.Timeout, time.Millisecond, time.Minute)
//	})
//
// A document can contain what JSON can contain: aliases, anchors, merge keys, tags and several documents in one file are
// refused, and plain words mean what they mean in JSON (yes, on and 0x10 are strings).
package conf

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Decode reads a document whose root is an object, passes it to f, and returns Errors with all mistakes, or nil. It does
// not call f if the document cannot be parsed. It drops warnings.
func Decode(doc []byte, f func(*Object)) error { return DecodeWarn(doc, func(Error) {}, f) }

// DecodeWarn is Decode, and calls warn for what will stop working in a later release (Object.Alias) and for what can hardly be meant (Object.Warnf).
func DecodeWarn(doc []byte, warn func(Error), f func(*Object)) error {
	root, wrong := parse(doc)
	if wrong != nil {
		return Errors{*wrong}
	}
	d := &decoder{warn: warn, first: map[string]*yaml.Node{}}
	(&Value{d: d, node: root}).Object(f)
	if len(d.errs) == 0 {
		return nil
	}
	return d.errs.sorted()
}

// decoder collects the mistakes.
type decoder struct {
	errs  Errors
	warn  func(Error)
	first map[string]*yaml.Node // buffer of reportRepeated
}

// errorf reports a mistake at a node of a value.
func (d *decoder) errorf(of *Value, at *yaml.Node, format string, args ...any) {
	d.errs = append(d.errs, mistake(of, at, format, args...))
}

func mistake(of *Value, at *yaml.Node, format string, args ...any) Error {
	return Error{Path: of.Path(), Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...)}
}
