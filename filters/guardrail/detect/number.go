package detect

import "encoding/binary"

// shape is a way to write a number: d is a digit, anything else stands for itself.
type shape struct {
	kind    Kind
	text    string
	valid   func(digits []byte) bool // nil: any digits
	near    *label                   // a word that must stand nearby; nil: none
	closing bool                     // the number begins behind a parenthesis, which is of it
}

// shapes of numbers, by how many digits their first group has and what stands behind it (see separators).
var shapes = func() (by [longestRun + 1][len(separators) + 1][]shape) {
	for _, s := range []shape{
		{kind: Card, text: "dddd dddd dddd dddd", valid: isCard},
		{kind: Card, text: "dddd-dddd-dddd-dddd", valid: isCard},
		{kind: Card, text: "dddd dddddd ddddd", valid: isCard},
		{kind: Card, text: "dddd-dddddd-ddddd", valid: isCard},
		{kind: Card, text: "dddd dddddd dddd", valid: isCard},
		{kind: Card, text: "dddd-dddddd-dddd", valid: isCard},
		{kind: Card, text: "dddd dddd dddd dddd ddd", valid: isCard},
		{kind: Card, text: "dddd-dddd-dddd-dddd-ddd", valid: isCard},
		{kind: Card, text: "dddd.dddd.dddd.dddd", valid: isCard, near: cardWords},
		{kind: SSN, text: "ddd-dd-dddd", valid: isSSN},
		{kind: SSN, text: "ddd dd dddd", valid: isSSN, near: ssnWords},
		{kind: SSN, text: "ddd.dd.dddd", valid: isSSN, near: ssnWords},
		{kind: SSN, text: "ddddddddd", valid: isSSN, near: ssnWords},
		{kind: Phone, text: "ddd-ddd-dddd", valid: isAmerican},
		{kind: Phone, text: "ddd.ddd.dddd", valid: isAmerican},
		{kind: Phone, text: "ddd) ddd-dddd", valid: isAmerican, closing: true},
		{kind: Phone, text: "ddd) ddd dddd", valid: isAmerican, closing: true},
		{kind: Phone, text: "ddd)ddd-dddd", valid: isAmerican, closing: true},
		{kind: Phone, text: "ddd)-ddd-dddd", valid: isAmerican, closing: true},
		{kind: Phone, text: "ddd ddd dddd", valid: isAmerican, near: phoneWords},
		{kind: Phone, text: "ddd ddd-dddd", valid: isAmerican, near: phoneWords},
		{kind: Phone, text: "ddd/ddd-dddd", valid: isAmerican, near: phoneWords},
		{kind: Phone, text: "dddddddddd", valid: isAmerican, near: phoneWords},
		{kind: Phone, text: "ddddddddddd", valid: isAmericanLong, near: phoneWords},
		{kind: Phone, text: "d-ddd-ddd-dddd", valid: isAmericanLong},
		{kind: Phone, text: "d.ddd.ddd.dddd", valid: isAmericanLong},
		{kind: Phone, text: "d ddd ddd dddd", valid: isAmericanLong, near: phoneWords},
		{kind: Phone, text: "d (ddd) ddd-dddd", valid: isAmericanLong},
	} {
		n := 0
		for n < len(s.text) && s.text[n] == 'd' {
			n++
		}
		k := 0
		if n < len(s.text) {
			k = separatorOf(s.text[n])
		}
		by[n][k] = append(by[n][k], s)
	}
	for n := 12; n <= longestRun; n++ {
		s := shape{kind: Card, valid: isCard, near: cardWords}
		for range n {
			s.text += "d"
		}
		by[n][0] = append(by[n][0], s)
	}
	return by
}()

// markNumbers marks where a number may begin. One that begins with a single digit is a telephone number behind a 1, or an IPv4 address.
func (d *Detector) markNumbers() {
	for b := byte('0'); d.kinds&numbers != 0 && b <= '9'; b++ {
		d.table.mark(mayEnd, b, isDigit, isDigits)
		d.table.mark(mayEnd, b, func(c byte) bool {
			return c == '.' && b != '0' || b == '1' && (c == ' ' || c == '-')
		}, isSingle)
		d.table.mark(func(c byte) bool { return c == '+' || c == '(' }, b, isSeparator, isPlus)
		if d.kinds.Has(IBAN) {
			d.table.mark(isLetter, b, isDigit, isCheck)
		}
	}
}

// mayEnd reports whether something else may end with a byte: no word does, but for an escape.
func mayEnd(b byte) bool { return !isAlnum(b) || b == 'n' || b == 'r' || b == 't' }

// separators are what may stand behind the first group of a number.
const separators = " -.)/"

// separatorOf returns the place of a separator in shapes, 0 for anything else.
func separatorOf(b byte) int {
	switch b {
	case ' ':
		return 1
	case '-':
		return 2
	case '.':
		return 3
	case ')':
		return 4
	case '/':
		return 5
	}
	return 0
}

// mayBeNumber reports whether a number may begin at i. None that is found is shorter than seven bytes, and all of them are digits and
// signs: 0x20 to 0x3f.
func (s *Scanner) mayBeNumber(i int) bool {
	const kind, signs = 0xe0e0e0e0e0e0e0, 0x20202020202020
	return len(s.text)-i < 8 || binary.LittleEndian.Uint64(s.text[i:])&kind == signs
}

// number verifies the number that begins at i, and returns where to go on.
func (s *Scanner) number(i int) int {
	t := s.text
	before := s.before(i)
	switch {
	case (before == '-' || before == '/' || before == '\\') && i > 1 && isAlnum(t[i-2]):
		return i + 1 // of a longer number, a word, a path
	case before == '.' && i > 1 && isDigit(t[i-2]):
		return i + 1 // the first one has been verified
	}
	j := i + 1
	for j < len(t) && isDigit(t[j]) {
		j++
	}
	switch {
	case before == '+', before == '(' && i > 1 && t[i-2] == '+':
		return max(j, s.international(i, j))
	case before == ':' && j-i < leastAlone && i > 1 && isDigit(t[i-2]):
		return j // of a time
	}
	if s.ends(j) {
		if j-i <= longestRun {
			s.open(s.begin(i))
		}
		return j
	}
	n, next := j-i, 0
	if j < len(t) {
		next = separatorOf(t[j])
	}
	switch {
	case n > longestRun, n < leastAlone && next == 0:
		return j
	case n < leastAlone && j+1 < len(t) && next != 4 && !isDigit(t[j+1]) && t[j+1] != '(' && t[i] != '0':
		return j // of a sentence
	case n == 4 && t[i] != '0' && !mayBeCard(t[i:]):
		return j
	}
	if n <= 3 && t[j] == '.' {
		if end := s.ipv4(i); end > 0 {
			return end
		}
	}
	if s.attached(i) {
		return j
	}
	s.readForm(i)
	if end := s.shaped(&shapes[n][next], i); end > 0 {
		return end
	}
	if next != 0 && n >= leastAlone { // the number may end here
		if end := s.shaped(&shapes[n][0], i); end > 0 {
			return end
		}
	}
	if t[i] == '0' && n > 1 {
		return max(j, s.national(i, j))
	}
	return j
}

// shaped verifies a number of one of some shapes, as shape does.
func (s *Scanner) shaped(all *[]shape, i int) (end int) {
	for k := range *all {
		if end := s.shape(&(*all)[k], i); end > 0 {
			return end
		}
	}
	return 0
}

// Digits that follow each other: of the longest number, and of the shortest that may stand without separators.
const (
	longestRun = 19
	leastAlone = 9
)

// before returns the byte before an index, 0 if there is none.
func (s *Scanner) before(i int) byte {
	if i == 0 {
		return 0
	}
	return s.text[i-1]
}

// begin returns where a number begins whose first digit is at i: parentheses and plus signs are of it.
func (s *Scanner) begin(i int) int {
	for i > 0 && (s.text[i-1] == '(' || s.text[i-1] == '+') {
		i--
	}
	return i
}

// mostForm is as long as the longest shape, of a card in five groups.
const mostForm = 23

// readForm writes the text from i on as shapes are written.
func (s *Scanner) readForm(i int) {
	text := s.text[i:min(len(s.text), i+mostForm)]
	s.form = s.formBytes[:len(text)]
	for k, c := range text {
		s.form[k] = formOf[c]
	}
}

// formOf has what stands for each byte in a shape.
var formOf = func() (t [256]byte) {
	for b := range t {
		t[b] = byte(b)
	}
	t['d'] = 0 // no digit
	for b := byte('0'); b <= '9'; b++ {
		t[b] = 'd'
	}
	return t
}()

// shape verifies a number of a shape whose first digit is at i, where the form has been read. It returns where the number ends, 0 if
// it is none, or undecided.
func (s *Scanner) shape(h *shape, i int) (end int) {
	t := s.text
	k := min(len(h.text), len(s.form))
	if string(s.form[:k]) != h.text[:k] || !s.d.kinds.Has(h.kind) || h.closing && s.before(i) != '(' {
		return 0
	}
	if k < len(h.text) {
		if !s.last {
			s.open(s.begin(i))
		}
		return 0
	}
	p := i + k
	digits, n := &s.digits, 0
	for _, c := range t[i:p] {
		if isDigit(c) {
			digits[n] = c
			n++
		}
	}
	from := i
	if h.closing {
		from--
	}
	if h.valid != nil && !h.valid(digits[:n]) || !s.endsNumber(p, from) {
		return 0
	}
	if h.kind == Card && h.near == nil && (s.follows(i, h.text[4]) || s.goesOn(p, h.text[4], from)) && !s.near(cardWords, from, p) {
		return 0 // of a longer row of groups
	}
	if h.near != nil && (s.isArgument(from) || !s.near(h.near, from, p)) {
		return 0
	}
	s.add(h.kind, from, p)
	return p
}

// attached reports whether a number that begins at i goes on from a name before it.
func (s *Scanner) attached(i int) bool {
	return s.before(i) == '.' && i > 1 && isAlnum(s.text[i-2])
}

// isArgument reports whether what begins at an index is what a function in code is called with.
func (s *Scanner) isArgument(i int) bool { return s.before(i) == '(' && isAttached(s.text, i-1) }

// endsNumber reports whether a number that began at from ends at p. If more text decides that, it is noted.
func (s *Scanner) endsNumber(p, from int) bool {
	t := s.text
	switch {
	case p >= len(t):
		if !s.last {
			s.open(from)
		}
		return s.last
	case isAlnum(t[p]) || t[p] == '_':
		return false
	case t[p] != '-' && t[p] != '.' && t[p] != '/':
		return true
	case p+1 >= len(t):
		if !s.last {
			s.open(from)
		}
		return s.last
	case t[p] == '.':
		return !isDigit(t[p+1])
	}
	return !isAlnum(t[p+1])
}

// follows reports whether a group with digits and a separator stand before a number that begins at i.
func (s *Scanner) follows(i int, separator byte) bool {
	if i < 2 || s.text[i-1] != separator {
		return false
	}
	for k := i - 2; k >= 0 && k >= i-6 && isAlnum(s.text[k]); k-- {
		if isDigit(s.text[k]) {
			return true
		}
	}
	return false
}

// goesOn reports whether a separator and a group of four digits stand behind a number that ends at p.
func (s *Scanner) goesOn(p int, separator byte, from int) bool {
	t := s.text
	for k := range 5 {
		if p+k >= len(t) {
			if !s.last {
				s.open(from)
			}
			return false
		}
		if k == 0 && t[p] != separator || k > 0 && !isDigit(t[p+k]) {
			return false
		}
	}
	return p+5 >= len(t) || !isDigit(t[p+5])
}

// isCard reports whether digits are a card's number: its issuer's range and length, and the check digit by Luhn.
func isCard(digits []byte) bool { return issued(digits) && luhn(digits) }

// luhn reports whether the last digit is the check digit (ISO/IEC 7812-1, annex B).
func luhn(digits []byte) bool {
	sum := 0
	for i, c := range digits {
		d := int(c - '0')
		if (len(digits)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// same reports whether all digits are the same.
func same(digits []byte) bool {
	for _, d := range digits {
		if d != digits[0] {
			return false
		}
	}
	return true
}

// mayBeCard reports whether four digits may begin a card's number.
func mayBeCard(digits []byte) bool {
	return digits[0] >= '3' && digits[0] != '7' && digits[0] != '9' || digits[0] == '2' && digits[1] >= '2'
}

// issued reports whether an issuer's cards begin so and are that long.
func issued(digits []byte) bool {
	four, n := value(digits[:4]), len(digits)
	two, three := four/100, four/10
	switch {
	case two/10 == 4: // Visa
		return n == 16 || n == 13 || n == 19
	case 51 <= two && two <= 55, 2221 <= four && four <= 2720: // Mastercard
		return n == 16
	case two == 34, two == 37: // American Express
		return n == 15
	case four == 6011, 644 <= three && three <= 649, two == 65: // Discover
		return n >= 16
	case 3528 <= four && four <= 3589: // JCB
		return n >= 16
	case 300 <= three && three <= 305, two == 36, two == 38, two == 39: // Diners Club
		return n == 14 || n >= 16
	case 2200 <= four && four <= 2204: // Mir
		return n >= 16
	case two == 60, two == 62, two == 81, two == 82: // RuPay, UnionPay
		return n >= 16
	case four == 5018, four == 5020, four == 5038, four == 5893, four == 6304, four == 6759, 6761 <= four && four <= 6763: // Maestro
		return n >= 12
	}
	return false
}

// value returns the number that digits make.
func value(digits []byte) (n int) {
	for _, d := range digits {
		n = n*10 + int(d-'0')
	}
	return n
}

// isSSN reports whether digits are a social security number that can have been issued.
func isSSN(digits []byte) bool {
	area := value(digits[:3])
	return area != 0 && area != 666 && area < 900 && value(digits[3:5]) != 0 && value(digits[5:]) != 0
}

// isAmerican reports whether digits are a number of the North American plan.
func isAmerican(digits []byte) bool {
	return digits[0] >= '2' && digits[3] >= '2' && (digits[1] != '1' || digits[2] != '1')
}

// isAmericanLong is isAmerican behind the country's code.
func isAmericanLong(digits []byte) bool { return digits[0] == '1' && isAmerican(digits[1:]) }
