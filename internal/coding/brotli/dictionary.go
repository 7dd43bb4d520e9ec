package brotli

import _ "embed"

// dictionary holds the words of the static dictionary, by their length: the DICT array of RFC 7932, appendix A.
//
//go:embed dictionary.bin
var dictionary string

const shortestWord, longestWord = 4, 24

// wordBits are the bits of an index of words of each length.
var wordBits = [longestWord + 1]uint{4: 10, 10, 11, 11, 10, 10, 10, 10, 10, 9, 9, 8, 7, 7, 8, 7, 7, 6, 6, 5, 5}

// word appends a word of the dictionary, transformed (section 8).
func (d *decoder) word(id, length, end int) error {
	if length < shortestWord || length > longestWord {
		return errCorrupt
	}
	width := wordBits[length]
	index, transform := id&(1<<width-1), id>>width
	if transform >= len(transforms) {
		return errCorrupt
	}
	at := index * length
	for l := shortestWord; l < length; l++ {
		at += l << wordBits[l]
	}
	d.out = transforms[transform].append(d.out, dictionary[at:at+length])
	if len(d.out) > end {
		return errCorrupt
	}
	return nil
}

// transform is how a word is changed.
type transform struct {
	prefix string
	change uint8
	suffix string
}

// The changes between these numbers leave out as many bytes at the end or at the beginning.
const (
	omitLast       = 0 // 1 to 9
	uppercaseFirst = 10
	uppercaseAll   = 11
	omitFirst      = 11 // 12 to 20
)

func (t transform) append(dst []byte, word string) []byte {
	dst = append(dst, t.prefix...)
	switch {
	case t.change < uppercaseFirst:
		word = word[:max(0, len(word)-int(t.change-omitLast))]
	case t.change > uppercaseAll:
		word = word[min(len(word), int(t.change-omitFirst)):]
	}
	at := len(dst)
	dst = append(dst, word...)
	switch t.change {
	case uppercaseFirst:
		uppercase(dst[at:])
	case uppercaseAll:
		for rest := dst[at:]; len(rest) > 0; {
			rest = rest[uppercase(rest):]
		}
	}
	return append(dst, t.suffix...)
}

// uppercase changes the first character as the format has it, which is not quite Unicode's, and returns its length.
func uppercase(b []byte) int {
	switch {
	case b[0] < 0xc0:
		if 'a' <= b[0] && b[0] <= 'z' {
			b[0] ^= 0x20
		}
		return 1
	case b[0] < 0xe0:
		if len(b) > 1 {
			b[1] ^= 0x20
		}
		return min(2, len(b))
	}
	if len(b) > 2 {
		b[2] ^= 5
	}
	return min(3, len(b))
}

// transforms are those of appendix B.
var transforms = [...]transform{
	{"", 0, ""}, {"", 0, " "}, {" ", 0, " "}, {"", 12, ""}, {"", 10, " "}, {"", 0, " the "}, {" ", 0, ""},
	{"s ", 0, " "}, {"", 0, " of "}, {"", 10, ""}, {"", 0, " and "}, {"", 13, ""}, {"", 1, ""}, {", ", 0, " "},
	{"", 0, ", "}, {" ", 10, " "}, {"", 0, " in "}, {"", 0, " to "}, {"e ", 0, " "}, {"", 0, "\""},
	{"", 0, "."}, {"", 0, "\">"}, {"", 0, "\n"}, {"", 3, ""}, {"", 0, "]"}, {"", 0, " for "}, {"", 14, ""},
	{"", 2, ""}, {"", 0, " a "}, {"", 0, " that "}, {" ", 10, ""}, {"", 0, ". "}, {".", 0, ""}, {" ", 0, ", "},
	{"", 15, ""}, {"", 0, " with "}, {"", 0, "'"}, {"", 0, " from "}, {"", 0, " by "}, {"", 16, ""},
	{"", 17, ""}, {" the ", 0, ""}, {"", 4, ""}, {"", 0, ". The "}, {"", 11, ""}, {"", 0, " on "},
	{"", 0, " as "}, {"", 0, " is "}, {"", 7, ""}, {"", 1, "ing "}, {"", 0, "\n\t"}, {"", 0, ":"},
	{" ", 0, ". "}, {"", 0, "ed "}, {"", 20, ""}, {"", 18, ""}, {"", 6, ""}, {"", 0, "("}, {"", 10, ", "},
	{"", 8, ""}, {"", 0, " at "}, {"", 0, "ly "}, {" the ", 0, " of "}, {"", 5, ""}, {"", 9, ""},
	{" ", 10, ", "}, {"", 10, "\""}, {".", 0, "("}, {"", 11, " "}, {"", 10, "\">"}, {"", 0, "=\""},
	{" ", 0, "."}, {".com/", 0, ""}, {" the ", 0, " of the "}, {"", 10, "'"}, {"", 0, ". This "}, {"", 0, ","},
	{".", 0, " "}, {"", 10, "("}, {"", 10, "."}, {"", 0, " not "}, {" ", 0, "=\""}, {"", 0, "er "},
	{" ", 11, " "}, {"", 0, "al "}, {" ", 11, ""}, {"", 0, "='"}, {"", 11, "\""}, {"", 10, ". "}, {" ", 0, "("},
	{"", 0, "ful "}, {" ", 10, ". "}, {"", 0, "ive "}, {"", 0, "less "}, {"", 11, "'"}, {"", 0, "est "},
	{" ", 10, "."}, {"", 11, "\">"}, {" ", 0, "='"}, {"", 10, ","}, {"", 0, "ize "}, {"", 11, "."},
	{"\xc2\xa0", 0, ""}, {" ", 0, ","}, {"", 10, "=\""}, {"", 11, "=\""}, {"", 0, "ous "}, {"", 11, ", "},
	{"", 10, "='"}, {" ", 10, ","}, {" ", 11, "=\""}, {" ", 11, ", "}, {"", 11, ","}, {"", 11, "("},
	{"", 11, ". "}, {" ", 11, "."}, {"", 11, "='"}, {" ", 11, ". "}, {" ", 10, "=\""}, {" ", 11, "='"},
	{" ", 10, "='"},
}
