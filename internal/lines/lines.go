// Package lines makes up lines of text with personal data and secrets, and with look-alikes, each with what it is. Nothing in
// them belongs to anybody. Tests and benchmarks measure detectors by them.
package lines

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Line is a text with at most one datum.
type Line struct {
	Kind string // of the datum, or of what it looks like
	Real bool   // false: it only looks like one
	Text string
}

// Kinds are the kinds of data.
var Kinds = []string{"card", "iban", "email", "phone", "ssn", "ip", "aws", "github", "jwt", "pem"}

// Generate returns the lines of a seed, in random order: of each kind some that are real and some that are not.
func Generate(seed uint64) []Line {
	g := &generator{rand.New(rand.NewPCG(seed, 1))}
	var all []Line
	for _, row := range rows {
		for range row.count {
			frame := pick(g, row.frames)
			all = append(all, Line{row.kind, row.real, strings.Replace(frame, "{}", row.make(g), 1)})
		}
	}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// generator makes single data.
type generator struct{ *rand.Rand }

type row struct {
	kind   string
	real   bool
	count  int
	make   func(*generator) string
	frames []string
}

var rows = []row{
	{"card", true, 25, (*generator).card, []string{"Charge my card {} please", "Mastercard {} is mine", "card_number={}", "Did the credit card {} go through?", "Use {} (visa)"}},
	{"card", false, 20, func(g *generator) string { return g.wrongDigit(g.card()) }, []string{"Charge my card {} please", "Parcel {} is late", "Invoice no. {}", "cc {} failed"}},
	{"iban", true, 20, (*generator).iban, []string{"Pay to {} today", "IBAN: {}", "account {} is closed.", "({})"}},
	{"iban", false, 15, func(g *generator) string { return g.wrongDigit(g.iban()) }, []string{"Pay to {} today", "IBAN: {}", "Item {} is sold out"}},
	{"email", true, 20, (*generator).email, []string{"Ask {} for it", "To: {}", "user={}", "the author <{}> wrote", "Is {} right?"}},
	{"email", false, 12, (*generator).noEmail, []string{"Ask {} for it", "see {}", "it is {} now"}},
	{"phone", true, 20, (*generator).phone, []string{"Ring me: {}", "tel {}", "His number is {}, I think.", "Phone {} before noon"}},
	{"phone", false, 14, (*generator).noPhone, []string{"Lot {} is here", "on {} it was", "ticket {}", "error {} again"}},
	{"ssn", true, 15, (*generator).ssn, []string{"SSN {}", "her social security number is {}.", "applicant ({})", "ssn:{}"}},
	{"ssn", false, 15, (*generator).noSSN, []string{"Code {} expired", "see case {}", "part no. {}"}},
	{"ip", true, 15, (*generator).ip, []string{"Refused: {}", "ssh root@{} hangs", "remote_addr={}", "The host {} is down."}},
	{"ip", false, 15, (*generator).noIP, []string{"Upgrade to {} soon", "chapter {} says", "it was {} then"}},
	{"aws", true, 15, func(g *generator) string { return "AKIA" + g.from(base32, 16) }, []string{"key_id: {}", "with {} I get 403", `{"aws":"{}"}`}},
	{"aws", false, 10, (*generator).noAWS, []string{"SKU {}", "named {}", "id={}"}},
	{"github", true, 15, func(g *generator) string {
		return pick(g, []string{"ghp_", "gho_", "ghs_", "ghu_"}) + g.from(alnum, 36)
	}, []string{"GH_TOKEN={}", "curl -H 'Authorization: token {}'", "https://{}@github.com/a/b"}},
	{"github", false, 8, (*generator).noGitHub, []string{"GH_TOKEN={}", "use {} here"}},
	{"jwt", true, 15, (*generator).jwt, []string{"Bearer {}", "cookie: session={}; path=/", "what is in {} ?"}},
	{"jwt", false, 8, (*generator).noJWT, []string{"Bearer {}", "header {}"}},
	{"pem", true, 10, func(g *generator) string {
		return g.pem(pick(g, []string{"RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED "}) + "PRIVATE KEY")
	}, []string{"key: {}", "{}", "My key is\n{}\nthanks"}},
	{"pem", false, 10, func(g *generator) string {
		return g.pem(pick(g, []string{"PUBLIC KEY", "CERTIFICATE", "RSA PUBLIC KEY"}))
	}, []string{"trust {}", "{}"}},
	{"hash", false, 15, (*generator).hash, []string{"commit {} is bad", "request_id={}", "sha256:{}"}},
}

const (
	digits = "0123456789"
	hexes  = "0123456789abcdef"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	alnum  = upper + "abcdefghijklmnopqrstuvwxyz" + digits
	base32 = upper + "234567"
)

func pick[T any](g *generator, all []T) T { return all[g.IntN(len(all))] }

// from returns n characters of a text.
func (g *generator) from(chars string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = chars[g.IntN(len(chars))]
	}
	return string(b)
}

func (g *generator) between(from, to int) int { return from + g.IntN(to-from+1) }

// wrongDigit changes the last digit, which a check digit notices.
func (g *generator) wrongDigit(s string) string {
	i := strings.LastIndexAny(s, digits)
	return s[:i] + string(digits[(int(s[i]-'0')+g.between(1, 9))%10]) + s[i+1:]
}

func (g *generator) card() string {
	issuer := pick(g, []struct {
		begins string
		length int
	}{{"4", 16}, {fmt.Sprint(g.between(51, 55)), 16}, {fmt.Sprint(g.between(2221, 2720)), 16}, {"34", 15}, {"37", 15}, {"6011", 16}, {"65", 16}, {"3530", 16}})
	s := issuer.begins + g.from(digits, issuer.length-1-len(issuer.begins))
	for d := range 10 {
		if all := s + fmt.Sprint(d); luhn(all) {
			s = all
			break
		}
	}
	groups := []int{4, 4, 4, 4}
	if len(s) == 15 {
		groups = []int{4, 6, 5}
	}
	return group(s, groups, pick(g, []string{"", " ", "-"}))
}

// luhn checks the last digit.
func luhn(s string) bool {
	sum, double := 0, false
	for i := len(s) - 1; i >= 0; i-- {
		d := int(s[i] - '0')
		if double {
			d = d*2/10 + d*2%10
		}
		sum, double = sum+d, !double
	}
	return sum%10 == 0
}

// group divides a text into groups.
func group(s string, sizes []int, separator string) string {
	var parts []string
	for _, n := range sizes {
		n = min(n, len(s))
		parts, s = append(parts, s[:n]), s[n:]
	}
	return strings.Join(parts, separator)
}

func (g *generator) iban() string {
	country := pick(g, []struct{ code, form string }{
		{"DE", "nnnnnnnnnnnnnnnnnn"},
		{"FR", "nnnnnnnnnnnnnnnnnnnnnnn"},
		{"ES", "nnnnnnnnnnnnnnnnnnnn"},
		{"NL", "aaaannnnnnnnnn"},
		{"GB", "aaaannnnnnnnnnnnnn"},
		{"IT", "annnnnnnnnnnnnnnnnnnnnn"},
		{"CH", "nnnnnnnnnnnnnnnnn"},
		{"UA", "nnnnnnnnnnnnnnnnnnnnnnnnn"},
		{"EG", "nnnnnnnnnnnnnnnnnnnnnnnnn"},
		{"NO", "nnnnnnnnnnn"},
	})
	var account strings.Builder
	for _, c := range country.form {
		account.WriteString(g.from(map[rune]string{'n': digits, 'a': upper}[c], 1))
	}
	rest := 0
	for _, c := range account.String() + country.code + "00" {
		if c >= 'A' {
			rest = (rest*100 + int(c-'A') + 10) % 97
		} else {
			rest = (rest*10 + int(c-'0')) % 97
		}
	}
	s := fmt.Sprintf("%s%02d%s", country.code, 98-rest, account.String())
	if g.IntN(2) == 0 {
		return s
	}
	return group(s, []int{4, 4, 4, 4, 4, 4, 4, 4, 4}[:(len(s)+3)/4], " ")
}

var people = strings.Fields("ada bela cyril dora emil frida gil hana ivo june karl lea milo nina olaf pia")

func (g *generator) email() string {
	one, other := pick(g, people), pick(g, people)
	local := pick(g, []string{one, one + "." + other, one + "_" + other, one + "+list", one + g.from(digits, 3), one + "-" + other})
	return local + "@" + pick(g, []string{"example.com", "mail.example.net", "firma.example.de", "shop.co.uk", "uni.edu", "team.dev"})
}

func (g *generator) noEmail() string {
	one := pick(g, people)
	return pick(g, []string{one + " at example dot org", "@" + one, one + "@localhost", "icon@2x.png", "pkg@v2." + g.from(digits, 1), g.from(digits, 2) + "@" + g.from(digits, 3), "git@github.com:a/b", "app@1.service"})
}

func (g *generator) phone() string {
	area := fmt.Sprint(g.between(2, 9)) + g.from("02345678", 1) + g.from("0234567", 1)
	exchange := fmt.Sprint(g.between(2, 9)) + g.from(digits, 2)
	line := g.from(digits, 4)
	return pick(g, []string{
		fmt.Sprintf("(%s) %s-%s", area, exchange, line), fmt.Sprintf("%s-%s-%s", area, exchange, line), fmt.Sprintf("%s.%s.%s", area, exchange, line),
		fmt.Sprintf("+1 %s %s %s", area, exchange, line), "+1" + area + exchange + line, "+44 20 7" + g.from(digits, 3) + " " + g.from(digits, 4),
		"+49 89 " + g.from(digits[1:], 1) + g.from(digits, 6), "+33 6 " + group(g.from(digits, 8), []int{2, 2, 2, 2}, " "), "+81-3-" + g.from(digits, 4) + "-" + g.from(digits, 4),
	})
}

func (g *generator) noPhone() string {
	return pick(g, []string{
		group(g.from(digits, 15), []int{5, 5, 5}, "-"), fmt.Sprintf("%d/%d/2026", g.between(1, 12), g.between(1, 28)), "1" + g.from(digits, 9), g.from(digits, 6),
		"v" + g.from(digits, 1) + "-" + g.from(digits, 3) + "-" + g.from(digits, 2), g.from(digits, 3) + "." + g.from(digits, 3), "0" + g.from(digits, 2) + "-555-" + g.from(digits, 4),
	})
}

func (g *generator) ssn() string {
	area := g.between(1, 899)
	if area == 666 {
		area = 665
	}
	return fmt.Sprintf("%03d-%02d-%04d", area, g.between(1, 99), g.between(1, 9999))
}

func (g *generator) noSSN() string {
	return pick(g, []string{
		fmt.Sprintf("000-%02d-%04d", g.between(1, 99), g.between(1, 9999)), fmt.Sprintf("666-%02d-%04d", g.between(1, 99), g.between(1, 9999)),
		fmt.Sprintf("%03d-00-%04d", g.between(1, 665), g.between(1, 9999)), fmt.Sprintf("%03d-%02d-0000", g.between(1, 665), g.between(1, 99)),
		fmt.Sprintf("9%s-%02d-%04d", g.from(digits, 2), g.between(1, 99), g.between(1, 9999)), "2026-" + g.from("123456789", 2) + "-" + g.from(digits, 4), group(g.from(digits, 10), []int{3, 2, 5}, "-"),
	})
}

func (g *generator) ip() string {
	return pick(g, []string{
		fmt.Sprintf("%d.%d.%d.%d", pick(g, []int{8, 23, 77, 129, 193, 212}), g.between(0, 255), g.between(0, 255), g.between(1, 254)),
		fmt.Sprintf("10.%d.%d.%d", g.between(0, 255), g.between(0, 255), g.between(1, 254)),
		fmt.Sprintf("2001:db8:%x::%x:%x", g.between(1, 65535), g.between(1, 65535), g.between(1, 65535)),
		fmt.Sprintf("2a02:%x:%x:%x:%x:%x:%x:%x", g.between(4096, 65535), g.between(1, 65535), g.between(1, 65535), g.between(1, 65535), g.between(1, 65535), g.between(1, 65535), g.between(1, 65535)),
	})
}

func (g *generator) noIP() string {
	return pick(g, []string{
		fmt.Sprintf("%d.%d.%d.%d", g.between(256, 999), g.between(0, 99), g.between(0, 9), g.between(1, 99)), fmt.Sprintf("%d.%d.%d.%d.%d", g.between(1, 9), g.between(0, 9), g.between(0, 9), g.between(0, 9), g.between(1, 9)),
		fmt.Sprintf("v%d.%d.%d.%d", g.between(1, 9), g.between(0, 9), g.between(0, 9), g.between(1, 9)), fmt.Sprintf("%02d:%02d:%02d", g.between(0, 23), g.between(0, 59), g.between(0, 59)),
		fmt.Sprintf("%d.%d.%d", g.between(1, 9), g.between(0, 99), g.between(0, 99)), "00:1a:" + group(g.from(hexes, 8), []int{2, 2, 2, 2}, ":"), "std::vector",
	})
}

func (g *generator) noAWS() string {
	return pick(g, []string{"AKIA" + g.from("abcdefghij", 16), "AKIA" + g.from(base32, g.between(6, 12)), "AKIO" + g.from(base32, 16), "AKIA-" + g.from(upper, 12), "xAKIA" + g.from(base32, 16)})
}

func (g *generator) noGitHub() string {
	return pick(g, []string{"ghp_" + g.from(alnum, 12), "ghp_" + strings.Repeat("X", 36), "ghx_" + g.from(alnum, 36), "ghp-" + g.from(alnum, 36)})
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.IntN(256))
	}
	return b
}

func (g *generator) jwt() string {
	enc := base64.RawURLEncoding
	head := pick(g, []string{`{"alg":"HS256","typ":"JWT"}`, `{"typ":"JWT","alg":"RS256","kid":"k1"}`, `{"alg":"ES256"}`})
	claims := fmt.Sprintf(`{"sub":%q,"exp":%d}`, pick(g, people), g.between(1_760_000_000, 1_800_000_000))
	return enc.EncodeToString([]byte(head)) + "." + enc.EncodeToString([]byte(claims)) + "." + enc.EncodeToString(g.bytes(pick(g, []int{32, 64, 256})))
}

func (g *generator) noJWT() string {
	return pick(g, []string{"eyJhbGciOiJIUzI1NiJ9", "eyJ.a.b", "ey" + g.from(alnum, 24) + ".x.y", "eyJhbGciOiJub25lIn0.e30"})
}

// pem writes a block, with line breaks or with what people paste for them.
func (g *generator) pem(title string) string {
	body := base64.StdEncoding.EncodeToString(g.bytes(g.between(100, 400)))
	breaks := pick(g, []string{"\n", `\n`, "\r\n"})
	var lines []string
	for len(body) > 0 {
		n := min(64, len(body))
		lines, body = append(lines, body[:n]), body[n:]
	}
	return "-----BEGIN " + title + "-----" + breaks + strings.Join(lines, breaks) + breaks + "-----END " + title + "-----"
}

func (g *generator) hash() string {
	return pick(g, []string{
		g.from(hexes, 40), g.from(hexes, 64), g.from(hexes, 32),
		g.from(hexes, 8) + "-" + g.from(hexes, 4) + "-4" + g.from(hexes, 3) + "-a" + g.from(hexes, 3) + "-" + g.from(hexes, 12),
	})
}

// Prose is text without any datum: prose, code, logs and YAML.
const Prose = `She said that the quick brown fox jumps over the lazy dog, and so it was. In the beginning there was nothing of note; then came more, on 12/24.
func (s *Server) walk(i int) error { for ; i < len(s.items); i++ { if s.class[s.items[i]] != 0x1F { return errors.New("bad: " + s.Name) } } ; return nil }
2026-11-30T14:46:16.123Z INFO request_id=5f3a9c2e status=200 bytes=18432 duration=0.231s path=/v1/chat/completions model=llama-3-8b user_agent="Chrome/120.0.0.0"
apiVersion: apps/v1, kind: Deployment, replicas: 3, image: registry.example/app:1.27.3@sha256:7031c1b283388d2c, port: 8080, limits: {cpu: 500m, memory: 128Mi}
The ratio is 3.14159 of 1,000,000; ports 80, 443 and 8080; version 10.0.19041; invoice 2024-00123; at 10:30 the commit 83db48f broke std::vector in a::b.
`
