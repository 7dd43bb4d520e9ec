package jsonscan

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// counter is the cheapest handler that still proves that the scan was complete.
type counter struct{ tokens, text int }

func (c *counter) Open(bool)         { c.tokens++ }
func (c *counter) Close(bool)        { c.tokens++ }
func (c *counter) Key([]byte)        { c.tokens++ }
func (c *counter) Text(piece []byte) { c.text += len(piece) }
func (c *counter) TextEnd()          { c.tokens++ }
func (c *counter) Scalar([]byte)     { c.tokens++ }

// prose is what people send: words, quotation marks, line breaks, some code, a few characters beyond ASCII.
const prose = "You are a careful assistant. Answer \"yes\" or \"no\" first, then explain in at most three sentences.\n" +
	"The report says that throughput fell from 1,250 to 830 requests per second after the upgrade — why?\n\n" +
	"```go\nfor i := range items {\n\tif items[i] == nil {\n\t\treturn fmt.Errorf(\"item %d is missing\", i)\n\t}\n}\n```\n" +
	"Paragraphs of plain text follow, as in most prompts that retrieval puts together: the longer a prompt, the more of it " +
	"is copied from documents, and documents consist of long lines in which nothing needs to be escaped at all. " +
	"Café tables, 20 °C, and so on.\n"

// chat is a chat completion request of about the given size.
func chat(size int) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body := struct {
		Model       string    `json:"model"`
		Messages    []message `json:"messages"`
		Temperature float64   `json:"temperature"`
		MaxTokens   int       `json:"max_tokens"`
		Stream      bool      `json:"stream"`
	}{"meta-llama/Llama-3.1-8B-Instruct", nil, 0.7, 512, true}
	for left := size - 200; left > 0; {
		n := min(left, len(prose)*(1+len(body.Messages)%4))
		text := strings.ToValidUTF8(strings.Repeat(prose, 4)[:n], "")
		body.Messages = append(body.Messages, message{[]string{"system", "user", "assistant"}[len(body.Messages)%3], text})
		left -= n + 40
	}
	return marshal(body)
}

func marshal(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return []byte(b.String())
}

// escaped writes everything beyond ASCII as \u escapes, as Python's json does by default.
func escaped(doc []byte) []byte {
	var b strings.Builder
	for _, r := range string(doc) {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}

func BenchmarkScan(b *testing.B) {
	japanese := marshal(map[string]string{"content": strings.Repeat("吾輩は猫である。名前はまだ無い。", 500)})
	image := make([]byte, 6<<20)
	for i := range image {
		image[i] = byte(i * i >> 3)
	}
	tools := marshal(map[string]any{"tools": []any{strings.Repeat("x", 8)}, "schema": json.RawMessage(
		strings.Repeat(`{"type":"object","properties":{"a":{"type":"string","enum":["x","y"]},"b":`, 20) + "1" + strings.Repeat("}}", 20))})
	ids := make([]int, 8192)
	for i := range ids {
		ids[i] = i * 7919 % 128256
	}
	for _, c := range []struct {
		name string
		doc  []byte
	}{
		{"chat1K", chat(1 << 10)},
		{"chat4K", chat(4 << 10)},
		{"chat64K", chat(64 << 10)},
		{"chat1M", chat(1 << 20)},
		{"modelLast64K", marshal(struct {
			Messages []map[string]string `json:"messages"`
			Model    string              `json:"model"`
		}{[]map[string]string{{"role": "user", "content": strings.Repeat(prose, 90)}}, "llama"})},
		{"image8M", marshal(map[string]string{"url": "data:image/png;base64," + base64.StdEncoding.EncodeToString(image)})},
		{"japanese24K", japanese},
		{"japaneseEscaped48K", escaped(japanese)},
		{"tokenIDs48K", marshal(map[string]any{"input": ids})},
		{"tools", tools},
		{"nested", []byte(strings.Repeat(`[{"a":`, 60) + "1" + strings.Repeat("}]", 60))},
	} {
		want := new(counter)
		if err := scanWith(new(Scanner), want, c.doc, len(c.doc)); err != nil {
			b.Fatal(err)
		}
		for _, chunk := range []int{0, 16 << 10} {
			name, size := c.name, len(c.doc)
			if chunk != 0 {
				if name, size = name+"/chunks16K", chunk; chunk > len(c.doc) {
					continue
				}
			}
			b.Run(name, func(b *testing.B) {
				b.SetBytes(int64(len(c.doc)))
				b.ReportAllocs()
				s, h := new(Scanner), new(counter)
				for b.Loop() {
					*h = counter{}
					if err := scanWith(s, h, c.doc, size); err != nil || *h != *want {
						b.Fatal(err, *h, *want)
					}
				}
			})
		}
	}
}

func scanWith(s *Scanner, h Handler, doc []byte, chunk int) error {
	s.Reset(h, Limits{})
	for i := 0; i < len(doc); i += chunk {
		if err := s.Feed(doc[i:min(i+chunk, len(doc))]); err != nil {
			return err
		}
	}
	return s.End()
}
