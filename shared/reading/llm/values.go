package llm

import "github.com/inlet-proxy/inlet/shared/reading/jsonscan"

// Values finds the strings in the values of JSON that is in a text, such as the arguments of a call. The zero value is
// ready, and can be used again.
type Values struct {
	// Text is all of them, decoded, and Each where they stand in it. Both are valid until the next Read.
	Text []byte
	Each []Value

	json    jsonscan.Scanner
	reader  valueReader
	keys    []byte
	sources sources
}

// Value is one string, bytes [From, To) of Values.Text.
type Value struct {
	From, To int
	// Key is the name of the member that it is in, or that has the list it is in; not empty for an object's member.
	Key []byte
}

// Read reads a text. It reports whether it is a JSON object or array, and nothing else.
func (v *Values) Read(text []byte) bool {
	v.Text, v.Each, v.keys, v.sources = v.Text[:0], v.Each[:0], v.keys[:0], reuseSources(v.sources)
	if !looksLikeJSON(text) {
		return false
	}
	v.reader = valueReader{of: v, names: v.reader.names[:0]}
	v.json.Reset(&v.reader, jsonscan.Limits{})
	if v.json.Feed(text) != nil || v.json.End() != nil {
		return false
	}
	for i := range v.Each {
		if k := v.reader.names[i]; k.to > k.from {
			v.Each[i].Key = v.keys[k.from:k.to]
		}
	}
	return true
}

// Source returns which bytes of the text that was read stand for the bytes [from, to) of v.Text, at least one and of one string.
func (v *Values) Source(from, to int) (int, int) {
	span := v.sources.span(from, to)
	return int(span.Start), int(span.End)
}

// looksLikeJSON reports whether text begins and ends as an object or an array does.
func looksLikeJSON(text []byte) bool {
	const space = " \t\r\n"
	i, j := 0, len(text)
	for i < j && isAny(text[i], space) {
		i++
	}
	for j > i && isAny(text[j-1], space) {
		j--
	}
	return j-i >= 2 && (text[i] == '{' && text[j-1] == '}' || text[i] == '[' && text[j-1] == ']')
}

func isAny(b byte, of string) bool {
	for i := range len(of) {
		if of[i] == b {
			return true
		}
	}
	return false
}

// valueReader takes the tokens.
type valueReader struct {
	of    *Values
	name  keySpan
	names []keySpan // by index in Each
	piece piece
	open  bool
}

// keySpan is where a key stands in Values.keys.
type keySpan struct{ from, to int }

func (r *valueReader) Open(bool)  {}
func (r *valueReader) Close(bool) {}

func (r *valueReader) Key(name []byte) {
	v := r.of
	r.name.from = len(v.keys)
	v.keys = append(v.keys, name...)
	r.name.to = len(v.keys)
}

func (r *valueReader) Text(text []byte) {
	v := r.of
	r.piece.locate(&v.json)
	if !r.open {
		v.Each = append(v.Each, Value{From: len(v.Text)})
		r.names = append(r.names, r.name)
		r.open = true
	}
	v.sources.add(len(v.Text), text, &r.piece)
	v.Text = append(v.Text, text...)
	v.Each[len(v.Each)-1].To = len(v.Text)
}

func (r *valueReader) TextEnd() { r.open = false }

func (r *valueReader) Scalar([]byte) {}
