// Package detect finds personal data, secrets and unwanted phrases in text.
//
// One pass over the text finds the few bytes that can begin or stand in a finding, by the bytes beside them: digits, '@', a rare byte
// of each literal. What is there is then verified by the rules of its kind: checksums, lengths, what stands before and
// behind, and words nearby. Where nothing is found nothing is allocated.
//
// Text that arrives in pieces is the same text: [Detector.Scan] says from where on the end of what has come may be the
// beginning of a finding, so that this much can be withheld and no more.
package detect

import (
	"cmp"
	"slices"
)

// MaxBytes bounds a finding. What could become a longer one is not found: see [Scanner.Held].
const MaxBytes = 16 << 10

// Context is how many bytes before a text Scan needs to judge it as a part of what came before: labels stand there, also if each
// of their letters takes several bytes.
const Context = 4 * (nearBefore + 16)

// Kind is what a finding is.
type Kind uint8

// The kinds of findings.
const (
	Email Kind = iota
	Card
	IBAN
	SSN
	Phone
	IP
	AWSKey
	GitHubToken
	GoogleKey
	SlackToken
	OpenAIKey
	OtherKey // of GitLab, Hugging Face, npm, PyPI, SendGrid, Stripe
	JWT
	PrivateKey
	Password // in a URL
	Injection
	Denied  // by the deny list
	Pattern // of the configuration
	kinds
)

var kindNames = [kinds]string{
	"email", "card", "iban", "ssn", "phone", "ip", "aws_key", "github_token", "google_key", "slack_token", "openai_key", "key", "jwt",
	"private_key", "password", "injection", "denied", "pattern",
}

// String returns a short lower-case name for logs and metrics.
func (k Kind) String() string { return kindNames[min(k, kinds-1)] }

var labels = [kinds]string{
	Email: "[EMAIL]", Card: "[CARD]", IBAN: "[IBAN]", SSN: "[SSN]", Phone: "[PHONE]", IP: "[IP]",
	AWSKey: "[SECRET]", GitHubToken: "[SECRET]", GoogleKey: "[SECRET]", SlackToken: "[SECRET]", OpenAIKey: "[SECRET]",
	OtherKey: "[SECRET]", JWT: "[SECRET]", PrivateKey: "[SECRET]", Password: "[SECRET]",
	Injection: "[REMOVED]", Denied: "[REMOVED]", Pattern: "[REDACTED]",
}

// Label returns what stands in the place of a finding of the kind. It has nothing that JSON must escape, and is no finding itself.
func (k Kind) Label() string { return labels[min(k, kinds-1)] }

// Set is a set of kinds.
type Set uint32

// Of returns the set of some kinds.
func Of(all ...Kind) (s Set) {
	for _, k := range all {
		s |= 1 << k
	}
	return s
}

// Has reports whether k is in the set.
func (s Set) Has(k Kind) bool { return s>>k&1 == 1 }

// Secrets are the kinds of secrets.
var Secrets = Of(AWSKey, GitHubToken, GoogleKey, SlackToken, OpenAIKey, OtherKey, JWT, PrivateKey, Password)

// Groups are the sets that a configuration can name, and their names in order.
var (
	Groups = map[string]Set{
		"email": Of(Email), "card": Of(Card), "iban": Of(IBAN), "ssn": Of(SSN), "phone": Of(Phone), "ip": Of(IP), "secrets": Secrets,
		"injection": Of(Injection),
	}
	GroupNames = []string{"email", "card", "iban", "ssn", "phone", "ip", "secrets", "injection"}
)

// numbers are the kinds that begin with a digit, or nearly.
var numbers = Of(Card, IBAN, SSN, Phone, IP)

// Finding is a piece of the text, bytes [From, To).
type Finding struct {
	Kind     Kind
	From, To int
	Rule     int // of the deny list or of the patterns, by index
}

// Config is what a Detector finds.
type Config struct {
	Kinds    Set
	Deny     []string // words and phrases; upper and lower case are the same
	Patterns []string // in RE2's syntax
}

// Detector finds what its Config says. It never changes; each thread that uses it needs a Scanner.
type Detector struct {
	kinds    Set
	table    *table
	words    literals
	patterns *patterns // nil if there are none
}

// New makes a Detector. The error names the pattern that does not compile, by its index.
func New(c Config) (*Detector, *PatternError) {
	d := &Detector{kinds: c.Kinds, table: &table{}}
	d.addSecrets()
	d.addPhrases()
	d.addDenied(c.Deny)
	d.words.index(d.table)
	d.markNumbers()
	if d.kinds.Has(Email) || d.kinds.Has(Password) {
		d.table.mark(anyByte, '@', anyByte, isAt)
	}
	if d.kinds.Has(IP) {
		d.table.mark(isHex, ':', func(b byte) bool { return b == ':' || isHex(b) }, isColon)
	}
	var err *PatternError
	d.patterns, err = newPatterns(c.Patterns)
	return d, err
}

// Empty reports whether there is nothing that the detector could find.
func (d *Detector) Empty() bool {
	return d.kinds == 0 && len(d.words.all) == 0 && d.patterns == nil
}

// Scanner is the memory of scans, for one thread at a time. The zero value is ready.
type Scanner struct {
	d     *Detector
	text  []byte // folded
	last  bool   // nothing comes after text
	hold  int    // where the first candidate stands that more text would decide; len(text) if there is none
	past  int    // where the last finding ends: within one nothing is looked for but phrases and words of the deny list
	found []Finding

	fold     fold
	joined   []byte // the context, and the text after it
	threads  threads
	segments []segment
	places   [atOnce]places
	// Of the number that is looked at: its digits, and how it is written.
	digits    [mostForm]byte
	form      []byte
	formBytes [mostForm]byte
}

// Found are the findings of the last scan, in order. They may overlap. They are valid until the next one.
func (s *Scanner) Found() []Finding { return s.found }

// Find finds all in a text. What it returns is valid until the next scan.
func (d *Detector) Find(s *Scanner, text []byte) []Finding {
	d.Scan(s, nil, text, true)
	return s.found
}

// Scan finds what is in a text, to which more may come unless it is the last. Before are the last bytes that came before it,
// at least Context of them if there were so many; findings in them are not reported. It returns how many bytes at the end
// of the text may be the beginning of a finding, or of a longer one than can be seen: no finding is there, and the next text
// has to begin with them. All findings stand before that, and whatever comes does not change them.
func (d *Detector) Scan(s *Scanner, before, text []byte, last bool) (hold int) {
	whole := text
	if before = before[max(0, len(before)-Context):]; len(before) > 0 {
		s.joined = append(append(s.joined[:0], before...), text...)
		whole = s.joined
	}
	s.d, s.last, s.found = d, last, s.found[:0]
	s.text = s.fold.of(whole)
	s.hold, s.past = len(s.text), 0
	s.walk()
	if !last {
		s.tail()
	}
	holdAt := s.unfold(len(whole))
	if d.patterns != nil {
		holdAt = min(holdAt, d.patterns.scan(s, whole, len(before), last))
	}
	holdAt = s.tidy(max(holdAt, len(before)), len(before))
	return len(whole) - holdAt
}

// unfold gives the findings their places in the original text, and returns where the undecided rest begins in it.
func (s *Scanner) unfold(n int) (holdAt int) {
	for i := range s.found {
		f := &s.found[i]
		f.From, f.To = s.fold.from(f.From), s.fold.to(f.To)
	}
	if s.hold == len(s.text) {
		return n
	}
	return s.fold.from(s.hold)
}

// tidy sorts the findings, and drops what is undecided and what was before. It returns where the undecided begins.
func (s *Scanner) tidy(holdAt, before int) int {
	slices.SortFunc(s.found, func(a, b Finding) int {
		return cmp.Or(a.From-b.From, b.To-a.To, int(a.Kind)-int(b.Kind))
	})
	for i := len(s.found) - 1; i >= 0; i-- {
		if s.found[i].To > holdAt {
			holdAt = min(holdAt, s.found[i].From)
		}
	}
	holdAt = max(holdAt, before)
	s.found = slices.DeleteFunc(s.found, func(f Finding) bool { return f.To > holdAt || f.To <= before })
	for i := range s.found {
		f := &s.found[i]
		f.From, f.To = max(f.From, before)-before, f.To-before
	}
	return holdAt
}

// add adds a finding, if its kind is wanted.
func (s *Scanner) add(k Kind, from, to int) {
	if s.d.kinds.Has(k) {
		s.found = append(s.found, Finding{Kind: k, From: from, To: to})
		s.past = max(s.past, to)
	}
}

// open notes that more text decides whether a finding begins here.
func (s *Scanner) open(from int) { s.hold = min(s.hold, from) }

// ends reports whether the text ends at an index, and more may come.
func (s *Scanner) ends(i int) bool { return i >= len(s.text) && !s.last }

// walk looks at each place at which something may be.
func (s *Scanner) walk() {
	t := s.text
	next := 0 // what is before that has been looked at
	for i := 0; i < len(t); {
		var n int
		n, i = s.d.table.look(t, i, &s.places)
		for k := range n {
			for p := s.places[k]; p.what != 0; {
				at, what := p.next()
				if what&anyLiteral != 0 {
					s.literalsAt(at)
				}
				if what&^anyLiteral != 0 && at >= next && at >= s.past {
					next = s.verify(at, what)
				}
			}
		}
	}
}

// verify verifies what may be at i, other than a literal, and returns where to go on.
func (s *Scanner) verify(i int, what uint8) (next int) {
	switch {
	case what&anyNumber != 0 && s.mayBeNumber(i) && !isAttached(s.text, i):
		return s.number(i)
	case what&isCheck != 0:
		return max(i+1, s.iban(i))
	case what&isAt != 0:
		s.at(i)
	case what&isColon != 0:
		s.colon(i)
	}
	return i + 1
}

// literalsAt verifies what the literals whose anchor is at i stand for.
func (s *Scanner) literalsAt(i int) {
	w := &s.d.words
	for n := w.first(s.text, i); n != 0; n = w.all[n].next {
		l := &w.all[n]
		if from := i - l.anchor; l.at(s.text, from) {
			s.literal(l, from)
		}
	}
}

// literal verifies what begins with a literal.
func (s *Scanner) literal(l *literal, from int) {
	switch l.means {
	case meansSecret:
		if from+l.anchor >= s.past {
			s.secret(l, from)
		}
	case meansPhrase:
		s.phrase(l, from)
	case meansDenied:
		s.denied(l, from)
	}
}
