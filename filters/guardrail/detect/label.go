package detect

// label are words that say what a number nearby is.
type label struct {
	words  []string // in lower case
	behind int      // how many bytes behind the number are looked at; before it nearBefore are
}

// A label on the line before a number: how long that line is at most, and what stands between them.
const (
	mostAbove = 30
	mostBlank = 6
)

// nearBefore is how far before a number its label may begin. It is less than Context.
const nearBefore = 48

var (
	cardWords = &label{behind: 24, words: []string{
		"card", "cards", "credit", "debit", "visa", "mastercard", "amex", "american express", "discover", "diners", "jcb", "maestro", "unionpay", "rupay",
		"cc", "ccn", "ccnum", "pan", "charge", "kreditkarte", "karte", "carte", "tarjeta", "carta", "cartao",
	}}
	ssnWords   = &label{words: []string{"ssn", "ssns", "social security", "socialsecurity", "social_security", "soc sec", "tax id", "taxpayer"}}
	phoneWords = &label{words: []string{
		"phone", "phones", "telephone", "tel", "mobile", "cell", "cellphone", "call", "fax", "whatsapp", "sms", "dial", "ring", "telefon", "handy", "mobil",
		"telefono", "movil", "portable",
	}}
	// versionWords say that four numbers with dots are no address.
	versionWords = &label{words: []string{
		"version", "versions", "ver", "release", "section", "sections", "chapter", "clause", "build", "upgrade", "update", "rev", "revision", "firmware", "driver",
		"article", "paragraph", "sec", "sect",
	}}
	// addressWords say that they are one all the same.
	addressWords = &label{words: []string{
		"ip", "ips", "ipv4", "address", "addresses", "addr", "host", "client", "remote", "ping", "dns", "nameserver",
		"resolver", "server", "login", "ssh",
	}}
)

// near reports whether a word of the label stands near the number [from, to): on the same line, or on the line before if that is short.
// If more text decides that, it is noted.
func (s *Scanner) near(l *label, from, to int) bool {
	t := s.text
	for i := s.labelFrom(from); i < from; i++ {
		if l.at(t[:from], i) {
			return true
		}
	}
	if l.behind == 0 {
		return false
	}
	end := to
	for end < len(t) && end < to+l.behind && t[end] != '\n' {
		end++
	}
	for i := to; i < end; i++ {
		if l.at(t[:end], i) && !s.cutsWord(i, end, to+l.behind) {
			return true
		}
	}
	if s.ends(end) && end < to+l.behind {
		s.open(from)
	}
	return false
}

// labelFrom returns where the label of a number may begin.
func (s *Scanner) labelFrom(from int) int {
	t := s.text
	begin, least, above := from, from-nearBefore, false
	for begin > 0 && begin > from-mostBlank && (isSpace(t[begin-1]) || t[begin-1] == '"') {
		begin--
		above = above || t[begin] == '\n'
	}
	if above {
		least = begin - mostAbove
	}
	for begin > 0 && begin > least && t[begin-1] != '\n' {
		begin--
	}
	if above && begin > 0 && t[begin-1] != '\n' {
		return from // a line of text
	}
	return begin
}

// cutsWord reports whether the word that begins at i goes on to the end of the text, which more may come to.
func (s *Scanner) cutsWord(i, end, most int) bool {
	for i < end && isLetter(s.text[i]) {
		i++
	}
	return i == end && end < most && s.ends(end)
}

// at reports whether a word of the label stands at an index, as a word or as a part of a name (cardNumber, credit_card).
func (l *label) at(t []byte, i int) bool {
	if !isLetter(t[i]) || i > 0 && isLetter(t[i-1]) && (t[i-1] < 'a' || t[i] > 'Z') && !isEscape(t, i) {
		return false
	}
	first := lower(t[i])
	for _, w := range l.words {
		if w[0] != first || len(t)-i < len(w) {
			continue
		}
		k := 1
		for k < len(w) && lower(t[i+k]) == w[k] {
			k++
		}
		if k == len(w) && (i+k == len(t) || t[i+k] != '(' && (t[i+k] < 'a' || t[i+k] > 'z')) { // not a function in code
			return true
		}
	}
	return false
}
