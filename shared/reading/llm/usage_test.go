package llm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// tokens reads the usage of an answer, and whether it lacks one.
func tokens(api API, stream bool, chunks ...[]byte) (u Usage, untold bool) {
	r := new(ResponseScanner)
	r.Reset(api, stream, "")
	for _, c := range chunks {
		r.Feed(c)
	}
	r.End()
	return r.Usage(), r.Untold()
}

// eventsOf writes documents as a stream.
func eventsOf(documents ...string) string {
	return "data: " + strings.Join(documents, "\n\ndata: ") + "\n\ndata: [DONE]\n\n"
}

// usages are what servers tell, as one document or one event after the other.
var usages = []struct {
	name   string
	api    API
	events []string
	want   Usage
	untold bool
}{
	// Messages: vLLM tells the whole prompt first, and at the end what of it was cached.
	{"vLLM", Messages, []string{
		`{"type":"message_start","message":{"usage":{"input_tokens":8834,"output_tokens":0}}}`,
		`{"type":"message_delta","usage":{"input_tokens":18,"cache_read_input_tokens":8831,"cache_creation_input_tokens":0,"output_tokens":426}}`,
	}, Usage{true, 8849, 426, 9275, 8831}, false},
	{"vLLM, all of it at both ends", Messages, []string{
		`{"message":{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"cache_creation_input_tokens":0,"output_tokens":0}}}`,
		`{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"cache_creation_input_tokens":0,"output_tokens":426}}`,
	}, Usage{true, 8849, 426, 9275, 8831}, false},
	{"vLLM, no cache told", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":0}}}`, `{"usage":{"input_tokens":8849,"output_tokens":426}}`,
	}, Usage{true, 8849, 426, 9275, 0}, false},
	{"zeros first", Messages, []string{
		`{"message":{"usage":{"input_tokens":0,"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":0}}}`,
		`{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":426}}`,
	}, Usage{true, 8849, 426, 9275, 8831}, false},
	{"no cache first", Messages, []string{
		`{"message":{"usage":{"input_tokens":8834,"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"cache_creation_input_tokens":null,"output_tokens":426}}`,
	}, Usage{true, 8849, 426, 9275, 8831}, false},
	{"less than was guessed", Messages, []string{
		`{"message":{"usage":{"input_tokens":9000,"output_tokens":8}}}`, `{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":4}}`,
	}, Usage{true, 8849, 4, 8853, 8831}, false},
	{"more than was told first, and what of it was written", Messages, []string{
		`{"message":{"usage":{"input_tokens":100,"cache_creation_input_tokens":50,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":200,"cache_creation_input_tokens":60,"output_tokens":4}}`,
	}, Usage{true, 260, 4, 264, 0}, false},
	{"the same by lifetime", Messages, []string{
		`{"message":{"usage":{"input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":50},"output_tokens":1}}}`,
		`{"usage":{"input_tokens":200,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":40},"output_tokens":4}}`,
	}, Usage{true, 260, 4, 264, 0}, false},
	{"more than was told first, and what of it was read", Messages, []string{
		`{"message":{"usage":{"input_tokens":100,"cache_read_input_tokens":50,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":200,"cache_read_input_tokens":60,"output_tokens":4}}`,
	}, Usage{true, 260, 4, 264, 60}, false},
	{"less in the cache than was guessed", Messages, []string{
		`{"message":{"usage":{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":5,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":60,"cache_read_input_tokens":40,"output_tokens":4}}`,
	}, Usage{true, 100, 4, 104, 40}, false},
	{"Anthropic", Messages, []string{
		`{"message":{"usage":{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":1}}}`,
		`{"usage":{"output_tokens":15}}`,
	}, Usage{true, 1125, 15, 1140, 1000}, false},
	{"Anthropic, with a search on the way", Messages, []string{
		`{"message":{"usage":{"input_tokens":2679,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":3}}}`,
		`{"usage":{"input_tokens":10682,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":510,"server_tool_use":{"web_search_requests":1,"input_tokens":7}}}`,
	}, Usage{true, 10682, 510, 11192, 0}, false},
	{"Anthropic, iterations", Messages, []string{
		`{"usage":{"iterations":[{"input_tokens":9,"output_tokens":9}],"input_tokens":25,"output_tokens":15,"service_tier":"standard","inference_geo":null}}`,
	}, Usage{true, 25, 15, 40, 0}, false},
	{"nulls at the end", Messages, []string{
		`{"message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":null,"cache_read_input_tokens":null,"cache_creation_input_tokens":null,"output_tokens":15}}`,
	}, Usage{true, 30, 15, 45, 5}, false},
	{"zeros at the end", Messages, []string{
		`{"message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}`,
		`{"usage":{"input_tokens":0,"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":15}}`,
	}, Usage{true, 30, 15, 45, 5}, false},
	{"all of it cached", Messages, []string{
		`{"message":{"usage":{"input_tokens":30,"output_tokens":1}}}`, `{"usage":{"input_tokens":0,"cache_read_input_tokens":30,"output_tokens":15}}`,
	}, Usage{true, 30, 15, 45, 30}, false},
	{"the same input at the end, without the cache", Messages, []string{
		`{"message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}`, `{"usage":{"input_tokens":25,"output_tokens":15}}`,
	}, Usage{true, 30, 15, 45, 5}, false},
	{"the whole input at the end, without the cache", Messages, []string{
		`{"message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}`, `{"usage":{"input_tokens":30,"output_tokens":15}}`,
	}, Usage{true, 30, 15, 45, 5}, false},
	{"the cache at the end, without the input", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":1}}}`, `{"usage":{"cache_read_input_tokens":8831,"output_tokens":15}}`,
	}, Usage{true, 8849, 15, 8864, 8831}, false},
	{"the cache grows, without the input", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":1}}}`, `{"usage":{"cache_read_input_tokens":8000,"output_tokens":1}}`,
		`{"usage":{"cache_read_input_tokens":8831,"output_tokens":9}}`,
	}, Usage{true, 8849, 9, 8858, 8831}, false},
	{"the cache one member an event, without the input", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":1}}}`, `{"usage":{"cache_creation_input_tokens":100,"output_tokens":1}}`,
		`{"usage":{"cache_read_input_tokens":8000,"output_tokens":9}}`,
	}, Usage{true, 8849, 9, 8858, 8000}, false},
	{"the cache by lifetime, and then what was read", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":1}}}`, `{"usage":{"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40}}}`,
		`{"usage":{"cache_read_input_tokens":8000}}`, `{"usage":{"cache_read_input_tokens":8000,"output_tokens":9}}`,
	}, Usage{true, 8849, 9, 8858, 8000}, false},
	{"the cache again at the end, without the input", Messages, []string{
		`{"message":{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":1}}}`, `{"usage":{"cache_read_input_tokens":8831,"output_tokens":9}}`,
	}, Usage{true, 8849, 9, 8858, 8831}, false},
	{"less in the cache at the end, without the input", Messages, []string{
		`{"message":{"usage":{"input_tokens":8849,"output_tokens":1}}}`, `{"usage":{"cache_read_input_tokens":8831}}`, `{"usage":{"cache_read_input_tokens":8000,"output_tokens":9}}`,
	}, Usage{true, 8849, 9, 8858, 8000}, false},
	{"written twice in one event", Messages, []string{
		`{"message":{"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":1}},` +
			`"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":1}}`,
	}, Usage{true, 110, 1, 111, 0}, false},
	{"written twice in one event, the second time less", Messages, []string{
		`{"message":{"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":1}},` +
			`"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":0},"output_tokens":1}}`,
	}, Usage{true, 110, 1, 111, 0}, false},
	{"more of the cache at the end, beside the rest", Messages, []string{
		`{"message":{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":1}}}`, `{"usage":{"cache_creation_input_tokens":10,"output_tokens":9}}`,
	}, Usage{true, 8859, 9, 8868, 8831}, false},
	{"the cache at the end, beside the rest", Messages, []string{
		`{"message":{"usage":{"input_tokens":18,"output_tokens":1}}}`, `{"usage":{"cache_read_input_tokens":8831,"output_tokens":15}}`,
	}, Usage{true, 8849, 15, 8864, 8831}, false},
	{"written, by lifetime only", Messages, []string{
		`{"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":60,"ephemeral_1h_input_tokens":40},"output_tokens":5}}`,
	}, Usage{true, 110, 5, 115, 0}, false},
	{"several deltas", Messages, []string{
		`{"message":{"usage":{"input_tokens":8834,"output_tokens":0}}}`, `{"usage":{"output_tokens":3}}`,
		`{"usage":{"input_tokens":18,"cache_read_input_tokens":8816,"output_tokens":400}}`, `{"usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":426}}`,
		`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":18,"outputTokenCount":426}}`,
	}, Usage{true, 8849, 426, 9275, 8831}, false},
	{"names of another API", Messages, []string{
		`{"usage":{"input_tokens":8849,"prompt_tokens":8849,"input_tokens_details":{"cached_tokens":8831},"output_tokens":4}}`,
	}, Usage{true, 8849, 4, 8853, 0}, false},
	{"no prompt", Messages, []string{`{"message":{"usage":{"input_tokens":0,"output_tokens":0}}}`, `{"usage":{"output_tokens":4}}`}, Usage{false, 0, 4, 4, 0}, true},

	// Chat: every chunk may have a usage.
	{"continuous", Chat, []string{
		`{"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0}}`, `{"usage":{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}`,
		`{"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}`,
	}, Usage{true, 5, 2, 7, 4}, false},
	{"two choices, each of its own", Chat, []string{
		`{"usage":{"prompt_tokens":5,"total_tokens":11,"completion_tokens":6}}`, `{"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3}}`,
		`{"choices":[],"usage":{"prompt_tokens":5,"total_tokens":14,"completion_tokens":9}}`,
	}, Usage{true, 5, 9, 14, 0}, false},
	{"zeros after it", Chat, []string{
		`{"usage":{"prompt_tokens":12,"total_tokens":14,"completion_tokens":2}}`, `{"usage":{"prompt_tokens":0,"total_tokens":0,"completion_tokens":0}}`,
	}, Usage{true, 12, 2, 14, 0}, false},
	{"a guess first", Chat, []string{
		`{"usage":{"prompt_tokens":20,"total_tokens":50,"completion_tokens":30}}`, `{"usage":{"prompt_tokens":12,"total_tokens":14,"completion_tokens":2}}`,
	}, Usage{true, 12, 2, 14, 0}, false},
	{"the total of another event", Chat, []string{`{"usage":{"prompt_tokens":12,"total_tokens":12}}`, `{"usage":{"completion_tokens":8}}`}, Usage{true, 12, 8, 20, 0}, false},
	{"only the total grows", Chat, []string{
		`{"usage":{"prompt_tokens":12,"completion_tokens":1,"total_tokens":13}}`, `{"usage":{"prompt_tokens":12,"total_tokens":20}}`,
	}, Usage{true, 12, 8, 20, 0}, false},
	{"prompt and total", Chat, []string{`{"usage":{"prompt_tokens":12,"total_tokens":20}}`}, Usage{true, 12, 8, 20, 0}, false},
	{"completion and total", Chat, []string{`{"usage":{"completion_tokens":8,"total_tokens":20}}`}, Usage{true, 12, 8, 20, 0}, false},
	{"no answer", Chat, []string{`{"usage":{"prompt_tokens":12,"completion_tokens":0,"total_tokens":12}}`}, Usage{true, 12, 0, 12, 0}, false},
	{"an answer of null", Chat, []string{`{"usage":{"prompt_tokens":12,"completion_tokens":null,"total_tokens":12}}`}, Usage{false, 12, 0, 12, 0}, true},
	{"an answer not told, and a total of the prompt", Responses, []string{`{"usage":{"input_tokens":12,"total_tokens":12}}`}, Usage{false, 12, 0, 12, 0}, true},
	{"an answer of null and a larger total", Chat, []string{`{"usage":{"prompt_tokens":12,"completion_tokens":null,"total_tokens":20}}`}, Usage{true, 12, 8, 20, 0}, false},
	{"a total of the prompt, the answer in another event", Chat, []string{
		`{"usage":{"prompt_tokens":12,"total_tokens":12}}`, `{"usage":{"completion_tokens":0}}`,
	}, Usage{true, 12, 0, 12, 0}, false},
	{"Groq", Chat, []string{
		`{"choices":[],"x_groq":{"id":"req_1"}}`, `{"choices":[{"delta":{}}],"x_groq":{"id":"req_1","usage":{"queue_time":0.03,"prompt_tokens":18,"completion_tokens":556,"total_tokens":574,"prompt_tokens_details":{"cached_tokens":16}}}}`,
	}, Usage{true, 18, 556, 574, 16}, false},
	{"Groq, beside the usage", Chat, []string{
		`{"x_groq":{"usage":{"prompt_tokens":18,"completion_tokens":556,"total_tokens":574}},"usage":{"prompt_tokens":18,"completion_tokens":556,"total_tokens":574}}`,
	}, Usage{true, 18, 556, 574, 0}, false},
	{"Groq, too deep", Chat, []string{`{"x_groq":{"x_groq":{"usage":{"prompt_tokens":18,"completion_tokens":556}}}}`}, Usage{}, true},
	{"more in all than in parts", Chat, []string{`{"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":40}}`}, Usage{true, 12, 5, 40, 0}, false},
	{"two names, one of them 0", Chat, []string{
		`{"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"input_tokens":0,"output_tokens":0,"cache_read_input_tokens":3}}`,
	}, Usage{true, 12, 5, 17, 0}, false},
	{"a lone total", Chat, []string{`{"usage":{"total_tokens":62}}`}, Usage{false, 0, 0, 62, 0}, true},
	{"a lone total, and zeros", Chat, []string{`{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":62}}`}, Usage{false, 0, 0, 62, 0}, true},
	{"zeros", Chat, []string{`{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`}, Usage{}, true},
	{"a lone prompt", Chat, []string{`{"usage":{"prompt_tokens":12}}`}, Usage{false, 12, 0, 12, 0}, true},
	{"a lone completion", Completions, []string{`{"usage":{"completion_tokens":12}}`}, Usage{false, 0, 12, 12, 0}, true},
	{"-1 for unknown", Chat, []string{`{"usage":{"prompt_tokens":-1,"completion_tokens":-1,"total_tokens":-1}}`}, Usage{}, true},
	{"null", Chat, []string{`{"usage":null}`}, Usage{}, true},
	{"Responses, cut by its limit", Responses, []string{
		`{"type":"response.created","response":{"usage":null}}`, `{"type":"response.in_progress","response":{"usage":{"input_tokens":36,"output_tokens":0,"total_tokens":36}}}`,
		`{"type":"response.incomplete","response":{"status":"incomplete","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"total_tokens":123}}}`,
	}, Usage{true, 36, 87, 123, 16}, false},
	{"Images", Images, []string{`{"usage":{"input_tokens":50,"output_tokens":1056,"total_tokens":1106,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}`}, Usage{true, 50, 1056, 1106, 0}, false},
	{"Images, no usage", Images, []string{`{"data":[]}`}, Usage{}, true},

	// Those that have no answer of tokens.
	{"rerank", Rerank, []string{`{"usage":{"total_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"rerank, zeros beside it", Rerank, []string{`{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"rerank, both", Rerank, []string{`{"usage":{"prompt_tokens":60,"total_tokens":62}}`}, Usage{true, 60, 0, 62, 0}, false},
	{"score", Score, []string{`{"usage":{"total_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"pooling", Pooling, []string{`{"usage":{"total_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"classify", Classify, []string{`{"usage":{"total_tokens":62,"completion_tokens":null}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"embeddings, the total", Embeddings, []string{`{"usage":{"total_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"embeddings, the prompt", Embeddings, []string{`{"usage":{"prompt_tokens":62}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"embeddings, nothing", Embeddings, []string{`{"usage":{}}`}, Usage{}, true},
	{"embeddings, zeros", Embeddings, []string{`{"usage":{"prompt_tokens":0,"total_tokens":0}}`}, Usage{}, true},
	{"rerank, Cohere's tokens", Rerank, []string{`{"results":[],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1},"tokens":{"input_tokens":62,"output_tokens":0}}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"rerank, Cohere's units of tokens", Rerank, []string{`{"meta":{"billed_units":{"input_tokens":62}}}`}, Usage{true, 62, 0, 62, 0}, false},
	{"rerank, Cohere's searches", Rerank, []string{`{"meta":{"billed_units":{"search_units":1}}}`}, Usage{}, false},
	{"Cohere's embeddings", CohereEmbed, []string{`{"id":"x","embeddings":{"float":[[0.1]]},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":5}}}`}, Usage{true, 5, 0, 5, 0}, false},
	{"Cohere's embeddings of text and images", CohereEmbed, []string{`{"meta":{"billed_units":{"image_tokens":40,"input_tokens":5}}}`}, Usage{true, 45, 0, 45, 0}, false},
	{"Cohere's embeddings of images", CohereEmbed, []string{`{"meta":{"billed_units":{"image_tokens":40}}}`}, Usage{true, 40, 0, 40, 0}, false},
	{"Cohere's embeddings, paid by image", CohereEmbed, []string{`{"meta":{"billed_units":{"images":2}}}`}, Usage{}, false},
	{"Cohere's embeddings, nothing told", CohereEmbed, []string{`{"embeddings":{},"meta":{"api_version":{"version":"2"}}}`}, Usage{}, true},
	{"Cohere's chat", CohereChat, []string{
		`{"message":{"role":"assistant","usage":{"input_tokens":9}},"usage":{"billed_units":{"input_tokens":71,"output_tokens":7},"tokens":{"input_tokens":71,"output_tokens":7},"cached_tokens":64}}`,
	}, Usage{true, 71, 7, 78, 64}, false},
	{"Cohere's chat, not all of it billed", CohereChat, []string{`{"usage":{"tokens":{"input_tokens":71.0,"output_tokens":7.0},"billed_units":{"input_tokens":5,"output_tokens":7}}}`}, Usage{true, 71, 7, 78, 0}, false},
	{"Cohere's chat, in a stream", CohereChat, []string{
		`{"type":"message-start","delta":{"message":{"role":"assistant"}}}`, `{"type":"content-delta","delta":{"message":{"content":{"text":"hi"}}}}`,
		`{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":5,"output_tokens":7},"tokens":{"input_tokens":71,"output_tokens":7},"cached_tokens":64}}}`,
	}, Usage{true, 71, 7, 78, 64}, false},
	{"Cohere's chat, the answer not told", CohereChat, []string{`{"usage":{"billed_units":{"input_tokens":71}}}`}, Usage{false, 71, 0, 71, 0}, true},
	{"Cohere's chat, nothing told", CohereChat, []string{`{"type":"message-end","delta":{"finish_reason":"ERROR"}}`}, Usage{}, true},
	{"another path in Cohere's form", Other, []string{`{"meta":{"tokens":{"input_tokens":71,"output_tokens":7}}}`}, Usage{true, 71, 7, 78, 0}, false},
	{"a chat's cached tokens beside the others", Chat, []string{`{"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cached_tokens":8}}`}, Usage{true, 12, 5, 17, 8}, false},
	{"meta of something else", Embeddings, []string{`{"meta":{"tokens":{"input_tokens":62}}}`}, Usage{}, true},
	{"rerank, a list", Rerank, []string{`[{"score":0.5,"meta_info":{"prompt_tokens":7}}]`}, Usage{}, true},

	// Those that are not paid by tokens, or not always.
	{"transcription by tokens", Transcriptions, []string{`{"text":"x","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}`}, Usage{true, 14, 45, 59, 0}, false},
	{"transcription by duration", Transcriptions, []string{`{"text":"x","usage":{"type":"duration","seconds":3}}`}, Usage{}, false},
	{"transcription by duration, in parts", Transcriptions, []string{`{"usage":{"seconds":3.5,"type":"duration"}}`}, Usage{}, false},
	{"transcription, verbose", Transcriptions, []string{`{"task":"transcribe","language":"en","duration":3.2,"text":"x","segments":[{"duration":1}]}`}, Usage{}, false},
	{"transcription, verbose, as a string", Transcriptions, []string{`{"duration":"3.2","language":"en","text":"x","segments":[],"words":null}`}, Usage{}, false},
	{"transcription, a duration within", Transcriptions, []string{`{"text":"x","segments":[{"duration":1}],"x":{"duration":2}}`}, Usage{}, true},
	{"transcription, no duration", Transcriptions, []string{`{"text":"x","duration":null}`}, Usage{}, true},
	{"a chat with a duration", Chat, []string{`{"duration":3.2}`}, Usage{}, true},
	{"transcription, in a stream", Transcriptions, []string{`{"choices":[],"usage":null}`, `{"choices":[],"usage":{"type":"duration","seconds":0}}`}, Usage{}, false},
	{"transcription, nothing told", Transcriptions, []string{`{"text":"x"}`}, Usage{}, true},
	{"a chat of seconds", Chat, []string{`{"usage":{"seconds":3}}`}, Usage{}, true},
	{"token count", CountTokens, []string{`{"input_tokens":14}`}, Usage{}, false},
	{"speech", Audio, []string{`{"type":"speech.audio.delta","audio":"x"}`, `{"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101,"total_tokens":115}}`}, Usage{true, 14, 101, 115, 0}, false},
	{"speech, nothing told", Audio, []string{`{"type":"speech.audio.done"}`}, Usage{}, false},
	{"models", Models, []string{`{"object":"list","data":[]}`}, Usage{}, false},
}

func TestUsage(t *testing.T) {
	for _, c := range usages {
		check := func(stream bool, body string) {
			got, untold := tokens(c.api, stream, []byte(body))
			require.Equal(t, c.want, got, "%s: %s", c.name, body)
			require.Equal(t, c.untold, untold, "%s: %s", c.name, body)
			var singles [][]byte
			for i := range body {
				got, untold := tokens(c.api, stream, []byte(body[:i]), []byte(body[i:]))
				require.Equal(t, c.want, got, "%s: %s cut at %d", c.name, body, i)
				require.Equal(t, c.untold, untold, "%s: %s cut at %d", c.name, body, i)
				singles = append(singles, []byte(body[i:i+1]))
			}
			got, _ = tokens(c.api, stream, singles...)
			require.Equal(t, c.want, got, "%s: %s", c.name, body)
		}
		check(true, eventsOf(c.events...))
		if len(c.events) == 1 {
			check(false, c.events[0])
		}
	}
}

// object writes the members whose values are not negative, in a drawn order.
func object(t *rapid.T, members map[string]int, names ...string) string {
	var b []string
	for _, name := range rapid.Permutation(names).Draw(t, "order") {
		if n := members[name]; n >= 0 {
			b = append(b, fmt.Sprintf("%q:%d", name, n))
		} else if rapid.Bool().Draw(t, "null") {
			b = append(b, fmt.Sprintf("%q:null", name))
		}
	}
	return "{" + strings.Join(b, ",") + "}"
}

// Of a prompt that was told as a whole, any part may be said to be cached, in any number of events.
func TestCacheToldBitByBit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		prompt := rapid.IntRange(1, 100).Draw(rt, "prompt")
		read := rapid.IntRange(0, prompt).Draw(rt, "read")
		written := rapid.IntRange(0, prompt-read).Draw(rt, "written")
		events := []string{fmt.Sprintf(`{"message":{"usage":{"input_tokens":%d,"output_tokens":1}}}`, prompt)}
		names := []string{"cache_read_input_tokens", "cache_creation_input_tokens"}
		for range rapid.IntRange(0, 4).Draw(rt, "events") {
			early := map[string]int{names[0]: rapid.IntRange(-1, read).Draw(rt, "early read"), names[1]: rapid.IntRange(-1, written).Draw(rt, "early written")}
			events = append(events, `{"usage":`+object(rt, early, names...)+`}`)
		}
		final := map[string]int{names[0]: read, names[1]: written}
		for _, name := range rapid.Permutation(names).Draw(rt, "last") {
			events = append(events, fmt.Sprintf(`{"usage":{%q:%d,"output_tokens":7}}`, name, final[name]))
		}
		got, untold := tokens(Messages, true, []byte(eventsOf(events...)))
		require.False(rt, untold)
		require.Equal(rt, Usage{true, prompt, 7, prompt + 7, read}, got, events)
	})
}

// However the counts of a stream grow until the last event tells the final ones, and however it is cut, it took the same as
// an answer in one piece that has these.
func TestStreamsTellWhatWholeAnswersTell(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		number := func(label string, least, most int) int {
			return rapid.IntRange(least, max(least, most)).Draw(rt, label)
		}
		api := rapid.SampledFrom([]API{Chat, Completions, Responses, Messages, Embeddings, Transcriptions}).Draw(rt, "api")
		prompt, completion := number("prompt", 1, 100), number("completion", 0, 100)
		read := number("read", -1, prompt)
		written := number("written", -1, prompt-max(0, read))
		final := map[string]int{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
		names := []string{"prompt_tokens", "completion_tokens", "total_tokens"}
		if api == Messages {
			final = map[string]int{"input_tokens": prompt - max(0, read) - max(0, written), "output_tokens": completion, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
			names = []string{"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
		}
		wrap := func(usage string, first bool) string {
			switch {
			case api == Responses:
				return `{"response":{"usage":` + usage + `,"x":1}}`
			case api == Messages && first:
				return `{"message":{"usage":` + usage + `}}`
			}
			return `{"x":1,"usage":` + usage + `}`
		}
		var events []string
		for i := range number("events", 0, 4) {
			if rapid.Bool().Draw(rt, "without") {
				events = append(events, wrap("null", i == 0))
				continue
			}
			early := map[string]int{}
			for _, name := range names {
				early[name] = number("early "+name, -1, final[name])
			}
			if api == Messages {
				// Of the prompt nobody knows more than its length; what is cached is known at once or at the end.
				early["input_tokens"] = number("early prompt", -1, prompt)
				early["cache_read_input_tokens"], early["cache_creation_input_tokens"] = -1, -1
				if read+written > 0 && rapid.Bool().Draw(rt, "cache known") {
					early = map[string]int{"input_tokens": final["input_tokens"], "cache_read_input_tokens": read, "cache_creation_input_tokens": written, "output_tokens": early["output_tokens"]}
				}
			}
			if completion == 0 {
				early["completion_tokens"], early["output_tokens"] = 0, 0
			}
			if early["total_tokens"] > early["prompt_tokens"] {
				early["total_tokens"] = max(0, early["prompt_tokens"]) + max(0, early["completion_tokens"])
			}
			events = append(events, wrap(object(rt, early, names...), i == 0))
		}
		last := object(rt, final, names...)
		events = append(events, wrap(last, len(events) == 0))
		if rapid.Bool().Draw(rt, "zeros after it") {
			zeros := map[string]int{}
			events = append(events, wrap(object(rt, zeros, names...), false))
		}
		body := eventsOf(events...)
		want, untold := tokens(api, false, []byte(`{"usage":`+last+`}`))
		require.False(rt, untold, last)
		require.Equal(rt, prompt, want.Prompt)
		require.Equal(rt, completion, want.Completion)
		var chunks [][]byte
		for rest := []byte(body); len(rest) > 0; {
			n := number("cut", 1, min(len(rest), 40))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		got, untold := tokens(api, true, chunks...)
		require.False(rt, untold, body)
		require.Equal(rt, want, got, body)
	})
}
