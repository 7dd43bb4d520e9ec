// Package jsonscan is a strict, resumable JSON scanner that allocates nothing.
//
// A body arrives at a proxy in chunks that split it anywhere: inside a string, an escape, a number or a character.
// A [Scanner] takes these chunks as they arrive and reports the document's tokens to a [Handler], without ever holding the
// document: string values pass through in pieces that alias the chunk, and only a member name or a number that is split
// between two chunks is copied, into a fixed buffer of the scanner.
//
// The grammar is exactly that of RFC 8259. Two things that the RFC leaves to the parser are refused, because two parsers
// that read them differently are how a request passes a check as one thing and is served as another: ill-formed UTF-8
// and escapes of lone surrogates. A byte order mark is refused too (RFC 8259, section 8.1). Repeated member names are
// reported as they stand; what they mean is the handler's decision.
//
// All that protects what is behind the proxy from requests. An answer is not the proxy's to refuse, and a reader of some
// members wants to find them whatever stands before them. So a lenient scanner ([Scanner.ResetLenient]) follows strings and
// brackets only through what is skipped. What it reports it reads as clients may: U+FFFD stands for what is no character, of
// a name that is too long only its beginning is reported, and what is no value in JSON (NaN, a number that is too long,
// containers too deep to tell apart) not at all. Only a line break in a string that is reported makes it fail, and structure
// that is wrong. Of a document that a strict scanner accepts it reports the same.
//
// The tokens, the error and its offset depend on the document and the limits alone, never on how it was cut into chunks.
package jsonscan

import (
	"fmt"
	"math"
)

// Handler receives the tokens of one JSON document in order. Slices alias the fed chunk or the scanner's scratch: they
// are valid during the call only and must not be changed.
type Handler interface {
	// Open reports '{', or '[' if array is true.
	Open(array bool)
	// Close reports '}', or ']' if array is true.
	Close(array bool)
	// Key reports a whole member name, unescaped. The member's value follows.
	Key(name []byte)
	// Text reports the next piece of a string value, unescaped: none for an empty string, else one or more, none of
	// them empty and each of them well-formed UTF-8 by itself.
	Text(piece []byte)
	// TextEnd reports that the string value is complete.
	TextEnd()
	// Scalar reports a number, true, false or null: whole, as written.
	Scalar(raw []byte)
}

// Sizes of the scanner's fixed buffers. Larger values in [Limits] are lowered to these.
const (
	MaxDepth       = 256  // open containers
	MaxKeyBytes    = 1024 // unescaped bytes of a member name
	MaxScalarBytes = 1024 // bytes of a number
)

// Limits bound what a document may contain. A field that is 0 or negative takes its value from [DefaultLimits].
type Limits struct {
	Depth       int // open containers at one time, at most MaxDepth
	KeyBytes    int // unescaped bytes of one member name, at most MaxKeyBytes
	StringBytes int // unescaped bytes of one string value
	ScalarBytes int // bytes of one number, at most MaxScalarBytes
	Members     int // members of one object
	Items       int // items of one array
}

// DefaultLimits let every sensible request of a model API pass. JSON schemas of tools nest deepest, base64 images are
// the longest strings, embedding inputs of token ids the longest arrays.
var DefaultLimits = Limits{
	Depth:       128,
	KeyBytes:    1024,
	StringBytes: 256 << 20,
	ScalarBytes: 256,
	Members:     1 << 16,
	Items:       1 << 20,
}

// unlimited has the sizes of the fixed buffers, beyond which a lenient scanner does not report.
var unlimited = Limits{
	Depth: MaxDepth, KeyBytes: MaxKeyBytes, StringBytes: math.MaxInt32, ScalarBytes: MaxScalarBytes, Members: math.MaxInt32, Items: math.MaxInt32,
}

// capped fills in the defaults and lowers what the fixed buffers cannot hold.
func (l Limits) capped() Limits {
	or := func(n, byDefault, most int) int {
		if n <= 0 {
			n = byDefault
		}
		return min(n, most)
	}
	const unbounded = math.MaxInt32
	return Limits{
		Depth:       or(l.Depth, DefaultLimits.Depth, MaxDepth),
		KeyBytes:    or(l.KeyBytes, DefaultLimits.KeyBytes, MaxKeyBytes),
		StringBytes: or(l.StringBytes, DefaultLimits.StringBytes, unbounded),
		ScalarBytes: or(l.ScalarBytes, DefaultLimits.ScalarBytes, MaxScalarBytes),
		Members:     or(l.Members, DefaultLimits.Members, unbounded),
		Items:       or(l.Items, DefaultLimits.Items, unbounded),
	}
}

// Code says what is wrong with a document.
type Code uint8

// The reasons for which a document is refused.
const (
	Syntax         Code = iota + 1 // a byte that the grammar does not allow here
	UTF8                           // an ill-formed UTF-8 sequence in a string
	Surrogate                      // an escape of half a surrogate pair
	Depth                          // more open containers than Limits.Depth
	KeyTooLong                     // a member name longer than Limits.KeyBytes
	StringTooLong                  // a string value longer than Limits.StringBytes
	ScalarTooLong                  // a number longer than Limits.ScalarBytes
	TooManyMembers                 // more members in one object than Limits.Members
	TooManyItems                   // more items in one array than Limits.Items
	Incomplete                     // the input ended within the document, or was empty
	Trailing                       // something other than white space follows the document
)

var reasons = [...]string{
	Syntax:         "unexpected character",
	UTF8:           "ill-formed UTF-8",
	Surrogate:      "escape of a lone surrogate",
	Depth:          "too many nested containers",
	KeyTooLong:     "member name too long",
	StringTooLong:  "string too long",
	ScalarTooLong:  "number too long",
	TooManyMembers: "too many members in one object",
	TooManyItems:   "too many items in one array",
	Incomplete:     "unexpected end",
	Trailing:       "unexpected character after the document",
}

// String returns the reason in words.
func (c Code) String() string {
	if int(c) < len(reasons) && reasons[c] != "" {
		return reasons[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error says why a document was refused, and where.
type Error struct {
	Code Code
	// Offset counts bytes from the start of the document, to the byte at which the fault shows: the unexpected
	// character, the first byte of an ill-formed sequence, the backslash of an escape, the first byte of what is too
	// long or too deep, the comma before what is too many; for Incomplete the document's length.
	Offset int64
}

// Error is one readable sentence. It never quotes the document, which may hold what must not be logged.
func (e *Error) Error() string {
	return fmt.Sprintf("invalid JSON: %s at byte %d", e.Code, e.Offset)
}
