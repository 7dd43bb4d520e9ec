package detect

// tail notes what may begin at the end of the text of which the first byte that is looked at has not come.
func (s *Scanner) tail() {
	t := s.text
	n := len(t)
	k := s.d.kinds
	if k.Has(Email) || k.Has(Password) {
		s.open(s.localFrom(n))
		if user := s.userinfo(n); user >= 0 && k.Has(Password) {
			s.open(user)
		}
	}
	if k.Has(Phone) {
		s.open(s.begin(n))
	}
	letters := n
	for letters > 0 && n-letters < 5 && isHex(t[letters-1]) {
		letters--
	}
	if k.Has(IP) && n-letters < 5 && !isAttached(t, letters) {
		s.open(letters)
	}
	letters = n
	for letters > 0 && n-letters < 3 && isLetter(t[letters-1]) {
		letters--
	}
	if k.Has(IBAN) && n-letters < 3 && !isAttached(t, letters) {
		s.open(letters)
	}
	s.begun()
}
