package llm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// prose is what people send: words, quotation marks, line breaks, some code, a few characters beyond ASCII.
const prose = "You are a careful assistant. Answer \"yes\" or \"no\" first, then explain in at most three sentences.\n" +
	"The report says that throughput fell from 1,250 to 830 requests per second after the upgrade — why?\n\n" +
	"```go\nfor i := range items {\n\tif items[i] == nil {\n\t\treturn fmt.Errorf(\"item %d is missing\", i)\n\t}\n}\n```\n" +
	"Paragraphs of plain text follow, as in most prompts that retrieval puts together: the longer a prompt, the more of it " +
	"is copied from documents, and documents consist of long lines in which nothing needs to be escaped at all.\n"

// chatBody is a chat completion request of about the given size.
func chatBody(size int) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	for n := 0; n < size-300; n += len(prose) + 60 {
		messages = append(messages, message{[]string{"user", "assistant"}[len(messages)%2], prose})
	}
	b, err := json.Marshal(struct {
		Model     string    `json:"model"`
		Messages  []message `json:"messages"`
		MaxTokens int       `json:"max_tokens"`
		Stream    bool      `json:"stream"`
	}{"meta-llama/Llama-3.1-8B-Instruct", messages, 512, true})
	if err != nil {
		panic(err)
	}
	return b
}

// streamAnswer is a chat completion of n events and one with the usage, as vLLM streams it.
func streamAnswer(n int) []byte {
	const head = `data: {"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1767225600,"model":"meta-llama/Llama-3.1-8B-Instruct",`
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, head+`"choices":[{"index":0,"delta":{"content":" word%d"},"logprobs":null,"finish_reason":null}]}`+"\n\n", i)
	}
	fmt.Fprintf(&b, head+`"choices":[],"usage":{"prompt_tokens":12,"total_tokens":%d,"completion_tokens":%d}}`+"\n\n", n+12, n)
	b.WriteString("data: [DONE]\n\n")
	return b.Bytes()
}

func BenchmarkRequest(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		body := chatBody(size)
		prompt := strings.Count(string(body), `"content"`) * len(prose)
		for _, want := range []Want{{}, {Prompt: true}, {PrefixBlocks: 1 << 20}} {
			b.Run(fmt.Sprintf("chat%dK/prompt=%v/prefix=%v", size>>10, want.Prompt, want.PrefixBlocks > 0), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				r := new(RequestScanner)
				for b.Loop() {
					r.Reset(Chat, want, jsonscan.Limits{})
					if err := r.Feed(body); err != nil {
						b.Fatal(err)
					}
					if err := r.End(); err != nil {
						b.Fatal(err)
					}
					if q := r.Request(); q.Model != "meta-llama/Llama-3.1-8B-Instruct" || q.PromptBytes != prompt || q.MaxTokens != 512 {
						b.Fatal(q.Model, q.PromptBytes, q.MaxTokens)
					}
				}
			})
		}
	}
}

// BenchmarkRequestTools reads a chat with twenty tools, as agents send it.
func BenchmarkRequestTools(b *testing.B) {
	const tool = `{"type":"function","function":{"name":"search","description":"Finds what stands in the files of the project.","parameters":` +
		`{"type":"object","properties":{"query":{"type":"string","description":"what to find"},"limit":{"type":"integer","minimum":1}},"required":["query"]}}}`
	body := chatBody(4 << 10)
	body = append(body[:len(body)-1], `,"tools":[`+strings.Repeat(tool+",", 19)+tool+`]}`...)
	for _, want := range []Want{{}, {Prompt: true}, {PrefixBlocks: 1 << 20}} {
		b.Run(fmt.Sprintf("prompt=%v/prefix=%v", want.Prompt, want.PrefixBlocks > 0), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			r := new(RequestScanner)
			for b.Loop() {
				r.Reset(Chat, want, jsonscan.Limits{})
				if r.Feed(body) != nil || r.End() != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkStream reads the usage of a streamed answer, without and with another name for the model. One operation is one
// event.
func BenchmarkStream(b *testing.B) {
	const events = 1000
	stream := streamAnswer(events)
	var chunks [][]byte
	for rest := stream; len(rest) > 0; {
		n := bytes.Index(rest, []byte("\n\n")) + 2
		chunks = append(chunks, rest[:n])
		rest = rest[n:]
	}
	for _, model := range []string{"", "llama"} {
		b.Run("restore="+model, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(stream) / len(chunks)))
			r := new(ResponseScanner)
			r.Reset(Chat, true, model)
			n, replaced := 0, 0
			for b.Loop() {
				if k, _ := r.Feed(chunks[n]); k > 0 {
					replaced++
				}
				if n++; n == len(chunks) {
					r.End()
					if u := r.Usage(); u.Completion != events || u.Prompt != 12 || r.Broken() != nil {
						b.Fatal(u, r.Broken())
					}
					if model != "" && replaced != events+1 {
						b.Fatal(replaced)
					}
					r.Reset(Chat, true, model)
					n, replaced = 0, 0
				}
			}
		})
	}
}

// BenchmarkAnswer reads answers in one piece: a text, and a vector.
func BenchmarkAnswer(b *testing.B) {
	text, err := json.Marshal(strings.Repeat(prose, 6))
	if err != nil {
		b.Fatal(err)
	}
	vector := strings.Repeat("-0.012345678,", 1535) + "1"
	for _, c := range []struct {
		name string
		api  API
		body string
	}{
		{"chat4K", Chat, `{"id":"chatcmpl-1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":` + string(text) + `}}],"usage":{"prompt_tokens":12,"completion_tokens":8}}`},
		{"vector", Embeddings, `{"object":"list","data":[{"index":0,"embedding":[` + vector + `]}],"model":"m","usage":{"prompt_tokens":12,"total_tokens":12}}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.body)))
			body := []byte(c.body)
			r := new(ResponseScanner)
			for b.Loop() {
				r.Reset(c.api, false, "llama")
				r.Feed(body)
				r.End()
				if u := r.Usage(); u.Prompt != 12 || r.Broken() != nil {
					b.Fatal(u, r.Broken())
				}
			}
		})
	}
}
