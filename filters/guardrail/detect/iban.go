package detect

// ibans has for each country the form of the account number behind its code and the check digits, as the registry has it
// (SWIFT, IBAN registry, release 99): n is a digit, a a capital letter, c either.
var ibans = parseIBANs(`
AD 8n12c, AE 19n, AL 8n16c, AT 16n, AZ 4a20c, BA 16n, BE 12n, BG 4a6n8c, BH 4a14c, BI 23n, BR 23n1a1c, BY 4c4n16c, CH 5n12c, CR 18n,
CY 8n16c, CZ 20n, DE 18n, DJ 23n, DK 14n, DO 4c20n, EE 16n, EG 25n, ES 20n, FI 14n, FK 2a12n, FO 14n, FR 10n11c2n, GB 4a14n, GE 2a16n,
GI 4a15c, GL 14n, GR 7n16c, GT 24c, HN 4a20n, HR 17n, HU 24n, IE 4a14n, IL 19n, IQ 4a15n, IS 22n, IT 1a10n12c, JO 4a4n18c, KW 4a22c,
KZ 3n13c, LB 4n20c, LC 4a24c, LI 5n12c, LT 16n, LU 3n13c, LV 4a13c, LY 21n, MC 10n11c2n, MD 20c, ME 18n, MK 3n10c2n, MN 16n, MR 23n,
MT 4a5n18c, MU 4a19n3a, NI 4a20n, NL 4a10n, NO 11n, OM 3n16c, PK 4a16c, PL 24n, PS 4a21c, PT 21n, QA 4a21c, RO 4a16c, RS 18n, RU 14n15c,
SA 2n18c, SC 4a20n3a, SD 14n, SE 20n, SI 15n, SK 20n, SM 1a10n12c, SO 19n, ST 21n, SV 4a20n, TL 19n, TN 20n, TR 6n16c, UA 6n19c, VA 18n,
VG 4a16n, XK 16n, YE 4a4n18c`)

// mostIBAN is the length of the longest.
const mostIBAN = 34

// parseIBANs writes each form out: DE is 18 times n.
func parseIBANs(list string) (forms [26 * 26]string) {
	country := 0
	form, count := "", 0
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c >= 'A' && c <= 'Z':
			country = countryOf(c, list[i+1])
			form = ""
			i++
		case isDigit(c):
			count = count*10 + int(c-'0')
		case isLetter(c):
			for ; count > 0; count-- {
				form += string(rune(c))
			}
			forms[country] = form
		}
	}
	return forms
}

// countryOf numbers a country by the two letters of its code.
func countryOf(one, other byte) int { return int(one-'A')*26 + int(other-'A') }

// iban verifies an account number whose check digits begin at i. It returns where it ends, 0 if it is none or undecided.
func (s *Scanner) iban(i int) (end int) {
	t := s.text
	if !s.d.kinds.Has(IBAN) || i < 2 || !isLetter(t[i-2]) || isAttached(t, i-2) {
		return 0
	}
	from := i - 2
	form := ibans[countryOf(upper(t[from]), upper(t[from+1]))]
	if form == "" {
		return 0
	}
	var code [mostIBAN]byte
	var separator byte // between groups of four
	p := from
	for n := 0; n < 4+len(form); n++ {
		if n > 0 && n%4 == 0 && p < len(t) {
			if n == 4 && (t[p] == ' ' || t[p] == '-') {
				separator = t[p]
			}
			if separator != 0 {
				if t[p] != separator {
					return 0
				}
				p++
			}
		}
		if p >= len(t) {
			if !s.last {
				s.open(from)
			}
			return 0
		}
		c := upper(t[p])
		if n >= 4 && !fits(c, form[n-4]) || n >= 2 && n < 4 && !isDigit(c) {
			return 0
		}
		code[n] = c
		p++
	}
	if s.ends(p) {
		s.open(from)
		return 0
	}
	if p < len(t) && isAlnum(t[p]) || !checks97(code[:4+len(form)]) {
		return 0
	}
	s.add(IBAN, from, p)
	return p
}

// fits reports whether a character is of a class of the registry.
func fits(c, class byte) bool {
	switch class {
	case 'n':
		return isDigit(c)
	case 'a':
		return isLetter(c)
	}
	return isAlnum(c)
}

// checks97 reports whether the check digits are right (ISO 7064, MOD 97-10).
func checks97(code []byte) bool {
	rest := uint64(0)
	for i := range code {
		c := code[(i+4)%len(code)]
		if isDigit(c) {
			rest = rest*10 + uint64(c-'0')
		} else {
			rest = rest*100 + uint64(c-'A') + 10
		}
		if rest > 1<<56 {
			rest %= 97
		}
	}
	return rest%97 == 1
}

func upper(b byte) byte {
	if 'a' <= b && b <= 'z' {
		return b - 'a' + 'A'
	}
	return b
}
