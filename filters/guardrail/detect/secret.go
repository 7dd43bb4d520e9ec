package detect

import (
	"bytes"
	"encoding/base64"
	"math/bits"
)

// secretRule is a kind of key that is known by what it begins with.
type secretRule struct {
	kind     Kind
	begin    string
	body     *charset
	min, max int  // bytes behind begin
	distinct int  // least different bytes of the body: placeholders have few
	digit    bool // it has a digit
	fold     bool
	verify   func(s *Scanner, from, to int) // in place of all this; to is behind begin
}

// charset are the bytes that may be of a body.
type charset [256]bool

func chars(ranges string) *charset {
	var c charset
	for i := 0; i+1 < len(ranges); i += 2 {
		for b := int(ranges[i]); b <= int(ranges[i+1]); b++ {
			c[b] = true
		}
	}
	return &c
}

var (
	base32Chars    = chars("AZ27")
	alnumChars     = chars("azAZ09")
	wordChars      = chars("azAZ09__")
	base64URLChars = chars("azAZ09__--")
	base64Chars    = chars("azAZ09++//")
	dotChars       = chars("azAZ09__--..")
)

// longKey bounds keys whose length their makers do not say.
const longKey = 400

var secretRules = []secretRule{
	{kind: AWSKey, begin: "AKIA", body: base32Chars, min: 16, max: 16, distinct: 5},
	{kind: AWSKey, begin: "ASIA", body: base32Chars, min: 16, max: 16, distinct: 5},
	{kind: AWSKey, begin: "ABIA", body: base32Chars, min: 16, max: 16, distinct: 5},
	{kind: AWSKey, begin: "ACCA", body: base32Chars, min: 16, max: 16, distinct: 5},
	{kind: AWSKey, begin: "secret_access_key", fold: true, verify: (*Scanner).awsSecret},
	{kind: AWSKey, begin: "secretaccesskey", fold: true, verify: (*Scanner).awsSecret},
	{kind: AWSKey, begin: "secret access key", fold: true, verify: (*Scanner).awsSecret},
	{kind: GitHubToken, begin: "ghp_", body: alnumChars, min: 36, max: 36, distinct: 8},
	{kind: GitHubToken, begin: "gho_", body: alnumChars, min: 36, max: 36, distinct: 8},
	{kind: GitHubToken, begin: "ghu_", body: alnumChars, min: 36, max: 36, distinct: 8},
	{kind: GitHubToken, begin: "ghs_", body: alnumChars, min: 36, max: 36, distinct: 8},
	{kind: GitHubToken, begin: "ghr_", body: alnumChars, min: 36, max: 76, distinct: 8},
	{kind: GitHubToken, begin: "github_pat_", body: wordChars, min: 82, max: 82, distinct: 8},
	{kind: GoogleKey, begin: "AIza", body: base64URLChars, min: 35, max: 35, distinct: 8},
	{kind: GoogleKey, begin: "GOCSPX-", body: base64URLChars, min: 28, max: 28, distinct: 8},
	{kind: GoogleKey, begin: "ya29.", body: base64URLChars, min: 20, max: longKey, distinct: 8},
	{kind: SlackToken, begin: "xoxb-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxp-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxa-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxr-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxs-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxe-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xoxe.", body: dotChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "xapp-", body: base64URLChars, min: 20, max: longKey, distinct: 5, digit: true},
	{kind: SlackToken, begin: "hooks.slack.com/services/T", body: chars("azAZ09//"), min: 30, max: longKey, distinct: 8},
	{kind: OpenAIKey, begin: "sk-", body: base64URLChars, min: 20, max: longKey, distinct: 10, digit: true},
	{kind: OtherKey, begin: "sk_live_", body: alnumChars, min: 16, max: longKey, distinct: 8},
	{kind: OtherKey, begin: "rk_live_", body: alnumChars, min: 16, max: longKey, distinct: 8},
	{kind: OtherKey, begin: "glpat-", body: dotChars, min: 20, max: longKey, distinct: 8},
	{kind: OtherKey, begin: "hf_", body: alnumChars, min: 34, max: 40, distinct: 8},
	{kind: OtherKey, begin: "npm_", body: alnumChars, min: 36, max: 36, distinct: 8},
	{kind: OtherKey, begin: "pypi-AgE", body: base64URLChars, min: 50, max: longKey, distinct: 8},
	{kind: OtherKey, begin: "SG.", body: dotChars, min: 66, max: 66, distinct: 8},
	{kind: JWT, begin: "eyJ", verify: (*Scanner).jwt},
	{kind: PrivateKey, begin: pemBegin, verify: (*Scanner).pem},
}

// addSecrets adds the literals of the secrets that are wanted.
func (d *Detector) addSecrets() {
	for i := range secretRules {
		if r := &secretRules[i]; d.kinds.Has(r.kind) {
			d.words.add(literal{text: r.begin, fold: r.fold, means: meansSecret, rule: i})
		}
	}
}

// secret verifies the key that begins with a literal.
func (s *Scanner) secret(l *literal, from int) {
	r := &secretRules[l.rule]
	if isAttached(s.text, from) && r.kind != PrivateKey {
		return
	}
	to := from + len(l.text)
	if r.verify != nil {
		r.verify(s, from, to)
		return
	}
	end := to
	for end < len(s.text) && end-to <= r.max && r.body[s.text[end]] {
		end++
	}
	if s.ends(end) && end-to <= r.max {
		s.open(from)
		return
	}
	if r.body['.'] { // at the end it is of the sentence
		for end > to && s.text[end-1] == '.' {
			end--
		}
	}
	n := end - to
	if n < r.min || n > r.max || end < len(s.text) && isAlnum(s.text[end]) {
		return
	}
	if body := s.text[to:end]; different(body) >= r.distinct && (!r.digit || bytes.ContainsAny(body, "0123456789")) {
		s.add(r.kind, from, end)
	}
}

// different counts the different bytes of a text.
func different(text []byte) (n int) {
	var seen [4]uint64
	for _, b := range text {
		seen[b>>6] |= 1 << (b & 63)
	}
	for _, s := range seen {
		n += bits.OnesCount64(s)
	}
	return n
}

// awsSecret verifies the secret of an AWS key, which only its name tells: 40 characters of base64.
func (s *Scanner) awsSecret(from, to int) {
	t := s.text
	const most = 8 // of what stands between name and value
	p := to
	for p < len(t) && p < to+most && bytes.IndexByte([]byte(" \t\"'`:=>\\"), t[p]) >= 0 {
		p++
	}
	begin := p
	for p < len(t) && p-begin <= 40 && base64Chars[t[p]] {
		p++
	}
	switch {
	case s.ends(p) && p-begin <= 40:
		s.open(from)
	case p-begin == 40 && begin > to && different(t[begin:p]) >= 12:
		s.add(AWSKey, begin, p)
	}
}

// mostJWT bounds a token.
const mostJWT = 8 << 10

// jwt verifies a token of three or five parts in base64url, of which the first is a JSON object that names an algorithm
// (RFC 7515, RFC 7516).
func (s *Scanner) jwt(from, _ int) {
	t := s.text
	const parts = 5
	var ends [parts]int
	p, n := from, 0
	for n < parts {
		for p < len(t) && p-from < mostJWT && base64URLChars[t[p]] {
			p++
		}
		if s.ends(p) {
			s.open(from)
			return
		}
		ends[n] = p
		n++
		if p >= len(t) || t[p] != '.' || n == parts {
			break
		}
		if n == 1 && !isHeader(t[from:p]) {
			return
		}
		p++
	}
	switch {
	case n < 3:
		return
	case n == 5 && ends[4]-ends[3] > 8:
		s.add(JWT, from, ends[4])
	case ends[1]-ends[0] > 10 && (ends[2]-ends[1] == 1 || ends[2]-ends[1] > 20):
		s.add(JWT, from, ends[2])
	}
}

// isHeader reports whether text is the header of a token.
func isHeader(text []byte) bool {
	const most = 512
	var decoded [most]byte
	n := min(len(text), most) / 4 * 4
	if len(text) < most {
		n = len(text)
	}
	n, err := base64.RawURLEncoding.Decode(decoded[:], text[:n])
	return err == nil && bytes.Contains(decoded[:n], []byte(`"alg"`))
}

const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
	pemDash  = "-----"
	// mostPEMTitle bounds what stands between the dashes.
	mostPEMTitle = 40
	// leastPEMLine is how long a line of a key is at least.
	leastPEMLine = 16
)

// pem verifies a private key in PEM, to its end. Line breaks may be written as escapes. A key that is cut is one, too.
func (s *Scanner) pem(from, to int) {
	t := s.text
	title := t[to:min(len(t), to+mostPEMTitle)]
	n := bytes.Index(title, []byte(pemDash))
	if n < 0 {
		if len(t) < to+mostPEMTitle && !s.last && bytes.IndexByte(title, '\n') < 0 {
			s.open(from)
		}
		return
	}
	if !bytes.Contains(title[:n], []byte("PRIVATE KEY")) {
		return
	}
	body := to + n + len(pemDash)
	is, open := s.pemBody(body)
	if open {
		s.open(from)
	}
	if !is {
		return
	}
	rest := t[body:min(len(t), from+MaxBytes)]
	if n := bytes.Index(rest, []byte(pemEnd)); n >= 0 {
		close := body + n + len(pemEnd)
		last := t[close:min(len(t), close+mostPEMTitle)]
		if n := bytes.Index(last, []byte(pemDash)); n >= 0 {
			s.add(PrivateKey, from, close+n+len(pemDash))
			return
		}
	}
	if !s.last {
		s.open(from) // its end is to come
		return
	}
	p := body
	for p < len(t) && (base64Chars[t[p]] || bytes.IndexByte([]byte("=\r\n\t \\-:,"), t[p]) >= 0) {
		p++
	}
	for isSpace(t[p-1]) {
		p--
	}
	s.add(PrivateKey, from, p)
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\r' || b == '\t' }

// pemBody reports whether the body of a key begins at p, or whether more text decides that.
func (s *Scanner) pemBody(p int) (is, open bool) {
	t := s.text
	begin := p
	for p < len(t) && p-begin < 16 && (bytes.IndexByte([]byte(" \t\r\n\\\"'+,"), t[p]) >= 0 || p > begin && t[p-1] == '\\' && (t[p] == 'n' || t[p] == 'r')) {
		p++
	}
	for _, header := range []string{"Proc-Type:", "DEK-Info:", "Version:", "Comment:", "Hash:"} {
		if k := min(len(header), len(t)-p); string(t[p:p+k]) == header[:k] {
			return k == len(header), s.ends(p + k)
		}
	}
	q := p
	for q < len(t) && q-p < leastPEMLine && base64Chars[t[q]] {
		q++
	}
	return q-p == leastPEMLine, s.ends(q)
}
