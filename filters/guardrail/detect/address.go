package detect

import "bytes"

// Lengths of the parts of an e-mail address (RFC 5321, section 4.5.3.1).
const (
	mostLocal  = 64
	mostDomain = 255
	// mostUserinfo bounds a password in a URL, and the user before it.
	mostUserinfo = 200
)

// at verifies what stands around the '@' at i.
func (s *Scanner) at(i int) {
	t := s.text
	from := s.localFrom(i)
	user := s.userinfo(from)
	if user >= 0 {
		s.password(user, i)
		return
	}
	for from < i && !isWordByte(t[from]) && t[from] != '_' {
		from++
	}
	if from == i || !s.d.kinds.Has(Email) {
		return
	}
	p := i + 1
	for p < len(t) && p < i+1+mostDomain && isDomain(t[p]) {
		p++
	}
	if s.ends(p) && p < i+1+mostDomain {
		s.open(from)
		return
	}
	end := domainEnd(t[i+1 : p])
	if end == 0 || isScale(t[i+1:p]) || t[i-1] == '.' || string(t[from:i]) == "git" && i+1+end < len(t) && t[i+1+end] == ':' {
		return // of a repository, as ssh has them
	}
	s.add(Email, from, i+1+end)
}

// isScale reports whether what stands behind an '@' is that of a picture: icon@2x.webp.
func isScale(text []byte) bool {
	return len(text) > 3 && isDigit(text[0]) && text[1] == 'x' && text[2] == '.'
}

// localFrom returns where the local part of an address begins that ends before i.
func (s *Scanner) localFrom(i int) int {
	from := i
	for from > 0 && from > i-mostLocal && isLocal(s.text[from-1]) {
		from--
	}
	for from < i && s.text[from]&0xc0 == 0x80 {
		from++ // what follows the first byte of a letter that is cut
	}
	if from < i && isEscape(s.text, from+1) {
		from++
	}
	return from
}

// isLocal reports whether a byte may be of a local part. Of letters that are not ASCII those of Latin, Greek and Cyrillic
// are.
func isLocal(b byte) bool {
	switch b {
	case '.', '_', '%', '+', '-', '\'', '&':
		return true
	}
	return isAlnum(b) || isForeign(b)
}

// isDomain reports whether a byte may be of a domain.
func isDomain(b byte) bool { return b == '.' || b == '-' || isAlnum(b) || isForeign(b) }

// isForeign reports whether a byte is of a character of two bytes, other than a sign of Latin-1.
func isForeign(b byte) bool { return 0xc3 <= b && b <= 0xd4 || b&0xc0 == 0x80 }

// domainEnd returns how long the domain is with which text begins, 0 if there is none: labels between dots, the last of letters, and
// not a file's.
func domainEnd(text []byte) int {
	end, from, dots := 0, 0, 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] != '.' {
			continue
		}
		label := text[from:i]
		if len(label) == 0 || label[0] == '-' {
			break
		}
		if dots > 0 {
			if n := topLevel(label); n > 0 {
				if end = from + n; n < len(label) {
					break
				}
			}
		}
		dots++
		from = i + 1
	}
	return end
}

// topLevel returns how much of a label can be a top-level domain, 0 if none.
func topLevel(label []byte) int {
	if bytes.HasPrefix(label, []byte("xn--")) {
		return len(label)
	}
	n := 0
	for n < len(label) && (isLetter(label[n]) || isForeign(label[n])) {
		n++
	}
	if n < 2 || n > 24 || n < len(label) && label[n] != '-' {
		return 0
	}
	for _, name := range notTopLevel {
		if isFolded(label[:n], name) {
			return 0
		}
	}
	return n
}

// isFolded reports whether a text is a word, but for upper and lower case.
func isFolded(text []byte, word string) bool {
	if len(text) != len(word) {
		return false
	}
	for i, b := range text {
		if lower(b) != word[i] {
			return false
		}
	}
	return true
}

// notTopLevel end names of files and units that have an '@' in them, and of machines that are nobody's address.
var notTopLevel = []string{
	"png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "mjs", "ts", "jsx", "tsx", "json", "html", "xml", "yaml", "yml", "txt", "log",
	"service", "socket", "timer", "target", "mount", "slice", "scope", "local", "localhost", "lan",
}

// userinfo returns where the user of a URL begins if the text before i is of one, -1 if not.
func (s *Scanner) userinfo(i int) int {
	t := s.text
	for k := i; k > 1 && k > i-mostUserinfo; k-- {
		switch c := t[k-1]; {
		case c == '/':
			if k > 2 && t[k-2] == '/' && t[k-3] == ':' {
				return k
			}
			return -1
		case c <= ' ' || c == '@' || c == '"' || c == '<' || c == '>' || c == '?':
			return -1
		}
	}
	return -1
}

// password finds the password of a URL whose userinfo is [from, to).
func (s *Scanner) password(from, to int) {
	if i := bytes.IndexByte(s.text[from:to], ':'); i >= 0 && from+i+1 < to && !isPlaceholder(s.text[from+i+1:to]) {
		s.add(Password, from+i+1, to)
	}
}

// isPlaceholder reports whether something only stands for a secret: $NAME, ${NAME}, {{ name }}, <name>, %s, ***, xxx.
func isPlaceholder(text []byte) bool {
	switch text[0] {
	case '$', '{', '<', '%', '*', '[', '(', '\\':
		return true
	}
	return same(text) || isFolded(text, "password") || isFolded(text, "pass") || isFolded(text, "redacted")
}

// ipv4 verifies an address whose first digit is at i. It returns where it ends, 0 if it is none or undecided.
func (s *Scanner) ipv4(i int) (end int) {
	t := s.text
	if !s.d.kinds.Has(IP) {
		return 0
	}
	if s.before(i) == 0xa7 { // §
		return 0
	}
	var octets [4]int
	p := i
	for k := range octets {
		if k > 0 {
			if p < len(t) && t[p] != '.' {
				return 0
			}
			p++
		}
		n := 0
		for p < len(t) && n < 4 && isDigit(t[p]) {
			octets[k] = octets[k]*10 + int(t[p]-'0')
			n++
			p++
		}
		if p >= len(t) && !s.last {
			s.open(i)
			return 0
		}
		if n == 0 || n > 1 && t[p-n] == '0' || octets[k] > 255 {
			return 0
		}
	}
	if !s.endsNumber(p, i) || isNoHost(octets) || (mayBeVersion(octets) || s.near(versionWords, i, p)) && !s.isAddress(i, p) {
		return 0
	}
	s.add(IP, i, p)
	return p
}

// mayBeVersion reports whether four numbers are as small as those of versions and of sections are.
func mayBeVersion(o [4]int) bool {
	const most = 20
	return o[0] != 10 && o[0] <= most && o[1] <= most && o[2] <= most && o[3] <= most
}

// isAddress reports whether what stands around four numbers says that they are an address.
func (s *Scanner) isAddress(from, to int) bool {
	t := s.text
	return to < len(t) && t[to] == ':' || from > 1 && (string(t[from-2:from]) == "//" || t[from-1] == '@') || s.near(addressWords, from, to)
}

// isNoHost reports whether an address is nobody's: of this machine, of a network, or a mask.
func isNoHost(o [4]int) bool {
	return o[0] == 127 || o[0] == 0 || o[0] == 255 || o[3] == 0
}

// colon verifies the IPv6 address of which the ':' at i is the first.
func (s *Scanner) colon(i int) {
	t := s.text
	if !s.d.kinds.Has(IP) {
		return
	}
	next := i + 1
	for next < len(t) && next <= i+4 && isHex(t[next]) {
		next++
	}
	if next < len(t) && t[next] != ':' {
		return // there is a second one in all
	}
	from := i
	for from > 0 && from > i-5 && isHex(t[from-1]) {
		from--
	}
	if i-from > 4 || isAttached(t, from) || s.goesOnFrom(from) {
		return // nothing, or not the first
	}
	groups, long, digits, gap := 0, 0, 0, -1
	p := from
	for {
		n := 0
		for p < len(t) && n < 5 && isHex(t[p]) {
			if isDigit(t[p]) {
				digits++
			}
			n++
			p++
		}
		if n > 4 {
			return
		}
		if n > 0 {
			groups++
		}
		if n > 2 {
			long++
		}
		if groups > 8 {
			return
		}
		if p >= len(t) {
			if !s.last {
				s.open(from)
				return
			}
			break
		}
		if t[p] != ':' {
			break
		}
		if p+1 < len(t) && t[p+1] == ':' {
			if gap >= 0 {
				return
			}
			gap = groups
			if p += 2; p < len(t) && isHex(t[p]) {
				continue
			}
			if s.ends(p) {
				s.open(from)
				return
			}
			break
		}
		if s.ends(p + 1) {
			s.open(from)
			return
		}
		if p+1 >= len(t) || !isHex(t[p+1]) {
			break
		}
		p++
	}
	if p < len(t) && (isAlnum(t[p]) || t[p] == '_' || t[p] == '.' && p+1 < len(t) && isAlnum(t[p+1])) {
		return
	}
	if p < len(t) && t[p] == '.' && s.ends(p+1) {
		s.open(from)
		return
	}
	// Eight groups of two are a hardware address or a fingerprint; a short one with a gap may be a name in code.
	switch {
	case gap < 0 && (groups != 8 || long == 0):
	case gap >= 0 && (groups < 2 || groups > 7 || long == 0 || digits == 0 || gap == 0):
	default:
		s.add(IP, from, p)
	}
}

// goesOnFrom reports whether what begins at an index goes on from something before it. The colon of a label does not count, as in
// ip:2001:db8::1: other letters than those of a number stand before it, or none.
func (s *Scanner) goesOnFrom(i int) bool {
	t := s.text
	switch s.before(i) {
	case '.', '_':
		return true
	case ':':
		k := i - 1
		for k > 0 && k > i-6 && isHex(t[k-1]) {
			k--
		}
		return k < i-1 && !isAttached(t, k) || k > 0 && t[k-1] == ':'
	}
	return false
}

func isHex(b byte) bool { return isDigit(b) || lower(b)-'a' < 6 }
