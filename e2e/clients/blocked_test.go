package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// blockingChain blocks keys, with one model for each way in which a stream that has begun can end.
const blockingChain = `
filters:
  - bbr: {models: [{name: error, targets: [{pool: llama}]}, {name: content_filter, targets: [{pool: llama}]}]}
  - guardrail:
      providers: [{name: local, local: {detect: [secrets]}}]
      policies:
        - {on: both, use: [local], action: block, models: [error], message: That is secret.}
        - {on: both, use: [local], action: block, models: [content_filter], message: That is secret., ending: content_filter}
`

// TestBlockedStreams: what a user of each official client has of a stream that the guardrail blocks when the user has got some of it, and of one that
// is blocked before. The replica is told to stop, over HTTP/1.1 and HTTP/2. docs/writing-a-filter.md has this for people.
func TestBlockedStreams(t *testing.T) {
	in := &clients.Installer{Progress: os.Stderr}
	script := func(install func(context.Context) (*clients.Runtime, error), name string) command {
		runtime, err := install(t.Context())
		require.NoError(t, err)
		return func(ctx context.Context, args ...string) *exec.Cmd { return runtime.Command(ctx, name, args...) }
	}
	languages := map[string]struct {
		run        command
		want, wasm []string
	}{
		"Python": {script(in.Python, "blocked.py"), blockedPython, cutPython},
		"Node":   {script(in.Node, "blocked.cjs"), blockedNode, cutNode},
		"Go":     {buildGoClients(t), blockedGo, cutGo},
	}
	for _, abi := range []string{stack.Wasm, stack.Module} {
		for _, protocol := range []string{"HTTP 1.1", "HTTP 2"} {
			t.Run(abi+", "+protocol, func(t *testing.T) {
				r := newLeaker(t)
				s := stack.ForTest(t, stack.Options{
					ABI: abi, Chain: blockingChain, NoCompanion: true, Progress: os.Stderr,
					Pools: []stack.Pool{{Name: "llama", Addresses: []string{r.address}}},
					Edit: func(b *bootstrapv3.Bootstrap) {
						if protocol == "HTTP 2" {
							c := b.GetStaticResources().GetClusters()[0]
							//nolint:staticcheck // the fields that replace these need ten more lines for the same effect
							c.HttpProtocolOptions, c.Http2ProtocolOptions = nil, &corev3.Http2ProtocolOptions{}
						}
					},
				})
				for language, l := range languages {
					want := l.want
					if abi == stack.Wasm {
						want = instead(t, want, l.wasm)
					}
					t.Run(language, func(t *testing.T) { readBlocked(t, s, r, l.run, protocol, want) })
				}
				require.Empty(t, s.EnvoyErrors())
			})
		}
	}
}

// TestBlockedStreamsAreDocumented: the page names what the clients raise.
func TestBlockedStreamsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/writing-a-filter.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "## What a client sees of a stream that is blocked\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	for _, line := range slices.Concat(blockedPython, blockedNode, blockedGo, cutPython, cutNode, cutGo) {
		var one struct{ Raised, Error, End string }
		require.NoError(t, json.Unmarshal([]byte(line), &one))
		end, _, _ := strings.Cut(one.End, ": ")
		for _, name := range []string{one.Raised, strings.TrimPrefix(one.Error, "*"), end} {
			if name != "" && name != "final" {
				require.Contains(t, section, "`"+name+"`", line)
			}
		}
	}
}

// instead returns lines, of which some have others of the same case in their place.
func instead(t *testing.T, lines, others []string) []string {
	lines = slices.Clone(lines)
	for _, other := range others {
		until := strings.Index(other, `", "text"`)
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, other[:until+1]) })
		require.GreaterOrEqual(t, i, 0, other)
		lines[i] = other
	}
	return lines
}

// readBlocked runs a client and compares what it has of each stream.
func readBlocked(t *testing.T, s *stack.Stack, r *leaker, run command, protocol string, want []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := run(ctx, s.URL())
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var got []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if lines.Text() == "begun" {
			r.goOn <- struct{}{}
			continue
		}
		got = append(got, lines.Text())
		var one struct{ Case string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &one))
		if !strings.HasSuffix(one.Case, ": prompt") { // which no replica sees
			r.stopped(t, one.Case, protocol)
		}
	}
	require.NoError(t, cmd.Wait(), stderr.String())
	require.Empty(t, r.streams, "each was looked at")
	require.Len(t, got, len(want), "%s", strings.Join(got, "\n"))
	for i := range want {
		require.JSONEq(t, want[i], got[i])
	}
}

// leaker is a replica that gives away a key, when the client has got the text before it, and then says no more until it is told to stop.
type leaker struct {
	address string
	goOn    chan struct{}
	streams chan leaked
}

// leaked is a stream that has ended: with which protocol, and why.
type leaked struct{ protocol, why string }

func newLeaker(t *testing.T) *leaker {
	r := &leaker{goOn: make(chan struct{}, 1), streams: make(chan leaked, 10)}
	server := httptest.NewUnstartedServer(r)
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	server.Config.Protocols = &both
	server.Start()
	t.Cleanup(server.Close)
	r.address = server.Listener.Addr().String()
	return r
}

// stopped waits until the stream of a case has ended, which its request's end has caused.
func (r *leaker) stopped(t *testing.T, what, protocol string) {
	t.Helper()
	select {
	case got := <-r.streams:
		require.Equal(t, leaked{strings.Replace(protocol, " ", "/", 1), "context canceled"}, got, what)
	case <-time.After(patience):
		require.FailNow(t, "the replica was not told to stop", what)
	}
}

// ServeHTTP streams a response.
func (r *leaker) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("content-type", "text/event-stream")
	say := func(events string) {
		_, _ = io.WriteString(w, events) // an error means that the gateway has gone, and is seen below
		_ = http.NewResponseController(w).Flush()
	}
	api := leaks[req.URL.Path]
	say(api.begin)
	if !bytes.Contains(body, []byte("at once")) {
		say(fmt.Sprintf(api.text, "The key is "))
		select {
		case <-r.goOn:
		case <-req.Context().Done():
		}
	}
	say(fmt.Sprintf(api.text, "AKIAIOSFODNN7EXAMPLE, and"))
	<-req.Context().Done()
	protocol := strings.TrimSuffix(req.Proto, ".0")
	r.streams <- leaked{protocol, req.Context().Err().Error()}
	panic(http.ErrAbortHandler)
}

// leaks are the events of each API: the beginning, and a piece of text.
var leaks = map[string]struct{ begin, text string }{
	"/v1/chat/completions": {
		begin: `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n",
		text:  `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}` + "\n\n",
	},
	"/v1/responses": {
		begin: `event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"model":"m","status":"in_progress","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"error":null,"incomplete_details":null,"instructions":null,"metadata":{}}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}}

event: response.content_part.added
data: {"type":"response.content_part.added","sequence_number":2,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}

`,
		text: "event: response.output_text.delta\n" +
			`data: {"type":"response.output_text.delta","sequence_number":3,"item_id":"msg_1","output_index":0,"content_index":0,"delta":%q,"logprobs":[]}` + "\n\n",
	},
	"/v1/messages": {
		begin: `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

`,
		text: "event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%q}}` + "\n\n",
	},
}

// What the users have.
var (
	blockedPython = []string{
		`{"case": "chat: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "content_policy_violation", "status": null}`,
		`{"case": "chat: content_filter", "text": "The key is ", "end": "content_filter"}`,
		`{"case": "chat, helper: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "content_policy_violation", "status": null}`,
		`{"case": "chat, helper: content_filter", "text": "The key is ", "end": null, "raised": "ContentFilterFinishReasonError", "message": "Could not parse response content as the request was rejected by the content filter"}`,
		`{"case": "responses: error", "text": "The key is ", "end": "response.failed: content_policy_violation: That is secret."}`,
		`{"case": "responses: content_filter", "text": "The key is ", "end": "response.incomplete: content_filter"}`,
		`{"case": "responses, helper: error", "text": "The key is ", "end": null, "raised": "RuntimeError", "message": "Didn't receive a ` + "`" + `response.completed` + "`" + ` event."}`,
		`{"case": "responses, helper: content_filter", "text": "The key is ", "end": null, "raised": "RuntimeError", "message": "Didn't receive a ` + "`" + `response.completed` + "`" + ` event."}`,
		`{"case": "messages: error", "text": "The key is ", "end": null, "raised": "APIStatusError", "message": "That is secret.", "code": "invalid_request_error", "status": 200}`,
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal"}`,
		`{"case": "messages, helper: error", "text": "The key is ", "end": null, "raised": "APIStatusError", "message": "That is secret.", "code": "invalid_request_error", "status": 200}`,
		`{"case": "messages, helper: content_filter", "text": "The key is ", "end": "refusal"}`,
		`{"case": "chat: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "Error code: 400 - That is secret."}`,
		`{"case": "chat: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "Error code: 400 - That is secret."}`,
		`{"case": "responses: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "Error code: 400 - That is secret."}`,
		`{"case": "responses: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "Error code: 400 - That is secret."}`,
		`{"case": "messages: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "invalid_request_error", "message": "That is secret."}`,
		`{"case": "messages: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "invalid_request_error", "message": "That is secret."}`,
	}
	blockedNode = []string{
		`{"case": "chat: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "content_policy_violation", "status": null}`,
		`{"case": "chat: content_filter", "text": "The key is ", "end": "content_filter"}`,
		`{"case": "chat, helper: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "content_policy_violation", "status": null}`,
		`{"case": "chat, helper: content_filter", "text": "The key is ", "end": "content_filter"}`,
		`{"case": "responses: error", "text": "The key is ", "end": "response.failed: content_policy_violation: That is secret."}`,
		`{"case": "responses: content_filter", "text": "The key is ", "end": "response.incomplete: content_filter"}`,
		`{"case": "responses, helper: error", "text": "The key is ", "end": "final: content_policy_violation: That is secret."}`,
		`{"case": "responses, helper: content_filter", "text": "The key is ", "end": "final: content_filter"}`,
		`{"case": "messages: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "invalid_request_error", "status": null}`,
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal"}`,
		`{"case": "messages, helper: error", "text": "The key is ", "end": null, "raised": "APIError", "message": "That is secret.", "code": "invalid_request_error", "status": null}`,
		`{"case": "messages, helper: content_filter", "text": "The key is ", "end": "refusal"}`,
		`{"case": "chat: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "400 That is secret."}`,
		`{"case": "chat: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "400 That is secret."}`,
		`{"case": "responses: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "400 That is secret."}`,
		`{"case": "responses: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "content_policy_violation", "message": "400 That is secret."}`,
		`{"case": "messages: at once", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "invalid_request_error", "message": "That is secret."}`,
		`{"case": "messages: prompt", "text": "", "end": null, "raised": "BadRequestError", "status": 400, "code": "invalid_request_error", "message": "That is secret."}`,
	}
	blockedGo = []string{
		`{"case": "chat: error", "text": "The key is ", "end": "", "error": "*ssestream.StreamError", "message": "received error while streaming: {\"message\":\"That is secret.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"content_policy_violation\"}"}`,
		`{"case": "chat: content_filter", "text": "The key is ", "end": "content_filter"}`,
		`{"case": "chat: at once", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "content_policy_violation", "message": "That is secret."}`,
		`{"case": "chat: prompt", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "content_policy_violation", "message": "That is secret."}`,
		`{"case": "responses: error", "text": "The key is ", "end": "response.failed: content_policy_violation: That is secret."}`,
		`{"case": "responses: content_filter", "text": "The key is ", "end": "response.incomplete: content_filter"}`,
		`{"case": "responses: at once", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "content_policy_violation", "message": "That is secret."}`,
		`{"case": "responses: prompt", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "content_policy_violation", "message": "That is secret."}`,
		`{"case": "messages: error", "text": "The key is ", "end": "", "error": "*apierror.Error", "status": 200, "code": "invalid_request_error"}`,
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal"}`,
		`{"case": "messages: at once", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "invalid_request_error"}`,
		`{"case": "messages: prompt", "text": "", "end": "", "error": "*apierror.Error", "status": 400, "code": "invalid_request_error"}`,
	}

	// The wasm build cannot end a stream without breaking the connection, and Anthropic's clients read on after message_stop, as they do not after an
	// error. OpenAI's do not after "[DONE]".
	cutPython = []string{
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal", "raised": "RemoteProtocolError", "message": "peer closed connection without sending complete message body (incomplete chunked read)"}`,
		`{"case": "messages, helper: content_filter", "text": "The key is ", "end": null, "raised": "RemoteProtocolError", "message": "peer closed connection without sending complete message body (incomplete chunked read)"}`,
	}
	cutNode = []string{
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal", "raised": "TypeError", "message": "terminated", "status": null, "code": null}`,
		`{"case": "messages, helper: content_filter", "text": "The key is ", "end": null, "raised": "AnthropicError", "message": "terminated", "status": null, "code": null}`,
	}
	cutGo = []string{
		`{"case": "messages: content_filter", "text": "The key is ", "end": "refusal", "error": "*errors.errorString", "message": "unexpected EOF"}`,
	}
)
