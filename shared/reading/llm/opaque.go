package llm

import "bytes"

// opaque is what a string is that stands where an image, a file or a signature does. By its member's name alone any text would be left
// unread, so the string has to look like that too.
type opaque uint8

const (
	undecidedYet opaque = iota // it takes maxWord bytes to tell
	encoded                    // base64
	address                    // a URL
	dataHead                   // a data URL up to its comma; then it is encoded
	spoken                     // none of these: text
)

// opaqueText takes a piece of such a string.
func (r *requestReader) opaqueText(piece []byte) {
	p := &r.prompt
	if p.opaque == undecidedYet {
		if p.wordLen+len(piece) <= maxWord {
			p.wordLen += copy(p.word[p.wordLen:], piece)
			return
		}
		var head [maxWord]byte
		n := copy(head[:], p.word[:p.wordLen])
		copy(head[n:], piece)
		r.decideOpaque(head[:], r.piece.from)
	}
	if p.opaque == spoken {
		r.addText(piece)
		return
	}
	r.facts.Unread = r.facts.Unread || !p.opaque.takes(piece)
	r.addMedia(piece)
}

// decideOpaque decides by the beginning of such a string what it is, and reads what of it was kept, which ends in the body at until.
func (r *requestReader) decideOpaque(head []byte, until int64) {
	p := &r.prompt
	if p.opaque = opaqueOf(head); p.opaque == spoken {
		p.key = keyText
		r.wordAsText(until)
		return
	}
	word := p.word[:p.wordLen]
	p.opaque.takes(word)
	r.addMedia(word)
	p.wordLen = 0
}

// opaqueOf returns what begins so.
func opaqueOf(head []byte) opaque {
	is := encoded
	switch i := bytes.Index(head, []byte("://")); {
	case bytes.HasPrefix(head, []byte("data:")):
		is = dataHead
	case i > 0 && bytes.IndexFunc(head[:i], func(r rune) bool { return r|0x20 < 'a' || r|0x20 > 'z' }) < 0:
		is = address
	}
	begins := is
	if !begins.takes(head) || is == encoded && bytes.ContainsAny(head, "\r\n%") {
		return spoken
	}
	return is
}

// takes reports whether what follows may be of that.
func (o *opaque) takes(text []byte) bool {
	if *o == dataHead {
		head := text
		if i := bytes.IndexByte(text, ','); i >= 0 {
			head, text = text[:i], text[i+1:]
			*o = encoded
		} else {
			text = nil
		}
		if !all(head, ofHead) {
			return false
		}
	}
	if *o == address {
		return all(text, ofAddress)
	}
	return all(text, ofBase64)
}

const (
	ofBase64  = 1 << iota // also what stands in for it in URLs, and ends lines
	ofHead                // of a data URL
	ofAddress             // of a URL
)

// opaqueBytes says of what a byte may be.
var opaqueBytes = func() (sets [256]uint8) {
	for c := '!'; c <= '~'; c++ {
		sets[c] = ofAddress
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			sets[c] |= ofBase64 | ofHead
		}
	}
	for _, c := range []byte("+/=-_") {
		sets[c] |= ofBase64 | ofHead
	}
	for _, c := range []byte("%\r\n") {
		sets[c] |= ofBase64
	}
	for _, c := range []byte(":;.") {
		sets[c] |= ofHead
	}
	for _, c := range []byte("\"<>") {
		sets[c] = 0
	}
	return sets
}()

func all(text []byte, set uint8) bool {
	for _, c := range text {
		if opaqueBytes[c]&set == 0 {
			return false
		}
	}
	return true
}
