package brotli

// number is how a number is coded: a base, and how many bits are added to it.
type number struct {
	base  int
	extra uint
}

// coded returns the number of a symbol. Callers have filled the reader.
func (d *decoder) coded(numbers []number, symbol int) int {
	n := numbers[symbol]
	return n.base + d.r.take(n.extra)
}

// RFC 7932, section 6.
var blockLengths = [26]number{
	{1, 2}, {5, 2}, {9, 2}, {13, 2}, {17, 3}, {25, 3}, {33, 3}, {41, 3}, {49, 4}, {65, 4}, {81, 4}, {97, 4}, {113, 5}, {145, 5}, {177, 5},
	{209, 5}, {241, 6}, {305, 6}, {369, 7}, {497, 8}, {753, 9}, {1265, 10}, {2289, 11}, {4337, 12}, {8433, 13}, {16625, 24},
}

// Section 5.
var (
	insertLengths = [24]number{
		{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 1}, {8, 1}, {10, 2}, {14, 2}, {18, 3}, {26, 3}, {34, 4}, {50, 4}, {66, 5}, {98, 5},
		{130, 6}, {194, 7}, {322, 8}, {578, 9}, {1090, 10}, {2114, 12}, {6210, 14}, {22594, 24},
	}
	copyLengths = [24]number{
		{2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 1}, {12, 1}, {14, 2}, {18, 2}, {22, 3}, {30, 3}, {38, 4}, {54, 4},
		{70, 5}, {102, 5}, {134, 6}, {198, 7}, {326, 8}, {582, 9}, {1094, 10}, {2118, 24},
	}
	// cells are the first symbols of insert lengths and of copy lengths, by the upper bits of a symbol that stands for both.
	cells = [11]struct{ insert, copy int }{{0, 0}, {0, 8}, {0, 0}, {0, 8}, {8, 0}, {8, 8}, {0, 16}, {16, 0}, {8, 16}, {16, 8}, {16, 16}}
)

// sameDistance is the end of the symbols that stand for the last distance as well.
const sameDistance = 128

// recent are the distances that are made of the last ones (section 4): which one, and what is added.
var recent = [16]struct{ which, add int }{
	{0, 0}, {1, 0}, {2, 0}, {3, 0}, {0, -1}, {0, 1}, {0, -2}, {0, 2}, {0, -3}, {0, 3}, {1, -1}, {1, 1}, {1, -2}, {1, 2}, {1, -3}, {1, 3},
}

// contexts are the parts of a literal's context by the last byte and by the one before it, for each mode (section 7.1).
type contexts struct{ last, before [256]uint8 }

var modes = makeModes()

func makeModes() *[4]contexts {
	const lsb6, msb6, utf8, signed = 0, 1, 2, 3
	m := new([4]contexts)
	for i := range 256 {
		c := uint8(i)
		m[lsb6].last[c] = c & 0x3f
		m[msb6].last[c] = c >> 2
		m[utf8].last[c], m[utf8].before[c] = utf8Last(c), utf8Before(c)
		m[signed].last[c], m[signed].before[c] = magnitude(c)<<3, magnitude(c)
	}
	return m
}

// utf8Last is the class of the last byte in a text.
func utf8Last(c uint8) uint8 {
	const (
		signs = "\x08\x0c\x10\x0c\x0c\x14\x0c\x10\x18\x1c\x0c\x0c\x20\x0c\x24\x0c"
		marks = "\x20\x20\x18\x28\x1c\x0c\x0c" // : to @
		tail  = "\x18\x0c\x1c\x0c\x0c"         // [ to _
	)
	vowel := c&0x1f == 1 || c&0x1f == 5 || c&0x1f == 9 || c&0x1f == 15 || c&0x1f == 21
	switch {
	case c == '\t' || c == '\n' || c == '\r':
		return 4
	case c < 32 || c == 127:
		return 0
	case c < 48:
		return signs[c-32]
	case c < 58:
		return 44
	case c < 65:
		return marks[c-58]
	case c >= 192:
		return 2 + c&1
	case c >= 128:
		return c & 1
	case c >= 91 && c < 96:
		return tail[c-91]
	case c == 96:
		return 12
	case c >= 123:
		return tail[c-123]
	case c < 91 && vowel:
		return 48
	case c < 91:
		return 52
	case vowel:
		return 56
	}
	return 60
}

// utf8Before is the class of the byte before the last in a text.
func utf8Before(c uint8) uint8 {
	switch {
	case c <= 32 || 127 <= c && c < 224:
		return 0
	case c >= 224 || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z':
		return 2
	case 'a' <= c && c <= 'z':
		return 3
	}
	return 1
}

// magnitude is the class of a byte that is part of a number with a sign.
func magnitude(c uint8) uint8 {
	for class, end := range [...]int{1, 16, 64, 128, 192, 240, 255} {
		if int(c) < end {
			return uint8(class)
		}
	}
	return 7
}
