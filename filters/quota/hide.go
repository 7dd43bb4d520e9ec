package quota

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// hide removes keys before the request reaches the replica: the caller's keys anywhere
// in the headers or the query, and other callers' keys where clients send keys.
func (p *places) hide(b *book, x *filter.Exchange, keys []string) {
	for n := 0; ; n++ {
		name, value, ok := x.RequestHeaders.Line(n)
		if !ok {
			break
		}
		switch {
		case strings.HasPrefix(name, ":"): // not a header, and the path has its own way below
			continue
		case slices.Contains(p.hides, name):
			ok = mentionsAny(value, keys) || b.mentionsKey(value) // which hashes
		case belongsToMessage(name):
			continue
		default:
			ok = mentionsAny(value, keys)
		}
		if ok {
			x.RemoveRequestHeader(name)
		}
	}
	if path, ok := withoutKeys(x.Path, keys); ok {
		x.Path = path
		x.SetRequestHeader(":path", path)
	}
}

// belongsToMessage reports whether a header is part of the message itself: nobody could read
// or route the request without it. The list is fixed, since a client chooses what else it sends.
func belongsToMessage(name string) bool {
	switch name {
	case "content-type", "content-length", "content-encoding", "transfer-encoding", "host":
		return true
	}
	return false
}

// withoutKeys removes the parameters that contain a key from the query of a path. ok
// reports whether there was one.
func withoutKeys(path string, keys []string) (plain string, ok bool) {
	before, query, _ := strings.Cut(path, "?")
	if !mentionsAny(query, keys) {
		return path, false
	}
	params := slices.DeleteFunc(strings.Split(query, "&"), func(param string) bool { return mentionsAny(param, keys) })
	if len(params) == 0 {
		return before, true
	}
	return before + "?" + strings.Join(params, "&"), true
}

// mentionsAny reports whether one of the keys stands in a text. No form of a key is shorter
// than the key, so that most headers need no look.
func mentionsAny(text string, keys []string) bool {
	for _, key := range keys {
		if len(text) >= len(key) && (mentions(text, key) || inBasic(text, key)) {
			return true
		}
	}
	return false
}

// inBasic reports whether a key is the user or the password of Basic credentials (RFC
// 7617), alone or in a list.
func inBasic(text, key string) bool {
	const scheme = "basic "
	if strings.IndexByte(text, ' ') < 0 {
		return false
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if len(part) < len(scheme) || !strings.EqualFold(part[:len(scheme)], scheme) {
			continue
		}
		encoded := strings.TrimRight(strings.TrimSpace(part[len(scheme):]), "=")
		for _, encoding := range [...]*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if plain, err := encoding.DecodeString(encoded); err == nil && mentions(string(plain), key) {
				return true
			}
		}
	}
	return false
}

// longKey is the length from which a key is also found within a longer word. A shorter
// key may be part of a word by coincidence.
const longKey = 8

// mentions reports whether a text contains a key, unescaped or with percent-escapes. A
// short key must be a word of its own.
func mentions(text, key string) bool {
	for rest := text; ; {
		at := strings.Index(rest, key)
		if at < 0 {
			break
		}
		start := len(text) - len(rest) + at
		if len(key) >= longKey || isWord(text, start, start+len(key)) {
			return true
		}
		rest = text[start+1:]
	}
	return strings.IndexByte(text, '%') >= 0 && mentionsEscaped(text, key)
}

func isWord(text string, start, end int) bool {
	return (start == 0 || !inWord(text[start-1])) && (end == len(text) || !inWord(text[end]))
}

func inWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// mentionsEscaped is mentions for a text with escapes.
func mentionsEscaped(text, key string) bool {
	before := byte(' ')
	for at := 0; at < len(text); {
		c, n := unescape(text[at:])
		if end, ok := cutEscaped(text[at:], key); ok {
			after := byte(' ')
			if rest := text[at+end:]; rest != "" {
				after, _ = unescape(rest)
			}
			if len(key) >= longKey || !inWord(before) && !inWord(after) {
				return true
			}
		}
		before, at = c, at+n
	}
	return false
}

// cutEscaped reports whether a text begins with a key, and where the key ends.
func cutEscaped(text, key string) (end int, ok bool) {
	for i := range len(key) {
		if end == len(text) {
			return 0, false
		}
		c, n := unescape(text[end:])
		if c != key[i] {
			return 0, false
		}
		end += n
	}
	return end, true
}

// unescape returns the first byte of a text, and how many bytes its encoding takes.
func unescape(text string) (c byte, n int) {
	if text[0] != '%' || len(text) < 3 {
		return text[0], 1
	}
	v, err := strconv.ParseUint(text[1:3], 16, 8)
	if err != nil {
		return text[0], 1
	}
	return byte(v), 3
}

// mentionsKey reports whether a value contains any caller's key: bare, behind a
// scheme, or in a list.
func (b *book) mentionsKey(value string) bool {
	if b.isKey(value) {
		return true
	}
	for part := range strings.SplitSeq(value, ",") {
		if b.isKey(part) {
			return true
		}
		for word := range strings.FieldsSeq(part) {
			if b.isKey(word) {
				return true
			}
		}
	}
	return false
}

// isKey reports whether s is a key, alone or as a bearer token.
func (b *book) isKey(s string) bool {
	s = strings.TrimSpace(s)
	k := b.lookup(s)
	if token, isToken := cutBearer(s); isToken && k == nil {
		k = b.lookup(token)
	}
	return k != nil
}
