package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample is a finding of a kind as it is mostly written, and a text in which it stands at %s.
type sample struct {
	kind Kind
	in   string
	text string
}

// samples have one of each kind, and of each way to write it that is a rule of its own.
var samples = []sample{
	{Email, "%s", "jane.doe@example.com"},
	{Card, "%s", "4111 1111 1111 1111"},
	{Card, "%s", "4111-1111-1111-1111"},
	{Card, "%s", "3782 822463 10005"},
	{Card, "card %s", "4111111111111111"},
	{IBAN, "%s", "DE89370400440532013000"},
	{IBAN, "%s", "DE89 3704 0044 0532 0130 00"},
	{IBAN, "%s", "GB82 WEST 1234 5698 7654 32"},
	{SSN, "%s", "078-05-1120"},
	{SSN, "ssn %s", "078051120"},
	{Phone, "%s", "212-555-1234"},
	{Phone, "%s", "(212) 555-1234"},
	{Phone, "%s", "+1 212 555 1234"},
	{Phone, "%s", "+442079460123"},
	{Phone, "%s", "+49 30 12345678"},
	{Phone, "phone %s", "030 12345678"},
	{IP, "%s", "203.0.113.9"},
	{IP, "%s", "2001:db8:85a3::8a2e:370:7334"},
	{AWSKey, "%s", "AKIAIOSFODNN7EXAMPLE"},
	{GitHubToken, "%s", ghToken},
	{SlackToken, "%s", "xoxb-" + "123456789012-abcdefGHIJKL"},
	{OpenAIKey, "%s", "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0"},
	{JWT, "%s", jwtText},
	{PrivateKey, "%s", pemText},
}

func (c *sample) with(text string) string { return fmt.Sprintf(c.in, text) }

// requireOne requires that one finding is in a text, and nothing else.
func requireOne(t *testing.T, d *Detector, s *Scanner, kind Kind, text, want string) {
	t.Helper()
	found := d.Find(s, []byte(text))
	if len(found) != 1 || found[0].Kind != kind || text[found[0].From:found[0].To] != want {
		t.Errorf("in %q: %v, want %s %q", text, found, kind, want)
	}
}

// digitScripts have the zeros of scripts: their other digits follow.
var digitScripts = []rune{'٠', '۰', '०', '০', '๐', '០', '０', '𝟎', '߀'}

func TestDigitsOfOtherScripts(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		if !slices.Contains([]Kind{Card, IBAN, SSN, Phone, IP, AWSKey, GitHubToken}, c.kind) {
			continue
		}
		for _, zero := range digitScripts {
			written := strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return zero + r - '0'
				}
				return r
			}, c.text)
			requireOne(t, d, &s, c.kind, c.with(written), written)
		}
	}
}

// What looks like a space or a hyphen is one.
func TestKindsOfSeparators(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		for _, r := range "\u00a0\u2002\u2003\u2005\u2007\u2009\u200a\u202f\u205f\u3000" {
			if c.kind != PrivateKey && strings.Contains(c.text, " ") {
				written := strings.ReplaceAll(c.text, " ", string(r))
				requireOne(t, d, &s, c.kind, c.with(written), written)
			}
		}
		for _, r := range "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d" {
			if slices.Contains([]Kind{Card, SSN, Phone}, c.kind) && strings.Contains(c.text, "-") {
				written := strings.ReplaceAll(c.text, "-", string(r))
				requireOne(t, d, &s, c.kind, c.with(written), written)
			}
		}
	}
}

// What is not seen is not there: a soft hyphen that a web page has for its line breaks, a zero-width space, anywhere in a finding.
func TestWhatIsNotSeen(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		for _, r := range []string{"\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff"} {
			for i := 1; i < len(c.text); i += 1 + i/40 {
				written := c.text[:i] + r + c.text[i:]
				requireOne(t, d, &s, c.kind, c.with(written), written)
			}
			requireOne(t, d, &s, c.kind, r+c.with(c.text)+r, c.text)
		}
	}
}

// Full-width forms, as East Asian keyboards write them.
func TestFullWidth(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		if c.kind == PrivateKey {
			continue // it has line feeds
		}
		written := strings.Map(func(r rune) rune {
			if r == ' ' {
				return '\u3000'
			}
			return r - '!' + '！'
		}, c.text)
		requireOne(t, d, &s, c.kind, c.with(written), written)
	}
}

// boundaries are what stands around a finding in prose, code, JSON, Markdown, CSV and URLs.
var boundaries = [][2]string{
	{"", ""},
	{" ", " "},
	{"\n", "\n"},
	{"\t", "\t"},
	{"(", ")"},
	{"[", "]"},
	{"{", "}"},
	{"<", ">"},
	{`"`, `"`},
	{"'", "'"},
	{"`", "`"},
	{"“", "”"},
	{"«", "»"},
	{"„", "“"},
	{"x: ", ","},
	{"x:", ";"},
	{"x=", "&y=1"},
	{"", "."},
	{"", ". Next"},
	{"", "!"},
	{"", "?"},
	{"", ", and"},
	{"", "; and"},
	{"", ": yes"},
	{"", " …"},
	{"", "…"},
	{"– ", " –"},
	{"—", "—"},
	{"**", "**"},
	{"| ", " |"},
	{"|", "|"},
	{",", ","},
	{";", ";"},
	{`"k":"`, `"}`},
	{`\"`, `\"`},
	{"> ", ""},
	{"- ", ""},
	{"# ", ""},
	{"* ", ""},
	{"是", "。"},
	{"「", "」"},
	{"です、", "。"},
	{"номер ", " и"},
	{"رقم ", "،"},
	{"</b>", "<br>"},
	{"é ", " é"},
	{"a, ", " b"},
	{"\r\n", "\r\n"},
	{`\n`, `\n`},
	{`\t`, `\t`},
}

func TestBoundaries(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		for _, b := range boundaries {
			if b[1] == "—" && slices.Contains([]Kind{SlackToken, OpenAIKey, JWT}, c.kind) {
				continue // it is a hyphen, and they may end with one
			}
			requireOne(t, d, &s, c.kind, c.with(b[0]+c.text+b[1]), c.text)
		}
	}
}

// Of something longer it is no finding.
func TestNotWithinSomethingLonger(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		switch c.kind {
		case Email, IP, JWT, PrivateKey, Phone, SlackToken, OpenAIKey:
			continue // see negatives: what may stand beside them depends on the side
		}
		for _, b := range [][2]string{{"1", ""}, {"", "1"}, {"x", ""}, {"", "x"}, {"1", "1"}, {"ab", "ab"}} {
			text := c.with(b[0] + c.text + b[1])
			require.Empty(t, d.Find(&s, []byte(text)), "%q", text)
		}
	}
}

// Several of them are as many findings.
func TestOneAfterTheOther(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, c := range samples {
		for _, between := range []string{", ", "\n", "; ", " and ", "\t", ` | `} {
			text := c.with(c.text) + between + c.with(c.text)
			found := d.Find(&s, []byte(text))
			if len(found) != 2 || text[found[0].From:found[0].To] != c.text || text[found[1].From:found[1].To] != c.text {
				t.Errorf("in %q: %v, want two", text, found)
			}
		}
	}
}

// Wherever it stands in traffic it is found, and nothing else: as a line of its own, and as the value of a member.
func TestFindsInTraffic(t *testing.T) {
	d := everything(t)
	var s Scanner
	for _, lines := range cleanTraffic(t) {
		for i, line := range lines {
			c := samples[i%len(samples)]
			for _, in := range []string{"%s\n", "x %s x\n", "{\"v\":\"%s\"}\n", "- %s,\n"} {
				text := line + "\n" + c.with(fmt.Sprintf(in, c.text)) + line
				requireOne(t, d, &s, c.kind, text, c.text)
			}
			checkStream(t, d, line+"\n"+c.with(c.text)+"\n", []byte{byte(1 + i%9)})
		}
	}
}
