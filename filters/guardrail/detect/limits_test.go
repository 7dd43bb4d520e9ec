package detect

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// alone is a detector of one kind.
func alone(k Kind) *Detector {
	d, _ := New(Config{Kinds: Of(k)})
	return d
}

// Each detector works without the others: what one of them holds of a text that comes in pieces must not stand in for another one.
func TestEachKindAlone(t *testing.T) {
	var s Scanner
	for k := range Denied {
		d := alone(k)
		for _, c := range positives {
			if c.kind == k {
				requireOne(t, d, &s, k, c.text, c.want)
			}
			for _, sizes := range [][]byte{{1}, {2}, {3, 1}, {5, 9, 2}} {
				checkStream(t, d, c.text, sizes)
				checkStream(t, d, "x "+c.text+" y", sizes)
			}
		}
		for _, c := range samples {
			checkStream(t, d, c.with(c.text), []byte{1})
		}
	}
}

// body makes n different bytes of a set, as far as it has so many.
func (c *charset) body(n, distinct int) string {
	var all, b []byte
	for i := range 256 {
		if c[i] && byte(i) != '.' && byte(i) != '-' {
			all = append(all, byte(i))
		}
	}
	for i := range n {
		b = append(b, all[i%min(distinct, len(all))])
	}
	return string(b)
}

// lengths are those of keys behind what they begin with, as their makers write them.
var lengths = map[string][2]int{
	"AKIA": {16, 16}, "ASIA": {16, 16}, "ABIA": {16, 16}, "ACCA": {16, 16}, "ghp_": {36, 36}, "gho_": {36, 36}, "ghu_": {36, 36}, "ghs_": {36, 36}, "ghr_": {36, 76}, "github_pat_": {82, 82},
	"AIza": {35, 35}, "GOCSPX-": {28, 28}, "ya29.": {20, 400}, "xoxb-": {20, 400}, "xoxp-": {20, 400}, "xoxa-": {20, 400}, "xoxr-": {20, 400}, "xoxs-": {20, 400}, "xoxe-": {20, 400}, "xoxe.": {20, 400},
	"xapp-": {20, 400}, "hooks.slack.com/services/T": {30, 400}, "sk-": {20, 400}, "sk_live_": {16, 400}, "rk_live_": {16, 400}, "glpat-": {20, 400}, "hf_": {34, 40}, "npm_": {36, 36}, "pypi-AgE": {50, 400}, "SG.": {66, 66},
}

func TestLengthsOfKeys(t *testing.T) {
	for _, r := range secretRules {
		if r.verify != nil {
			continue
		}
		require.Equal(t, lengths[r.begin], [2]int{r.min, r.max}, r.begin)
		distinct := 8
		switch {
		case r.kind == AWSKey, r.digit && r.kind == SlackToken:
			distinct = 5
		case r.kind == OpenAIKey:
			distinct = 10
		}
		require.Equal(t, distinct, r.distinct, r.begin)
		require.Equal(t, strings.HasPrefix(r.begin, "xo") || strings.HasPrefix(r.begin, "xapp") || r.begin == "sk-", r.digit, r.begin)
	}
}

// Each key of a maker has its length and its different bytes, and is none with one fewer or one more.
func TestLimitsOfKeys(t *testing.T) {
	var s Scanner
	for _, r := range secretRules {
		if r.verify != nil {
			continue
		}
		d := alone(r.kind)
		count := func(body string) int { return len(d.Find(&s, []byte("a "+r.begin+body+" b"))) }
		require.Equal(t, 1, count(r.body.body(r.min, r.distinct)), "%s: the shortest", r.begin)
		require.Equal(t, 1, count(r.body.body(r.max, r.distinct)), "%s: the longest", r.begin)
		require.Zero(t, count(r.body.body(r.min-1, 30)), "%s: too short", r.begin)
		require.Zero(t, count(r.body.body(r.max+1, 30)), "%s: too long", r.begin)
		require.Zero(t, count(r.body.body(r.min, r.distinct-1)), "%s: a placeholder", r.begin)
		letters := *r.body
		for b := '0'; b <= '9'; b++ {
			letters[b] = false
		}
		want := 1
		if r.digit {
			want = 0
		}
		require.Equal(t, want, count(letters.body(r.min, 20)), "%s: without a digit", r.begin)
		if r.body['.'] {
			text := r.begin + r.body.body(r.min, 20)
			found := d.Find(&s, []byte(text+"."))
			require.Len(t, found, 1, r.begin)
			require.Equal(t, len(text), found[0].To, "%s: the full stop is of the sentence", r.begin)
		}
	}
}

func TestLimitsOfAWSSecrets(t *testing.T) {
	d := alone(AWSKey)
	var s Scanner
	const forty = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	for text, want := range map[string]bool{
		`secret_access_key="` + forty + `"`: true, "secretAccessKey: " + forty: true, "secret access key => " + forty: true, "secret_access_key = " + forty + ";": true,
		"secret_access_key = " + forty[1:] + " ": false, "secret_access_key = " + forty + "x": false, "secret_access_key" + forty: false,
		"secret_access_key of the account " + forty: false, "secret_access_key = " + strings.Repeat("abcdefghij", 4): false, "secret_access_key = " + strings.Repeat("abcdefghijkl", 4)[:40]: true,
	} {
		require.Equal(t, want, len(d.Find(&s, []byte(text))) == 1, text)
	}
}

// Issuers and the lengths of their cards: the first and the last of each range, and what stands beside them.
func TestIssuers(t *testing.T) {
	for _, c := range []struct {
		begins  string
		lengths string // that there are, of 11 to 19
	}{
		{"3999", "14 16 17 18 19"},
		{"4000", "13 16 19"},
		{"4999", "13 16 19"},
		{"5000", ""},
		{"5099", ""},
		{"5100", "16"},
		{"5599", "16"},
		{"5600", ""},
		{"2220", ""},
		{"2221", "16"},
		{"2720", "16"},
		{"2721", ""},
		{"3399", ""},
		{"3400", "15"},
		{"3499", "15"},
		{"3500", ""},
		{"3700", "15"},
		{"3799", "15"},
		{"6010", "16 17 18 19"},
		{"6011", "16 17 18 19"},
		{"6439", ""},
		{"6440", "16 17 18 19"},
		{"6499", "16 17 18 19"},
		{"6500", "16 17 18 19"},
		{"6599", "16 17 18 19"},
		{"6600", ""},
		{"3527", ""},
		{"3528", "16 17 18 19"},
		{"3589", "16 17 18 19"},
		{"3590", ""},
		{"2999", ""},
		{"3000", "14 16 17 18 19"},
		{"3059", "14 16 17 18 19"},
		{"3060", ""},
		{"3600", "14 16 17 18 19"},
		{"3699", "14 16 17 18 19"},
		{"3800", "14 16 17 18 19"},
		{"2199", ""},
		{"2200", "16 17 18 19"},
		{"2204", "16 17 18 19"},
		{"2205", ""},
		{"6000", "16 17 18 19"},
		{"6199", ""},
		{"6200", "16 17 18 19"},
		{"6299", "16 17 18 19"},
		{"6305", ""},
		{"8099", ""},
		{"8100", "16 17 18 19"},
		{"8299", "16 17 18 19"},
		{"8300", ""},
		{"5017", ""},
		{"5018", "12 13 14 15 16 17 18 19"},
		{"5019", ""},
		{"5020", "12 13 14 15 16 17 18 19"},
		{"5038", "12 13 14 15 16 17 18 19"},
		{"5893", "12 13 14 15 16 17 18 19"},
		{"6304", "12 13 14 15 16 17 18 19"},
		{"6759", "12 13 14 15 16 17 18 19"},
		{"6760", ""},
		{"6761", "12 13 14 15 16 17 18 19"},
		{"6763", "12 13 14 15 16 17 18 19"},
		{"6764", ""},
		{"1234", ""},
		{"7000", ""},
		{"9999", ""},
		{"0000", ""},
	} {
		for n := 11; n <= 19; n++ {
			want := strings.Contains(c.lengths, fmt.Sprint(n))
			require.Equal(t, want, issued([]byte(c.begins + strings.Repeat("0", n-4))[:n]), "%s, %d digits", c.begins, n)
		}
	}
}

// Codes of countries that are in use have these first two digits.
func TestCountries(t *testing.T) {
	const unused = "28 83 87 89"
	d := alone(Phone)
	var s Scanner
	for code := 20; code <= 99; code++ {
		text := fmt.Sprintf("+%d 12 345 6789", code)
		want := !strings.Contains(unused, fmt.Sprint(code)) && (code < 70 || code >= 80)
		if code/10 == 7 { // Russia's is of one digit
			want = true
		}
		require.Equal(t, want, len(d.Find(&s, []byte(text))) == 1, text)
	}
	require.Empty(t, d.Find(&s, []byte("+01 234 567 8901")))
}

// limits are texts at the limits of rules, and what is found in them, "" for nothing.
var limits = []struct {
	kind       Kind
	text, want string
}{
	{Phone, "+4912345678 ok", "+4912345678"},
	{Phone, "+49123456 ok", "+49123456"},
	{Phone, "+4912345 ok", ""},
	{Phone, "+491234567890123 ok", "+491234567890123"},
	{Phone, "+4912345678901234 ok", ""},
	{Phone, "+1 212 555 123 ok", ""},
	{Phone, "+1 212 555 12345 ok", ""},
	{Phone, "tel 012345678 ok", "012345678"},
	{Phone, "tel 01234567 ok", ""},
	{Phone, "tel 012345678901 ok", "012345678901"},
	{Phone, "tel 0123456789012 ok", ""},
	{Phone, "tel 0049 30 12345678 ok", "0049 30 12345678"},
	{Phone, "tel 004930123456789 ok", "004930123456789"},
	{Phone, "tel 0049301234567890 ok", ""},
	{Phone, "(+49) 30 12345678 ok", "(+49) 30 12345678"},
	{Phone, "x (+49 30 12345678) ok", "+49 30 12345678"},
	{Phone, "_+49 30 12345678", ""},
	{Phone, "+49 3012345678 901 ok", "+49 3012345678 901"},
	{Phone, "+49 3012345678 9012 ok", "+49 3012345678"},
	{Phone, "tel (030) 1234567 ok", "(030) 1234567"},
	{Phone, "tel (030 1234567) ok", "030 1234567"},
	{Phone, "+44 20 7946 0123 5 ok", "+44 20 7946 0123"},
	{Phone, "+49 (0) 30/12345678 ok", "+49 (0) 30/12345678"},
	{Phone, "call 212 555 1234 ok", "212 555 1234"},
	{Phone, "212 555 1234 ok", ""},
	{Phone, "tel 1 212 555 1234 ok", "1 212 555 1234"},
	{Phone, "1 (212) 555-1234 ok", "1 (212) 555-1234"},
	{Phone, "2 (212) 555-1234 ok", "(212) 555-1234"},
	{Phone, "1.212.555.1234 ok", "1.212.555.1234"},
	{Phone, "211-555-1234 ok", ""},
	{Phone, "212-055-1234 ok", ""},
	{Phone, "112-555-1234 ok", ""},
	{Phone, "tel(2125551234)", ""},
	{Phone, "tel (2125551234)", "2125551234"},
	{IP, "Refused 21.1.1.1", "21.1.1.1"},
	{IP, "Refused 20.20.20.20", ""},
	{IP, "Refused 1.21.1.1", "1.21.1.1"},
	{IP, "Refused 1.1.21.1", "1.1.21.1"},
	{IP, "Refused 1.1.1.21", "1.1.1.21"},
	{IP, "Refused 10.0.0.1", "10.0.0.1"},
	{IP, "Refused 255.1.2.3", ""},
	{IP, "Refused 254.1.2.3", "254.1.2.3"},
	{IP, "Refused 0.1.2.30", ""},
	{IP, "Refused 99.1.2.0", ""},
	{IP, "Refused 127.1.2.3", ""},
	{IP, "Refused 99.256.2.3", ""},
	{IP, "Refused 99.255.2.255", "99.255.2.255"},
	{IP, "Refused 99.01.2.3", ""},
	{IP, "Refused 99.1.2.3.", "99.1.2.3"},
	{IP, "Refused 99.1.2.3.4", ""},
	{IP, "99.1.2", ""},
	{IP, "version 99.1.2.3", ""},
	{IP, "server of version 99.1.2.3", "99.1.2.3"},
	{IP, "§99.1.2.3", ""},
	{IP, "root@5.4.3.2", "5.4.3.2"},
	{IP, "http://5.4.3.2", "5.4.3.2"},
	{IP, "to 5.4.3.2:80", "5.4.3.2"},
	{IP, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6"},
	{IP, "2001:db8:1:2:3:4:5:6:7", ""},
	{IP, "2001:db8:1:2:3:4:5", ""},
	{IP, "2001:db8::1:2::3", ""},
	{IP, "20011:db8::1", ""},
	{IP, "2001:db8::12345", ""},
	{IP, "2001:db8::1g", ""},
	{IP, "2001:db8::1_", ""},
	{IP, "2001:db8::1.2", ""},
	{IP, "2001:db8::1.", "2001:db8::1"},
	{IP, "1:2:3:4:5:6:7:8", ""},
	{IP, "ab::cd", ""},
	{IP, "abc::def", ""},
	{IP, "2001:db8::", "2001:db8::"},
	{IP, "fe80::1", "fe80::1"},
	{IP, "ip:2001:db8::1", "2001:db8::1"},
	{IP, "node:2001:db8::1", "2001:db8::1"},
	{IP, "::2001:db8:1:1", ""},
	{IP, "x.2001:db8::1", ""},
	{IP, "é2001:db8::1", "2001:db8::1"},
	{Email, strings.Repeat("a", 64) + "@b.io", strings.Repeat("a", 64) + "@b.io"},
	{Email, "a@" + strings.Repeat("b.", 125) + "info!", "a@" + strings.Repeat("b.", 125) + "info"},
	{Email, "a@" + strings.Repeat("b.", 126) + "info!", "a@" + strings.Repeat("b.", 126) + "inf"},
	{Email, "a@b.c", ""},
	{Email, "a@b.io", "a@b.io"},
	{Email, "a@b..io", ""},
	{Email, "a@-b.io", ""},
	{Email, "a.@b.io", ""},
	{Email, ".a@b.io", "a@b.io"},
	{Email, "a@b.io-x", "a@b.io"},
	{Email, "a@b.co.x1", "a@b.co"},
	{Email, "a@" + "b." + strings.Repeat("c", 24), "a@b." + strings.Repeat("c", 24)},
	{Email, "a@" + "b." + strings.Repeat("c", 25), ""},
	{Email, "a@2x.io", ""},
	{Email, "a@12x.io", "a@12x.io"},
	{Email, "git@b.io:c", ""},
	{IP, "a:2001:db8:1:2:3:4:5:6", ""},
	{Email, "§a@b.io", "a@b.io"},
	{Email, "éa@b.io", "éa@b.io"},
	{Email, "ԁa@b.io", "ԁa@b.io"},
	{Email, "աa@b.io", "a@b.io"},
	{Email, "git@b.io", "git@b.io"},
	{Email, `a\na@b.io`, "a@b.io"},
	{Email, "__a@b.io", "__a@b.io"},
	{Email, "a@b.png", ""},
	{Email, "a@b.PNG", ""},
	{IBAN, "XX89370400440532013000", ""},
	{IBAN, "DE8937040044053201300", ""},
	{IBAN, "DE89 37040044 0532013000", ""},
	{IBAN, "DE89 3704-0044 0532 0130 00", ""},
	{IBAN, "DEX9370400440532013000", ""},
	{IBAN, "éDE89370400440532013000", "DE89370400440532013000"},
	{SSN, "001-01-0001", "001-01-0001"},
	{SSN, "899-99-9999", "899-99-9999"},
	{SSN, "900-01-0001", ""},
	{SSN, "665-01-0001", "665-01-0001"},
	{SSN, "ssn: 078.05.1120", "078.05.1120"},
	{SSN, "078.05.1120", ""},
	{SSN, "078-05-1120-", "078-05-1120"},
	{SSN, "078-05-1120-1", ""},
	{SSN, "a 078-05-1120_", ""},
	{Card, "card 4111.1111.1111.1111", "4111.1111.1111.1111"},
	{Card, "4111.1111.1111.1111", ""},
	{Card, "9 4111 1111 1111 1111", ""},
	{Card, "a9 4111 1111 1111 1111", ""},
	{Card, "x 4111 1111 1111 1111 1234", ""},
	{Card, "card 9 4111 1111 1111 1111", "4111 1111 1111 1111"},
	{Card, "4111 1111 1111 1111 12345", "4111 1111 1111 1111"},
	{Card, "4111 1111 1111 1111 visa", "4111 1111 1111 1111"},
	{Card, "4111111111111111 visa", "4111111111111111"},
	{Card, "4111111111111111\nvisa", ""},
	{Card, "visa\n4111111111111111", "4111111111111111"},
	{Card, "visa:\r\n  4111111111111111", "4111111111111111"},
	{Card, "the visa of a friend that he lost\n4111111111111111", ""},
	{Card, "visa of thirty bytes and no more\n4111111111111111", ""},
	{Card, "visa of thirty bytes, not more\n4111111111111111", "4111111111111111"},
	{Card, "visa is what I have had for the last fifteen years: 4111111111111111", ""},
	{Card, "visas 4111111111111111", ""},
	{Card, "myVisa 4111111111111111", "4111111111111111"},
	{Card, "my_visa 4111111111111111", "4111111111111111"},
	{Card, "avisa 4111111111111111", ""},
	{Card, "card 6304000000000000000", "6304000000000000000"},
	{Card, "card 501800000009", "501800000009"},
	{Card, "card 50180000000", ""},
	{Password, "https://a:b3!x@c.io", "b3!x"},
	{Password, "https://a:bbb@c.io", ""},
	{Password, "https://a:@c.io", ""},
	{Password, "https://a:PASSWORD@c.io", ""},
	{Password, "https:/a:b3!x@c.io", ""},
	{Password, "https://a:b3/x@c.io", ""},
	{JWT, jwtHead + "." + strings.Repeat("a", 10) + "." + strings.Repeat("b", 20), jwtHead + "." + strings.Repeat("a", 10) + "." + strings.Repeat("b", 20)},
	{JWT, jwtHead + "." + strings.Repeat("a", 9) + "." + strings.Repeat("b", 20), ""},
	{JWT, jwtHead + "." + strings.Repeat("a", 10) + "." + strings.Repeat("b", 19), ""},
	{JWT, jwtHead + "." + strings.Repeat("a", 10) + ". x", jwtHead + "." + strings.Repeat("a", 10) + "."},
	{JWT, jwtHead + ".a.b.c." + strings.Repeat("d", 7), ""},
	{JWT, jwtHead + ".a.b.ccccccc.dddddddd", jwtHead + ".a.b.ccccccc.dddddddd"},
	{JWT, jwtHead + ".a.b.c", ""},
	{JWT, "a" + jwtText, ""},
	{JWT, jwtLong + ".aaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbb", jwtLong + ".aaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbb"},
	{PrivateKey, "-----BEGIN PRIVATE KEY-----\n" + pemLine[:16], "-----BEGIN PRIVATE KEY-----\n" + pemLine[:16]},
	{PrivateKey, "-----BEGIN PRIVATE KEY-----\n" + pemLine[:15], ""},
	{PrivateKey, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + pemLine + "\n\r\n\t !", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + pemLine},
	{PrivateKey, "-----BEGIN PRIVATE KEY-----\n" + pemLine + "\nAb3=\n", "-----BEGIN PRIVATE KEY-----\n" + pemLine + "\nAb3="},
	{Injection, "ignore previous instructions", "ignore previous instructions"},
	{Injection, `ignore\nprevious instructions`, `ignore\nprevious instructions`},
	{Injection, "signore previous instructions", ""},
	{Injection, "ignore the the the the the previous rules", "ignore the the the the the previous rules"},
	{Injection, "ignore the the the the the the previous rules", ""},
	{Injection, "ignore. previous rules", ""},
	{Injection, "ignore    previous rules", ""},
	{Injection, "ignore previous rulesets", ""},
}

const jwtHead = "eyJhbGciOiJIUzI1NiJ9"

// jwtLong is a header with a certificate in it.
var jwtLong = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","x5c":["` + strings.Repeat("MIIB", 100) + `"]}`))

func TestLimits(t *testing.T) {
	var s Scanner
	for _, c := range limits {
		d := alone(c.kind)
		if c.want == "" {
			if found := d.Find(&s, []byte(c.text)); len(found) > 0 {
				t.Errorf("in %q: %v, want nothing", c.text, found)
			}
		} else {
			requireOne(t, d, &s, c.kind, c.text, c.want)
		}
		for _, sizes := range [][]byte{{1}, {4}, {7, 2}} {
			checkStream(t, d, c.text, sizes)
		}
	}
}

// A pattern that is only tried near its literals finds what the expression finds in the whole text.
func TestPatternsFindWhatExpressionsFind(t *testing.T) {
	exprs := []string{
		`launch\s+code`, `(?i)key=\w+`, `[xy]{2}\d`, `a.{0,5}z`, `secret:.*`, `(?s)open.*?close`, `\bid\d{2,4}\b`, `(foo|bar)baz`, `é+q`, `(?m)^row \d+$`, `\d+\n\d+`, `ab{3}c`, `(?i)ſk`, `q(uu){1,2}x`, `^x\d`, `\d[a-z]`, `id[ab]{20,40}c`,
	}
	parts := []string{
		"launch", " ", "code", "\n", "key=", "KEY=v1", "xy", "x", "9", "1234", "a", "z", "secret:", "open", "close", "id", "foo", "bar", "baz", "é", "q", "row 12", "abbbc", "ab", "bbc", "SK", "uu", "quux", "quuuux", "é ", "_", "row ", "- ", strings.Repeat("ab", 12), "c",
	}
	var all []*Detector
	for _, expr := range exprs {
		d, err := New(Config{Patterns: []string{expr}})
		require.Nil(t, err)
		all = append(all, d)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var s Scanner
	for range 400 {
		var b strings.Builder
		for range r.IntN(60) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		for i, expr := range exprs {
			var want, got [][]int
			want = append(want, regexp.MustCompile(expr).FindAllStringIndex(b.String(), -1)...)
			for _, f := range all[i].Find(&s, []byte(b.String())) {
				got = append(got, []int{f.From, f.To})
			}
			require.Equal(t, want, got, "%s in %q", expr, b.String())
		}
	}
}

// What there is nothing to fold in is not copied.
func TestNothingToFold(t *testing.T) {
	var f fold
	text := []byte("é 中文 plain")
	require.Same(t, &text[0], &f.of(text)[0])
	text = []byte("a\u00a0b")
	require.NotSame(t, &text[0], &f.of(text)[0])
}

// A literal is found by what is rare in it.
func TestAnchors(t *testing.T) {
	for text, want := range map[string]byte{"AKIA": 'K', "secret_access_key": 'k', "ignore": 'g', "bypass": 'y', "eyJ": 'J', "x": 'x', "et": 't', "1234z": 'z', "a\nb": 'b'} {
		require.Equal(t, string(want), string(text[anchorOf(text)]), text)
	}
}
