package valid

import (
	"bytes"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// Document is a JSON value, in memory that is used again for the next one. The zero value is ready.
type Document struct {
	nodes   []node
	bytes   []byte // names, strings and scalars
	open    []int  // containers that are open
	key     span   // name of the member whose value is next
	from    int    // where the string begins that is being read
	scanner jsonscan.Scanner
}

// node is a value. What it contains stands behind it, up to the node at next.
type node struct {
	kind  types
	key   span // of a member
	value span // of a string, unescaped, or of another scalar, as it is written
	next  int
	count int // of the values that are directly in it
}

// span is a part of Document.bytes.
type span struct{ from, to int }

// limits of a text; its length is bounded elsewhere.
var limits = jsonscan.Limits{Depth: 128, KeyBytes: jsonscan.MaxKeyBytes, ScalarBytes: jsonscan.MaxScalarBytes}

// Read reads a text in place of what was there.
func (d *Document) Read(text []byte) error {
	d.nodes, d.bytes, d.open, d.key, d.from = d.nodes[:0], d.bytes[:0], d.open[:0], span{}, 0
	d.scanner.Reset(reader{d}, limits)
	if err := d.scanner.Feed(text); err != nil {
		return err
	}
	return d.scanner.End()
}

// Bytes is how much memory it holds.
func (d *Document) Bytes() int { return cap(d.bytes) + 64*cap(d.nodes) }

// reader fills a document.
type reader struct{ *Document }

func (d reader) add(kind types, value span) {
	if n := len(d.open); n > 0 {
		d.nodes[d.open[n-1]].count++
	}
	d.nodes = append(d.nodes, node{kind: kind, key: d.key, value: value, next: len(d.nodes) + 1})
}

// Open implements jsonscan.Handler.
func (d reader) Open(isArray bool) {
	kind := object
	if isArray {
		kind = array
	}
	d.add(kind, span{})
	d.open, d.key = append(d.open, len(d.nodes)-1), span{}
}

// Close implements jsonscan.Handler.
func (d reader) Close(bool) {
	last := len(d.open) - 1
	d.nodes[d.open[last]].next = len(d.nodes)
	d.open, d.key = d.open[:last], span{}
}

// Key implements jsonscan.Handler.
func (d reader) Key(name []byte) {
	d.key = d.put(name)
	d.from = len(d.bytes)
}

// Text implements jsonscan.Handler.
func (d reader) Text(piece []byte) { d.bytes = append(d.bytes, piece...) }

// TextEnd implements jsonscan.Handler.
func (d reader) TextEnd() {
	d.add(text, span{d.from, len(d.bytes)})
	d.ended()
}

// Scalar implements jsonscan.Handler.
func (d reader) Scalar(raw []byte) {
	kind := number
	switch raw[0] {
	case 'n':
		kind = null
	case 't', 'f':
		kind = boolean
	}
	d.add(kind, d.put(raw))
	d.ended()
}

func (d reader) ended() { d.from, d.key = len(d.bytes), span{} }

func (d *Document) put(b []byte) span {
	from := len(d.bytes)
	d.bytes = append(d.bytes, b...)
	return span{from, len(d.bytes)}
}

// of returns the bytes of a span.
func (d *Document) of(s span) []byte { return d.bytes[s.from:s.to] }

// each calls f for each value directly in the one at i, until it returns false, which it then does too.
func (d *Document) each(i int, f func(at int) bool) bool {
	for at := i + 1; at < d.nodes[i].next; at = d.nodes[at].next {
		if !f(at) {
			return false
		}
	}
	return true
}

// member returns the last member of a name in the object at i, -1 if there is none or no object.
func (d *Document) member(i int, name string) int {
	found := -1
	if d.nodes[i].kind != object {
		return found
	}
	for at := i + 1; at < d.nodes[i].next; at = d.nodes[at].next {
		if string(d.of(d.nodes[at].key)) == name {
			found = at
		}
	}
	return found
}

// equal reports whether two values are the same: 1.0 is 1, and the order of members says nothing.
func (d *Document) equal(i int, of *Document, k int) bool {
	a, b := &d.nodes[i], &of.nodes[k]
	if a.kind != b.kind || a.count != b.count {
		return false
	}
	switch a.kind {
	case number:
		return compare(d.of(a.value), of.of(b.value)) == 0
	case array:
		k++
		return d.each(i, func(at int) bool {
			same := d.equal(at, of, k)
			k = of.nodes[k].next
			return same
		})
	case object:
		return d.within(i, of, k) && of.within(k, d, i) // both, since a name may stand twice
	}
	return bytes.Equal(d.of(a.value), of.of(b.value))
}

// within reports whether each member of an object is in another one, with the same value.
func (d *Document) within(i int, of *Document, k int) bool {
	return d.each(i, func(at int) bool {
		other := of.member(k, string(d.of(d.nodes[at].key)))
		return other >= 0 && d.equal(at, of, other)
	})
}
