package detect

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// meaning is what a literal is the beginning of.
type meaning uint8

const (
	meansSecret meaning = iota
	meansPhrase
	meansDenied
	meansPattern // it must stand in a match
)

// literal is a text that is looked for.
type literal struct {
	text   string // in lower case, if that does not matter
	fold   bool   // upper and lower case are the same
	means  meaning
	rule   int    // of secrets, phrases or patterns
	anchor int    // index of the byte by which it is found
	next   uint16 // of all: another one with the same anchor
}

// literals find many literals in one pass: each one has an anchor, a byte that is rare in most texts, and is compared only where
// that byte stands behind the one that stands before it in the literal.
type literals struct {
	all    []literal       // all[0] is none
	heads  [buckets]uint16 // of all, by the hash of anchor and the byte before
	begins [256]uint16     // literals that begin with a byte or its other case, first of them by next in begun
	begun  []uint16        // by index in all: the next one that begins with the same byte
	most   int             // bytes of the longest
}

const buckets = 1024

// maxLiterals is what fits into the index.
const maxLiterals = 1 << 15

func bucket(before, anchor byte) uint { return (uint(before)*31 + uint(anchor)*67) % buckets }

// add adds a literal. One that is a single byte is found by that byte alone.
func (w *literals) add(l literal) {
	if len(w.all) == 0 {
		w.all = append(w.all, literal{})
	}
	if len(l.text) == 0 || len(w.all) >= maxLiterals {
		return
	}
	w.all = append(w.all, l)
	w.most = max(w.most, len(l.text))
}

// index makes the literals ready, and marks their anchors in a table.
func (w *literals) index(of *table) {
	w.begun = make([]uint16, len(w.all))
	for n := 1; n < len(w.all); n++ {
		l := &w.all[n]
		l.anchor = anchorOf(l.text)
		w.begun[n] = w.begins[l.text[0]]
		w.begins[l.text[0]] = uint16(n)
		w.mark(uint16(n), of)
	}
}

// mark enters a literal for the ways in which its anchor can be written, and what stands beside it.
func (w *literals) mark(n uint16, of *table) {
	l := &w.all[n]
	bit := isLiteral << (n % 2)
	beside := func(i int) func(byte) bool {
		if i < 0 || i >= len(l.text) {
			return anyByte
		}
		return func(b byte) bool { return bytes.IndexByte(l.cases(i), b) >= 0 }
	}
	for _, b := range l.cases(l.anchor) {
		of.mark(beside(l.anchor-1), b, beside(l.anchor+1), bit)
	}
	// All ways share one bucket: it is that of the lower case.
	h := w.bucketOf(l)
	l.next, w.heads[h] = w.heads[h], n
}

func (w *literals) bucketOf(l *literal) uint {
	if len(l.text) == 1 {
		return bucket(0, lower(l.text[0]))
	}
	return bucket(lower(l.text[l.anchor-1]), lower(l.text[l.anchor]))
}

// cases are the ways in which a byte of the literal can be written.
func (l *literal) cases(i int) []byte {
	b := l.text[i]
	if l.fold && 'a' <= b && b <= 'z' {
		return []byte{b, b - 'a' + 'A'}
	}
	return []byte{b}
}

// first returns the first of the literals whose anchor may be at i, 0 if there is none.
func (w *literals) first(text []byte, i int) uint16 {
	if i == 0 {
		return 0 // a literal of one byte is not looked for by first
	}
	return w.heads[bucket(lower(text[i-1]), lower(text[i]))]
}

// at reports whether the literal stands at an index.
func (l *literal) at(text []byte, from int) bool {
	if from < 0 || len(text)-from < len(l.text) {
		return false
	}
	return l.is(text[from : from+len(l.text)])
}

// is reports whether a text is the literal's beginning, as long as it is.
func (l *literal) is(text []byte) bool {
	if !l.fold {
		return string(text) == l.text[:len(text)]
	}
	return isFolded(text, l.text[:len(text)])
}

// lower returns the lower case of an ASCII letter.
func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// anchorOf returns the index of the byte of a literal that is, with those beside it, the rarest; not the first one if it has others.
func anchorOf(text string) int {
	best, of := min(1, len(text)-1), -1
	for i := best; i < len(text); i++ {
		r := 2 * rarity(text[i])
		if i > 0 {
			r += rarity(text[i-1])
		}
		if i+1 < len(text) {
			r += rarity(text[i+1])
		}
		if r > of {
			best, of = i, r
		}
	}
	return best
}

// common are bytes in the order of how often they stand in prose, code and logs, the most common first.
const common = "0123456789 etaoinsrhldcumfpgwyb,./-_\"=:;()'v{}[]<>kxjqz"

// rarity says how rare a byte is.
func rarity(b byte) int {
	if b == '\n' || b == '\t' {
		return 0
	}
	if i := strings.IndexByte(common, b); i >= 0 {
		return i
	}
	return len(common)
}

// begun notes where a literal begins that the text's end cuts.
func (s *Scanner) begun() {
	w := &s.d.words
	t := s.text
	for from := max(0, len(t)-w.most+1); from < len(t) && from < s.hold; from++ {
		for n := w.begins[lower(t[from])]; n != 0; n = w.begun[n] {
			if s.cuts(&w.all[n], from) {
				s.open(from)
				return
			}
		}
		if b := t[from]; b != lower(b) {
			for n := w.begins[b]; n != 0; n = w.begun[n] {
				if s.cuts(&w.all[n], from) {
					s.open(from)
					return
				}
			}
		}
	}
}

// cuts reports whether the text's end cuts a literal that begins at an index.
func (s *Scanner) cuts(l *literal, from int) bool {
	rest := s.text[from:]
	if len(rest) >= len(l.text) || !l.is(rest) {
		return false
	}
	switch {
	case l.means == meansSecret:
		return !isAttached(s.text, from)
	case l.means == meansDenied && !isWordByte(l.text[0]):
		return true
	}
	return !isWord(s.text, from)
}

// isAttached reports whether a letter or digit of ASCII stands before an index. What is made of ASCII begins behind any other
// character: Chinese, Japanese and Thai have no spaces.
func isAttached(text []byte, i int) bool { return i > 0 && isAlnum(text[i-1]) && !isEscape(text, i) }

// isEscape reports whether a line feed, a carriage return or a tab stands before an index, as JSON and source code write them.
func isEscape(text []byte, i int) bool {
	return i > 1 && text[i-2] == '\\' && (text[i-1] == 'n' || text[i-1] == 'r' || text[i-1] == 't')
}

// isWord reports whether a letter or digit stands before an index.
func isWord(text []byte, i int) bool {
	if i == 0 {
		return false
	}
	if text[i-1] < utf8.RuneSelf {
		return isAttached(text, i)
	}
	r, _ := utf8.DecodeLastRune(text[:i])
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

func isDigit(b byte) bool { return b-'0' <= 9 }

func isLetter(b byte) bool { return lower(b)-'a' < 26 }

func isAlnum(b byte) bool { return isDigit(b) || isLetter(b) }

// isWordByte reports whether a byte is of a word: a letter, a digit or of what is not ASCII.
func isWordByte(b byte) bool { return isAlnum(b) || b >= utf8.RuneSelf }

// addDenied adds the words and phrases of a deny list. They are compared in lower case, and as words.
func (d *Detector) addDenied(deny []string) {
	for i, text := range deny {
		var f fold
		text = string(f.of([]byte(text)))
		// Only ASCII is compared without regard to case; of other letters the usual ways of writing are literals of their own.
		ways := []string{strings.ToLower(text), asciiLower(text), asciiLower(strings.ToUpper(text)), asciiLower(capital(text))}
		slices.Sort(ways)
		for _, way := range slices.Compact(ways) {
			d.words.add(literal{text: way, fold: true, means: meansDenied, rule: i})
		}
	}
}

// asciiLower changes only the ASCII letters to lower case.
func asciiLower(text string) string {
	b := []byte(text)
	for i := range b {
		b[i] = lower(b[i])
	}
	return string(b)
}

// capital writes a text with a capital letter.
func capital(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + strings.ToLower(text[n:])
}

// denied finds a word of the deny list.
func (s *Scanner) denied(l *literal, from int) {
	to := from + len(l.text)
	if isWordByte(l.text[0]) && isWord(s.text, from) {
		return
	}
	if isWordByte(l.text[len(l.text)-1]) {
		if s.ends(to) {
			s.open(from)
			return
		}
		if to < len(s.text) && wordBegins(s.text[to:]) {
			return
		}
	}
	s.found = append(s.found, Finding{Denied, from, to, l.rule})
}

// wordBegins reports whether text begins with a letter or digit.
func wordBegins(text []byte) bool {
	if text[0] < utf8.RuneSelf {
		return isAlnum(text[0])
	}
	r, _ := utf8.DecodeRune(text)
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}
