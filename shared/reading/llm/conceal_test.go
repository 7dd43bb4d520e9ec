package llm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// concealing returns what goes on of a stream, and the usage that was read.
func concealing(t require.TestingT, model string, chunks ...[]byte) (string, Usage) {
	r := new(ResponseScanner)
	r.Reset(Chat, true, model)
	r.Conceal()
	require.True(t, r.Conceals())
	var out strings.Builder
	for _, c := range chunks {
		c = bytes.Clone(c)
		n, with := r.Feed(c)
		require.True(t, n > 0 || len(with) == 0)
		out.Write(with)
		out.Write(c[n:])
		for i := range c {
			c[i] = 'X'
		}
	}
	r.End()
	out.Write(r.Rest())
	require.Empty(t, r.Rest(), "once")
	return out.String(), r.Usage()
}

// screening does the same by way of Splice.
func screening(t require.TestingT, model string, chunks ...[]byte) string {
	r := new(ResponseScanner)
	r.Reset(Chat, true, model)
	r.Screen()
	r.Conceal()
	var raw, out []byte
	at := int64(0)
	let := func(until int64) {
		k := 0
		for texts := r.Texts(); k < len(texts) && texts[k].Event < until; {
			k++
		}
		out = r.Splice(out, raw[:until-at], at, r.Texts()[:k])
		raw, at = raw[until-at:], until
		r.Drop(k)
	}
	for _, c := range chunks {
		n, with := r.Feed(c)
		require.Zero(t, n)
		require.Empty(t, with)
		raw = append(raw, c...)
		let(r.Boundary())
	}
	r.End()
	let(at + int64(len(raw)))
	return string(out)
}

const usageOnly = `{"id":"c","object":"chat.completion.chunk","created":1,"model":"llama","choices":[],"usage":{"prompt_tokens":12,"total_tokens":14,"completion_tokens":2}}`

// streams are what servers send who were asked for the usage; what stands in guillemets is not for the client.
var concealable = map[string]string{
	"vLLM": `data: {"id":"c","object":"chat.completion.chunk","model":"llama","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}

data: {"id":"c","model":"llama","choices":[{"index":0,"delta":{"content":"\"choices\":[]"},"finish_reason":"stop"}]}

«data: ` + usageOnly + `

»data: [DONE]

`,
	"OpenAI, with null in all others": `data: {"id":"c","model":"llama","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null,"obfuscation":"x"}

«data: {"id":"c","model":"llama","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":0}},"obfuscation":""}

»data: [DONE]

`,
	"Azure, with filter results first": `data: {"choices":[],"model":"llama","prompt_filter_results":[{"prompt_index":0}],"usage":null}

data: {"choices":[{"delta":{"content":"x"}}]}

«data: ` + usageOnly + `

»data: [DONE]

`,
	"CR LF":                "data: {\"choices\":[{}]}\r\n\r\n«data: " + usageOnly + "\r\n\r\n»data: [DONE]\r\n\r\n",
	"CR":                   "data: {\"choices\":[{}]}\r\r«data: " + usageOnly + "\r\r»data: [DONE]\r\r",
	"a line feed after CR": "data: {\"choices\":[{}]}\n\n«data: " + usageOnly + "\r\r\n»data: [DONE]\n\n",
	"comments between":     ": ping\n\ndata: {\"choices\":[{}]}\n\n: ping\n\n«data: " + usageOnly + "\n\n»: ping\n\ndata: [DONE]\n\n: bye",
	"other fields":         "event: x\nid: 1\ndata: {\"choices\":[{}]}\n\n«event: chunk\nid: 2\ndata: " + usageOnly + "\nretry: 3\n\n»data: [DONE]\n\n",
	"a byte order mark":    "\xef\xbb\xbfdata: {\"choices\":[{}]}\n\n«data: " + usageOnly + "\n\n»data: [DONE]\n\n",
	"no space":             "data:{\"choices\":[{}]}\n\n«data:" + usageOnly + "\n\n»data:[DONE]\n\n",
	"several lines":        "«data: {\"choices\":\ndata: [],\ndata: \"usage\":{\"prompt_tokens\":12,\ndata: \"completion_tokens\":2}}\n\n»data: [DONE]\n\n",
	"usage first":          "«data: {\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2},\"choices\" : [ ] }\n\n»data: [DONE]\n\n",
	"nothing else":         "«data: " + usageOnly + "\n\n»",
	"twice":                "«data: " + usageOnly + "\n\ndata: " + usageOnly + "\n\n»data: [DONE]\n\n",
	"cut, but complete":    "data: {\"choices\":[{}]}\n\n«data: " + usageOnly + "»",
	"no empty line":        "data: {\"choices\":[{}]}\n\n«data: " + usageOnly + "\n»",

	// These say more, or it is not what was asked for.
	"usage with the last choice": "data: {\"model\":\"llama\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
	"in all events":              "data: {\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2},\"choices\":[{\"delta\":{}}]}\n\n«data: " + usageOnly + "\n\n»",
	"choices twice":              "data: {\"choices\":[{}],\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\n",
	"choices twice, then odd":    "data: {\"choices\":[],\"choices\":null,\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: {\"choices\":[],\"choices\":{},\"usage\":{\"prompt_tokens\":12}}\n\n",
	"odd choices":                "data: {\"choices\":[1],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: {\"choices\":[\"x\"],\"usage\":{\"prompt_tokens\":12}}\n\n",
	"null, text, object":         "data: {\"choices\":null,\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: {\"choices\":\"\",\"usage\":{\"prompt_tokens\":12}}\n\ndata: {\"choices\":{},\"usage\":{\"prompt_tokens\":12}}\n\n",
	"no choices":                 "data: {\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: {\"x\":{\"choices\":[]},\"usage\":{\"prompt_tokens\":12}}\n\n",
	"an error":                   "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2},\"error\":{\"message\":\"x\"}}\n\nevent: error\ndata: {\"error\":{}}\n\n",
	"lists in a choice":          "data: {\"choices\":[[],{}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\n",
	"no JSON":                    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}\n\ndata: oops\n\ndata: [DO\n\n",
	"no objects":                 "data: 7\n\ndata: \"choices\"\n\ndata: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: [[]]\n\ndata: null\n\n",
	"after the end":              "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: [DONE]\n\ndata: {\"choices\":[{}]}\n\n",
	"cut within":                 "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\ndata: {\"model\":\"llama\",\"choices\":[],\"usage\":{\"prompt_tok",
	"not even begun":             "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2}}\n\n: com",
	"empty":                      "",
}

var marks = strings.NewReplacer("«", "", "»", "")

// seen returns the stream as a server sends it, and as the client gets it.
func seen(marked string) (stream []byte, client string) {
	client = marked
	for {
		before, rest, found := strings.Cut(client, "«")
		if !found {
			return []byte(marks.Replace(marked)), client
		}
		_, after, _ := strings.Cut(rest, "»")
		client = before + after
	}
}

func TestConceal(t *testing.T) {
	for name, marked := range concealable {
		t.Run(name, func(t *testing.T) {
			stream, client := seen(marked)
			check := func(chunks ...[]byte) {
				got, usage := concealing(t, "", chunks...)
				require.Equal(t, client, got)
				if len(stream) > 0 {
					require.Equal(t, 12, usage.Prompt)
					require.Equal(t, 2, usage.Completion)
				}
				got, _ = concealing(t, "public", chunks...)
				require.Equal(t, strings.ReplaceAll(client, `"llama"`, `"public"`), got, "and the model's name is restored")
			}
			for i := range stream {
				check(stream[:i], stream[i:])
				check(stream[:i], nil, stream[i:min(i+1, len(stream))], stream[min(i+1, len(stream)):])
			}
			check(stream)
			check(singles(stream)...)
		})
	}
}

// Screened responses lose the same, whatever else is in the way.
func TestConcealWhereTheResponseIsScreened(t *testing.T) {
	for name, marked := range concealable {
		if name == "no JSON" {
			continue // a response that cannot be read is not screened
		}
		t.Run(name, func(t *testing.T) {
			stream, client := seen(marked)
			for i := range stream {
				require.Equal(t, client, screening(t, "", stream[:i], stream[i:]), "cut at %d", i)
			}
			require.Equal(t, client, screening(t, "", singles(stream)...))
			require.Equal(t, strings.ReplaceAll(client, `"llama"`, `"public"`), screening(t, "public", singles(stream)...))
		})
	}
}

func singles(b []byte) (all [][]byte) {
	for i := range b {
		all = append(all, b[i:i+1])
	}
	return all
}

// Nothing waits longer than it has to: an event that is complete goes on, and one that is cut does as soon as it has a choice.
func TestConcealHoldsNothingWithoutNeed(t *testing.T) {
	for _, c := range []struct{ chunk, out string }{
		{"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", ""},
		{"data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"conte", ""},
		{"data: {\"id\":\"c\",\"choices\":[ {", ""},
		{"data: {\"choices\":[1", "data: {\"choices\":[1"}, // a number has no end yet
		{"data: {\"error\":", ""},
		{": ping\n\n", ""},
		{"data: [", ""},
		{"data: [DONE]\n", ""},
		{"data: [DONE]\n\nanything", ""},
		{"data: {\"choices\":[{}]}\n\ndata: {\"id\":\"c\",\"choices\":[", "data: {\"id\":\"c\",\"choices\":["},
		{"da", "da"},
		{"data: {\"x\":\"" + strings.Repeat("x", maxHeld) + `"`, ""},
	} {
		var r ResponseScanner
		r.Reset(Chat, true, "")
		r.Conceal()
		n, with := r.Feed([]byte(c.chunk))
		require.Equal(t, strings.TrimSuffix(c.chunk, c.out), string(with)+c.chunk[n:], c.chunk)
		require.Equal(t, c.out, string(r.Rest()))
	}
	var r ResponseScanner
	r.Reset(Chat, true, "")
	r.Conceal()
	r.Feed([]byte("data: {"))
	n, with := r.Feed([]byte(strings.Repeat(" ", maxHeld)))
	require.Equal(t, maxHeld, n)
	require.Len(t, with, maxHeld+len("data: {"), "no event is held that is too long to be a usage")
	n, _ = r.Feed([]byte("\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"))
	require.Zero(t, n)
}

// It is for streams alone, and only where it was said.
func TestConcealIsForStreams(t *testing.T) {
	var r ResponseScanner
	for range 2 {
		r.Reset(Chat, true, "")
		r.Feed([]byte("data: " + usageOnly))
		require.Empty(t, r.Rest())
		r.Reset(Chat, false, "")
		r.Conceal()
		require.False(t, r.Conceals())
		n, _ := r.Feed([]byte(usageOnly))
		require.Zero(t, n)
		r.Reset(Chat, true, "")
		r.Conceal()
		r.Feed([]byte("data: " + usageOnly)) // and of this nothing is left
	}
}

// However events follow each other and however they are cut, the client gets those that are not for the gateway, byte by byte.
func TestConcealAnyStream(t *testing.T) {
	ends := []string{"\n", "\r\n", "\r"}
	rapid.Check(t, func(t *rapid.T) {
		var stream, client strings.Builder
		end := rapid.SampledFrom(ends).Draw(t, "end")
		for range rapid.IntRange(0, 6).Draw(t, "events") {
			data := rapid.SampledFrom([]string{
				usageOnly, usageOnly, `{"model":"llama","choices":[{"delta":{"content":"x"}}]}`, `{"choices":[],"usage":null}`, `{"model":"llama","error":"x"}`,
				`{"choices":[{"text":"y"}],"model":"llama","usage":{"prompt_tokens":1}}`, "",
			}).Draw(t, "data")
			event := "data: " + data + end + end
			switch rapid.IntRange(0, 3).Draw(t, "with") {
			case 0:
				event = "event: e" + end + event
			case 1:
				event = "data: " + data + end + ": c" + end + end
			}
			if data == "" {
				event = ": comment" + end + end
			}
			stream.WriteString(event)
			if data != usageOnly {
				client.WriteString(event)
			}
		}
		body := []byte(stream.String())
		var chunks [][]byte
		for rest := body; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		got, _ := concealing(t, "", chunks...)
		require.Equal(t, client.String(), got)
		require.Equal(t, client.String(), screening(t, "", chunks...))
		got, _ = concealing(t, "public", chunks...)
		require.Equal(t, strings.ReplaceAll(client.String(), `"llama"`, `"public"`), got)
	})
}

func FuzzConceal(f *testing.F) {
	for _, marked := range concealable {
		stream, _ := seen(marked)
		f.Add(stream, uint(len(stream)/2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, at uint) {
		i := int(at % uint(len(stream)+1))
		want, usage := concealing(t, "", stream)
		got, again := concealing(t, "", stream[:i], stream[i:])
		require.Equal(t, want, got)
		require.Equal(t, usage, again)
		require.LessOrEqual(t, len(got), len(stream))
		got, _ = concealing(t, "", []byte(want))
		require.Equal(t, want, got, "a second time nothing is left to leave out")
	})
}

func TestConcealAllocatesNothing(t *testing.T) {
	stream := bytes.Replace(streamAnswer(50), []byte("data: [DONE]"), []byte("data: "+usageOnly+"\n\ndata: [DONE]"), 1)
	require.Contains(t, string(stream), usageOnly)
	r := new(ResponseScanner)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for _, size := range []int{len(stream), 100} {
			r.Reset(Chat, true, "llama")
			r.Conceal()
			for i := 0; i < len(stream); i += size {
				r.Feed(stream[i:min(i+size, len(stream))])
			}
			r.End()
			r.Rest()
			if !r.Usage().Known {
				panic("the usage was not read")
			}
		}
	}))
}
