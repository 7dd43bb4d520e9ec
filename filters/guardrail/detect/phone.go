package detect

import "bytes"

// Digits of a telephone number with its country's code (E.164), and of one without.
const (
	leastInternational = 8
	mostInternational  = 15
	leastNational      = 9
	mostNational       = 12
)

// international verifies a telephone number with a plus sign, whose first digit is at i and whose first group of digits ends
// at j. It returns where it ends, 0 if it is none or undecided.
func (s *Scanner) international(i, j int) (end int) {
	from := s.begin(i)
	if !s.d.kinds.Has(Phone) || (isAttached(s.text, from) || s.before(from) == '_') {
		return 0
	}
	most, group := mostInternational, 2
	if s.text[i] == '1' {
		most, group = 11, 3
	}
	g := s.groups(i, j, most, group)
	switch {
	case g.cut && g.digits <= most:
		s.open(from)
		return 0
	case g.digits < leastInternational, g.digits > most, s.text[i] == '1' && g.digits != 11, !isCountry(s.text[i:]), !s.endsNumber(g.end, from):
		return 0
	}
	return s.addPhone(from, g.end)
}

// addPhone adds a telephone number. A parenthesis before it that is not closed in it is of the sentence.
func (s *Scanner) addPhone(from, to int) (end int) {
	if s.text[from] == '(' && bytes.IndexByte(s.text[from:to], ')') < 0 {
		from++
	}
	s.add(Phone, from, to)
	return to
}

// national verifies a telephone number that begins with 0 and is called one nearby.
func (s *Scanner) national(i, j int) (end int) {
	if !s.d.kinds.Has(Phone) {
		return 0
	}
	from := s.begin(i)
	g := s.groups(i, j, mostNational+3, 2) // 00 and the country's code
	switch {
	case g.cut && g.digits <= mostNational+3:
		s.open(from)
		return 0
	case g.digits < leastNational, g.digits > mostNational+3, g.digits > mostNational && s.text[i+1] != '0', !s.endsNumber(g.end, from), !s.near(phoneWords, from, g.end):
		return 0
	}
	return s.addPhone(from, g.end)
}

// groups are groups of digits with one separator between them.
type groups struct {
	digits int
	end    int
	cut    bool // the text ends, and more may come
}

// groups reads groups of digits, of which the first is [i, j), as long as there are no more than most digits. Of those behind a space
// each has at least as many as least.
func (s *Scanner) groups(i, j, most, least int) groups {
	t := s.text
	g := groups{digits: j - i, end: j}
	for {
		p := g.end
		for p < len(t) && p < g.end+3 && isSeparator(t[p]) {
			p++
		}
		if p == len(t) {
			g.cut = !s.last
			return g
		}
		if p == g.end || !isDigit(t[p]) {
			return g
		}
		space := t[p-1] == ' '
		q := p
		for q < len(t) && isDigit(t[q]) {
			q++
		}
		if q == len(t) && !s.last && g.digits+q-p <= most {
			g.cut = true
			return g
		}
		if space && g.digits >= leastInternational && (q-p < least || g.digits+q-p > most) {
			return g // something else
		}
		g.digits, g.end = g.digits+q-p, q
		if g.digits > most {
			return groups{digits: most + 1, end: q}
		}
	}
}

// isSeparator reports whether a byte may stand between groups of a telephone number.
func isSeparator(b byte) bool {
	return b == ' ' || b == '-' || b == '.' || b == '/' || b == '(' || b == ')'
}

// isCountry reports whether a number begins with the code of a country (ITU-T E.164), of which the second digit tells whether there
// is a third.
func isCountry(digits []byte) bool {
	switch digits[0] {
	case '1', '7':
		return true
	case '0':
		return false
	}
	second := byte(0)
	for _, d := range digits[1:] {
		if isDigit(d) {
			second = d
			break
		}
	}
	return countries[digits[0]-'0']>>(second-'0')&1 == 1
}

// countries has for the first digit of a code those that may follow, by bit.
var countries = [10]uint16{
	2: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<9,
	3: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9,
	4: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9,
	5: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9,
	6: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9,
	8: 1<<0 | 1<<1 | 1<<2 | 1<<4 | 1<<5 | 1<<6 | 1<<8,
	9: 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9,
}
