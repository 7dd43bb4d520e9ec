package guardrail

import (
	"strings"
	"unicode/utf8"
)

// edit replaces the bytes [from, to) of a text. Edits of a text are in order and do not overlap.
type edit struct {
	from, to int
	with     string
}

// applied appends a text with edits made.
func applied(dst, text []byte, edits []edit) []byte {
	at := 0
	for _, e := range edits {
		dst = append(append(dst, text[at:e.from]...), e.with...)
		at = e.to
	}
	return append(dst, text[at:]...)
}

// then returns edits that do what first does, and second to what first makes of the text, between. What both change becomes one
// edit.
func then(first, second []edit, between []byte) []edit {
	out := make([]edit, 0, len(first)+len(second))
	shift := 0 // from a place in between, outside of edits, to the same in the text
	for i, j := 0, 0; i < len(first) || j < len(second); {
		from := len(between)
		if i < len(first) {
			from = first[i].from - shift
		}
		if j < len(second) {
			from = min(from, second[j].from)
		}
		to, next, begin := from, shift, j
		for {
			if i < len(first) && first[i].from-next <= to {
				e := &first[i]
				to = max(to, e.from-next+len(e.with))
				next += e.to - e.from - len(e.with)
				i++
			} else if j < len(second) && second[j].from <= to {
				to = max(to, second[j].to)
				j++
			} else {
				break
			}
		}
		out = append(out, edit{from + shift, to + next, string(applied(nil, between[from:to], moved(second[begin:j], -from)))})
		shift = next
	}
	return out
}

// moved returns edits of which the text begins elsewhere.
func moved(edits []edit, by int) []edit {
	out := make([]edit, len(edits))
	for i, e := range edits {
		out[i] = edit{e.from + by, e.to + by, e.with}
	}
	return out
}

const (
	// farthest bounds how many words apart two texts are taken to go on alike.
	farthest = 200
	// alike is how many words must be the same for that.
	alike = 3
)

// trimmed returns an edit without the characters at its beginning and end that it does not change.
func trimmed(text string, e edit) edit {
	for e.from < e.to && e.with != "" {
		_, n := utf8.DecodeRuneInString(text[e.from:e.to])
		if n > len(e.with) || text[e.from:e.from+n] != e.with[:n] {
			break
		}
		e.from, e.with = e.from+n, e.with[n:]
	}
	for e.from < e.to && e.with != "" {
		_, n := utf8.DecodeLastRuneInString(text[e.from:e.to])
		if n > len(e.with) || text[e.to-n:e.to] != e.with[len(e.with)-n:] {
			break
		}
		e.to, e.with = e.to-n, e.with[:len(e.with)-n]
	}
	return e
}

// diff returns edits that make after of before, and change little else. Lines are compared one by one if there are as many: texts that
// are judged together have line feeds between.
func diff(before, after string) (out []edit) {
	if strings.Count(before, "\n") != strings.Count(after, "\n") {
		return diffWords(before, after)
	}
	at := 0
	for line := range strings.Lines(before) {
		other := after
		if i := strings.IndexByte(after, '\n'); i >= 0 {
			other, after = after[:i+1], after[i+1:]
		}
		if line != other {
			out = append(out, moved(diffWords(line, other), at)...)
		}
		at += len(line)
	}
	if before == "" || before[len(before)-1] == '\n' {
		out = append(out, moved(diffWords("", after), at)...)
	}
	return out
}

// diffWords compares texts word by word.
func diffWords(before, after string) (out []edit) {
	a, b := words(before), words(after)
	for i, j := 0, 0; i < len(a)-1 || j < len(b)-1; {
		if i < len(a)-1 && j < len(b)-1 && word(before, a, i) == word(after, b, j) {
			i, j = i+1, j+1
			continue
		}
		x, y := meet(before, after, a[i:], b[j:])
		out = append(out, trimmed(before, edit{a[i], a[i+x], after[b[j]:b[j+y]]}))
		i, j = i+x, j+y
	}
	return out
}

// meet returns after how many words of each the texts go on alike; all of them if they do not.
func meet(before, after string, a, b []int) (x, y int) {
	for d := 1; d <= farthest; d++ {
		for x := max(0, d-len(b)+1); x <= min(d, len(a)-1); x++ {
			if same(before, after, a[x:], b[d-x:]) {
				return x, d - x
			}
		}
	}
	return len(a) - 1, len(b) - 1
}

// same reports whether some words are the same, or all up to both ends.
func same(before, after string, a, b []int) bool {
	for k := range alike {
		if k == len(a)-1 || k == len(b)-1 {
			return len(a) == len(b)
		}
		if word(before, a, k) != word(after, b, k) {
			return false
		}
	}
	return true
}

func word(text string, at []int, i int) string { return text[at[i]:at[i+1]] }

// words returns where the words of a text begin, and its end: runs of letters and digits, and every other character.
func words(text string) []int {
	at := make([]int, 0, len(text)/3+2)
	within := false
	for i, r := range text {
		letter := r == '_' || '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z' || r >= utf8.RuneSelf
		if !letter || !within {
			at = append(at, i)
		}
		within = letter
	}
	return append(at, len(text))
}
