package formscan

import "bytes"

// Boundary returns the boundary of a Content-Type header, if it is that of a form. ok is false for a form without a usable
// boundary: absent, twice, too long, or of other characters than RFC 2046 allows.
func Boundary(contentType string) (boundary string, form, ok bool) {
	mediaType, rest, _ := bytes.Cut([]byte(contentType), []byte(";"))
	if !bytes.EqualFold(bytes.TrimSpace(mediaType), []byte("multipart/form-data")) {
		return "", false, false
	}
	for len(bytes.TrimSpace(rest)) > 0 {
		name, value, after, valid := parameter(rest)
		if !valid || bytes.IndexByte(name, '*') >= 0 { // boundary*, too, is a boundary for some
			return "", true, false
		}
		if bytes.EqualFold(name, []byte("boundary")) {
			if boundary != "" || !isBoundary(value) {
				return "", true, false
			}
			boundary = string(value)
		}
		rest = after
	}
	return boundary, true, boundary != ""
}

// isBoundary reports whether b is a boundary of RFC 2046, section 5.1.1.
func isBoundary(b []byte) bool {
	if len(b) == 0 || len(b) > MaxBoundary || b[len(b)-1] == ' ' {
		return false
	}
	for _, c := range b {
		if !isAlphanumeric(c) && bytes.IndexByte([]byte("'()+_,-./:=? "), c) < 0 {
			return false
		}
	}
	return true
}

// disposition reads the headers of a part, each line with its CR LF: the name of the part and whether it is a file.
func disposition(headers []byte) (name []byte, file bool, code Code) {
	found := false
	for len(headers) > 0 {
		line, rest, _ := bytes.Cut(headers, []byte("\r\n"))
		headers = rest
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !isToken(key) || !isText(value) {
			return nil, false, Header // also a folded line, which begins with a space
		}
		switch {
		case bytes.EqualFold(key, []byte("content-disposition")):
			if found {
				return nil, false, Disposition
			}
			found = true
			if name, file, ok = formData(value); !ok {
				return nil, false, Disposition
			}
		case bytes.EqualFold(key, []byte("content-transfer-encoding")) && !isPlainEncoding(bytes.TrimSpace(value)):
			return nil, false, Header // deprecated by RFC 7578; some servers would decode it
		}
	}
	if !found {
		return nil, false, Disposition
	}
	return name, file, 0
}

func isPlainEncoding(b []byte) bool {
	return bytes.EqualFold(b, []byte("binary")) || bytes.EqualFold(b, []byte("8bit")) || bytes.EqualFold(b, []byte("7bit"))
}

// formData reads `form-data; name="…"; filename="…"`.
func formData(value []byte) (name []byte, file, ok bool) {
	kind, rest, _ := bytes.Cut(value, []byte(";"))
	if !bytes.EqualFold(bytes.TrimSpace(kind), []byte("form-data")) {
		return nil, false, false
	}
	named, extended := false, false
	for len(bytes.TrimSpace(rest)) > 0 {
		key, v, after, valid := parameter(rest)
		rest = after
		switch {
		case !valid:
			return nil, false, false
		case bytes.EqualFold(key, []byte("name")):
			if named || !isPlainName(v) {
				return nil, false, false
			}
			name, named = v, true
		case bytes.EqualFold(key, []byte("filename")):
			if file {
				return nil, false, false
			}
			file = true
		case bytes.EqualFold(key, []byte("filename*")):
			extended = true
		case bytes.IndexByte(key, '*') >= 0:
			return nil, false, false // another name, or a piece of one, for some
		}
	}
	// RFC 7578 forbids filename*. By itself it makes a file for some parsers, and for others a text.
	return name, file, named && (file || !extended)
}

// isPlainName reports whether every parser reads a part's name as it stands: some take a backslash for an escape and others, as
// browsers write it, for itself, and aiohttp drops slashes from its front.
func isPlainName(b []byte) bool {
	return bytes.IndexByte(b, '\\') < 0 && !bytes.HasPrefix(b, []byte("/"))
}

// parameter reads `name=value` from the front of a list whose items are separated by ";". The value is a token or a quoted
// string without its quotes, its escapes left in.
func parameter(list []byte) (name, value, rest []byte, ok bool) {
	name, value, ok = bytes.Cut(list, []byte("="))
	if name = bytes.TrimSpace(name); !ok || !isToken(name) {
		return nil, nil, nil, false
	}
	if len(value) > 0 && value[0] == '"' {
		n := quoted(value[1:])
		if n < 0 {
			return nil, nil, nil, false
		}
		value, rest = value[1:n+1], value[n+2:]
		if rest = bytes.TrimLeft(rest, " \t"); len(rest) > 0 && rest[0] != ';' {
			return nil, nil, nil, false
		}
		return name, value, bytes.TrimPrefix(rest, []byte(";")), true
	}
	value, rest, _ = bytes.Cut(value, []byte(";"))
	value = bytes.TrimRight(value, " \t")
	return name, value, rest, isToken(value)
}

// quoted returns the length of the quoted string with which b begins, after its opening quote; -1 if it has no end, or one that
// not all parsers see. A backslash before a quote escapes it. Two of them are one that is escaped, after which the quote is
// the end; but Python's parser counts quotes and `\"` only, and sees none. And in a string with escapes some parsers end the
// parameter at a semicolon.
func quoted(b []byte) int {
	escapes, backslashes := false, 0
	for i, c := range b {
		switch {
		case c == '\\':
			backslashes++
			continue
		case c == '"' && backslashes == 0:
			if escapes && bytes.IndexByte(b[:i], ';') >= 0 {
				return -1
			}
			return i
		case c == '"' && backslashes%2 == 0:
			return -1
		case c == '"':
			escapes = true
		}
		backslashes = 0
	}
	return -1
}

// isToken reports whether b is a token of RFC 9110, section 5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		if !isAlphanumeric(c) && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) < 0 {
			return false
		}
	}
	return len(b) > 0
}

// isText reports whether b has no control characters but tabs.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
