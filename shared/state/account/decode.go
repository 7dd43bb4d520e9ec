package account

import (
	"bytes"
	"strconv"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// decoder reads the JSON of messages: an object with numbers, strings and true or false, and a list of such objects under "accounts". What
// it does not know it passes over.
type decoder struct {
	scanner jsonscan.Scanner
	body    []byte
	// set takes a value of the outermost object, or of the account that was begun last.
	set func(inAccount bool, key string, v value)
	// begin begins an account.
	begin func()

	key      string
	text     []byte
	accounts int // depth of the list; 0 outside of it
	entries  int // in the list
	listed   bool
	bad      bool
	raw      int64 // where a value begins that is taken as it is; -1: none
}

// value is a number, a string, or true or false.
type value struct {
	text   []byte
	scalar bool
}

func (v value) str() string {
	if v.scalar {
		return ""
	}
	return string(v.text)
}

// int is the number, the nearest one if it is too large, and 0 if it is none.
func (v value) int() int64 {
	if !v.scalar {
		return 0
	}
	n, err := strconv.ParseInt(string(v.text), 10, 64)
	if err != nil && n == 0 {
		return 0
	}
	return n
}

func (v value) bool() bool { return v.scalar && string(v.text) == "true" }

// decode reads a body, and reports whether it has that form.
func (d *decoder) decode(body []byte) bool {
	d.body, d.raw = body, -1
	d.entries = 0
	d.scanner.Reset(d, jsonscan.Limits{})
	return d.scanner.Feed(body) == nil && d.scanner.End() == nil && !d.bad
}

// Open implements jsonscan.Handler.
func (d *decoder) Open(array bool) {
	switch depth := d.scanner.Depth(); {
	case depth == 1:
		d.bad = d.bad || array
	case depth == 2 && d.key == "accounts":
		d.bad = d.bad || !array || d.listed
		d.accounts, d.listed = depth, true
	case depth == 3 && d.accounts == 2 && !array:
		if d.entries++; d.entries > mostEntries {
			d.bad = true
			return
		}
		d.begin()
	default:
		d.scanner.Skip()
	}
}

// Close implements jsonscan.Handler.
func (d *decoder) Close(bool) {
	d.endRaw()
	if d.scanner.Depth() < d.accounts {
		d.accounts = 0
	}
}

// Key implements jsonscan.Handler.
func (d *decoder) Key(name []byte) {
	d.endRaw()
	d.key = string(name)
	if d.accounts == 0 && d.key == "keys" {
		d.raw = d.scanner.Offset()
		d.scanner.Skip()
	}
}

// endRaw takes the value that was passed over.
func (d *decoder) endRaw() {
	if d.raw < 0 {
		return
	}
	raw := bytes.Trim(d.body[d.raw:d.scanner.Start()], " \t\r\n:,")
	d.raw = -1
	d.set(false, "keys", value{text: raw})
}

// Text implements jsonscan.Handler.
func (d *decoder) Text(piece []byte) { d.text = append(d.text, piece...) }

// TextEnd implements jsonscan.Handler.
func (d *decoder) TextEnd() {
	d.take(value{text: d.text})
	d.text = d.text[:0]
}

// Scalar implements jsonscan.Handler.
func (d *decoder) Scalar(raw []byte) { d.take(value{text: raw, scalar: true}) }

func (d *decoder) take(v value) {
	switch d.scanner.Depth() {
	case 1:
		d.set(false, d.key, v)
	case 3:
		d.set(true, d.key, v)
	default: // an item of the list, or a document that is no object
		d.bad = true
	}
}
