package llm

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// replacement stands in a text for what is no character.
var replacement = []byte("\uFFFD")

// appendEdited appends an edited text as a JSON string. Of the escapes of lone surrogates that the string had before, those
// that the edit has left stay as they were: the other half may be in the next event.
func appendEdited(dst, value, before []byte) []byte {
	n := len(dst)
	dst = AppendString(dst, string(value))
	if !bytes.Contains(before, []byte(`\ud`)) && !bytes.Contains(before, []byte(`\uD`)) {
		return dst
	}
	parts := bytes.Split(bytes.Clone(dst[n:]), replacement)
	replaced := notCharacters(before)
	if len(parts) != len(replaced)+1 {
		return dst // the edit has taken some, and nothing says which
	}
	dst = append(dst[:n], parts[0]...)
	for i, was := range replaced {
		dst = append(append(dst, was...), parts[i+1]...)
	}
	return dst
}

// notCharacters returns what in a JSON string a text has U+FFFD for: the escapes of lone surrogates as they stand, all else as
// that character.
func notCharacters(raw []byte) (all [][]byte) {
	for len(raw) > 0 {
		var n int
		switch r, is := escaped(raw); {
		case is && utf16.IsSurrogate(r):
			low, _ := escaped(raw[6:])
			if n = 6; utf16.DecodeRune(r, low) != utf8.RuneError {
				n = 12
			} else {
				all = append(all, raw[:6])
			}
		case is:
			if n = 6; r == utf8.RuneError {
				all = append(all, replacement)
			}
		case raw[0] == '\\':
			n = min(2, len(raw))
		default:
			if r, n = utf8.DecodeRune(raw); r == utf8.RuneError {
				all = append(all, replacement)
			}
		}
		raw = raw[n:]
	}
	return all
}

// escaped returns the UTF-16 code unit of an escape at the beginning of raw, if one is there.
func escaped(raw []byte) (r rune, is bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	return rune(v), err == nil
}
