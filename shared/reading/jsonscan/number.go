package jsonscan

// numberState is how far a number has come in the grammar of RFC 8259, section 6.
type numberState uint8

const (
	numberStart    numberState = iota // nothing read
	numberMinus                       // "-"
	numberZero                        // "0": no further digit may follow
	numberInt                         // "12"
	numberPoint                       // "12."
	numberFrac                        // "12.3"
	numberE                           // "12.3e"
	numberExpSign                     // "12.3e+"
	numberExp                         // "12.3e+4"
	numberComplete                    // the byte does not belong to the number, which is complete
	numberBad                         // the byte is wrong
)

// complete reports whether the number may end here.
func (n numberState) complete() bool {
	return n == numberZero || n == numberInt || n == numberFrac || n == numberExp
}

// next is the state after the byte c.
func (n numberState) next(c byte) numberState {
	switch {
	case c-'0' <= 9:
		switch n {
		case numberStart, numberMinus:
			if c == '0' {
				return numberZero
			}
			return numberInt
		case numberInt, numberFrac, numberExp:
			return n
		case numberPoint:
			return numberFrac
		case numberE, numberExpSign:
			return numberExp
		}
	case c == '.' && (n == numberZero || n == numberInt):
		return numberPoint
	case (c == 'e' || c == 'E') && (n == numberZero || n == numberInt || n == numberFrac):
		return numberE
	case c == '-' && n == numberStart:
		return numberMinus
	case (c == '+' || c == '-') && n == numberE:
		return numberExpSign
	}
	if n.complete() {
		// "01" and "1.2.3" end here too: what follows the number is refused as what follows a value.
		return numberComplete
	}
	return numberBad
}

// digits reads a number from b[i:]. A number has no closing character: it is complete when a byte follows that does not
// belong to it.
func (s *Scanner) digits(b []byte, i int) int {
	from := i
	state := s.number
	for i < len(b) {
		if state == numberInt || state == numberFrac || state == numberExp {
			for i < len(b) && b[i]-'0' <= 9 {
				i++
			}
			if i == len(b) {
				break
			}
		}
		next := state.next(b[i])
		if next >= numberComplete {
			if s.number = next; !s.numberFits(i - from) {
				return i
			}
			if next == numberBad {
				s.unexpected(i)
				return i
			}
			s.endNumber(b[from:i])
			return i
		}
		state = next
		i++
	}
	s.number = state
	if s.numberFits(i - from) {
		s.size += copy(s.scratch[s.size:], b[from:i])
	}
	return i
}

// numberFits checks the limit for a number that grows by n bytes.
func (s *Scanner) numberFits(n int) bool {
	if s.size+n > s.limits.ScalarBytes {
		if s.lenient && s.depth > 0 {
			s.passOver(passScalar)
			return false
		}
		s.fail(ScalarTooLong, s.start)
		return false
	}
	return true
}

// endNumber reports a number of which rest has not been copied to the scratch buffer.
func (s *Scanner) endNumber(rest []byte) {
	if s.size == 0 {
		s.scalar(rest)
		return
	}
	s.size += copy(s.scratch[s.size:], rest)
	s.scalar(s.scratch[:s.size])
}
