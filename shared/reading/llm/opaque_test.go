package llm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOpaque: what stands in the place of an image, a file or a signature is no text only if it looks like one, however it is cut.
func TestOpaque(t *testing.T) {
	const png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
	long := strings.Repeat("QUJD", 50)
	part := func(of string) string {
		return `{"messages":[{"role":"user","content":[{"type":"text","text":"x"},` + of + `]}]}`
	}
	image := func(url string) string { return part(`{"type":"image_url","image_url":{"url":"` + url + `"}}`) }
	for body, want := range map[string]struct {
		prompt string
		unread bool
	}{
		image(png): {"x", false},
		image("https://example.com/a.png?X-Amz-Credential=AKIA&x=jane@example.com"): {"x", false},
		image("gs://b/a.png"):          {"x", false},
		image("UEsDBA=="):              {"x", false},
		image(""):                      {"x", false},
		image(long):                    {"x", false},
		image(long + `\n` + long):      {"x", false},
		image("mail jane@example.com"): {"x\nmail jane@example.com", false},
		image("jane@example.com"):      {"x\njane@example.com", false},
		image(`mail j\u0061ne@example.com, and others`):                             {"x\nmail jane@example.com, and others", false},
		image("mailto:jane@example.com"):                                            {"x\nmailto:jane@example.com", false},
		image("data:text/plain,jane@example.com"):                                   {"x\ndata:text/plain,jane@example.com", false},
		image("data:application/octet-stream,jane@example.com"):                     {"x", true},
		image("data:jane@example.com,x"):                                            {"x\ndata:jane@example.com,x", false},
		image(png + " mail jane@example.com"):                                       {"x", true},
		image(long + " mail"):                                                       {"x", true},
		image("https://example.com/x mail jane"):                                    {"x\nhttps://example.com/x mail jane", false},
		image("https://example.com/a-longer-path mail"):                             {"x", true},
		part(`{"type":"file","file":"jane@example.com"}`):                           {"x\njane@example.com", false},
		part(`{"type":"file","file":{"file_data":"` + png + `","filename":"a b"}}`): {"x\na b", false},
		part(`{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"` + long + `"}}`):         {"x", false},
		part(`{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"mail jane@example"}}`):    {"x\nmail jane@example", false},
		`{"messages":[{"role":"user","signature":"jane@example.com","content":"x"}]}`:                                       {"jane@example.com\nx", false},
		`{"messages":[{"role":"user","file":"jane@example.com","content":"x"}]}`:                                            {"jane@example.com\nx", false},
		`{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"c2lnbmVkc2lnbmVk"}]}]}`: {"x", false},
		`{"messages":[{"role":"user","encrypted_content":"a secret that is none","content":"x"}]}`:                          {"a secret that is none\nx", false},
	} {
		for n := 1; n <= len(body); n += 1 + n/3 {
			scan := &RequestScanner{}
			r := withStrings(t, scan, Chat, body, n)
			require.Equal(t, want.prompt, string(r.Prompt), "%s in pieces of %d", body, n)
			require.Equal(t, want.unread, r.Unread, body)
			for _, s := range r.Strings {
				at := r.Source(s.From, s.To)
				if said := body[at.Start:at.End]; !strings.Contains(said, `\`) {
					require.Equal(t, string(r.Prompt[s.From:s.To]), said)
				}
			}
		}
	}
}
