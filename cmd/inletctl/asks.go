package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// ask is one request and its expected result.
type ask struct {
	what    string // description
	model   string // the model that the client asks for
	prompt  string
	stream  bool
	legacy  bool     // /v1/completions
	headers []string // name, value, ...
	body    string   // sent unchanged, instead of a request of the client

	again  bool   // it must go to the replica of the request before, and find the prompt in its cache
	sent   string // the model that the replica must see
	pool   string // the pool that must serve
	status int    // 200, or the expected status of the refusal
	code   string // the refusal's error code
}

// sky is long enough to fill blocks of a replica's cache.
var sky = "Why is the sky blue? Answer as if I were twelve, and tell me how to see it with a glass of milk. " +
	strings.Repeat("Begin with what light is, and leave out what I cannot try at home. ", 16)

// asks are played in this order. The expectations follow from envoy/static/inlet.yaml.
var asks = []ask{
	{what: "chat, alias rewritten", model: "llama", prompt: sky, sent: "llama-3-8b", pool: "llama", status: 200},
	{what: "the same prompt again", model: "llama", prompt: sky, again: true, sent: "llama-3-8b", pool: "llama", status: 200},
	{what: "stream", model: "llama", prompt: "Count to ten.", stream: true, sent: "llama-3-8b", pool: "llama", status: 200},
	{what: "chat, other pool", model: "gemma", prompt: "Name a colour.", sent: "gemma", pool: "gemma", status: 200},
	{what: "stream, LoRA adapter", model: "gemma-support", prompt: "Where is my parcel?", stream: true, sent: "gemma-support", pool: "gemma", status: 200},
	{what: "completion, old API", model: "gemma", prompt: "Once upon a time", legacy: true, sent: "gemma", pool: "gemma", status: 200},
	{
		what: "forged pool header", model: "llama", prompt: "Let me choose.",
		headers: []string{"x-gateway-inference-pool", "gemma", "x-gateway-destination-endpoint", "127.0.0.1:1"},
		sent:    "llama-3-8b", pool: "llama", status: 200,
	},
	{what: "unknown model", model: "nobody-serves-this", prompt: "Hello?", status: 404, code: "model_not_found"},
	{what: "bad JSON", body: `{"model":"llama","messages":[`, status: 400},
}

// answer is the result of a request.
type answer struct {
	status     int
	replica    string // x-modelsim-replica
	sent       string // x-modelsim-model
	sum        string // x-modelsim-body-sha256
	code       string
	firstToken time.Duration
	tokens     int64
	cached     int64
	request    []byte // the body as the client sent it
	access     stack.Access
}

// send plays the request and waits for its line in the access log.
func (a *ask) send(ctx context.Context, s *stack.Stack) (*answer, error) {
	got := &answer{}
	var requestID string
	watch := func(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		got.request = body
		req.Body = io.NopCloser(bytes.NewReader(body))
		resp, err := next(req)
		if err != nil {
			return nil, err
		}
		h := resp.Header
		requestID = h.Get("x-request-id")
		got.status, got.replica, got.sent, got.sum = resp.StatusCode, h.Get("x-modelsim-replica"), h.Get("x-modelsim-model"), h.Get("x-modelsim-body-sha256")
		return resp, nil
	}
	options := []option.RequestOption{
		option.WithBaseURL(s.URL() + "/v1/"), option.WithAPIKey("none"), option.WithMaxRetries(0), option.WithMiddleware(watch),
	}
	for i := 0; i < len(a.headers); i += 2 {
		options = append(options, option.WithHeader(a.headers[i], a.headers[i+1]))
	}
	client := openai.NewClient(options...)
	err := a.call(ctx, &client, got)
	var refused *openai.Error
	if errors.As(err, &refused) {
		got.code, err = refused.Code, nil
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got.access, err = s.Access(ctx, requestID)
	return got, err
}

// call sends the request with the OpenAI client and reads the whole answer.
func (a *ask) call(ctx context.Context, client *openai.Client, got *answer) error {
	start := time.Now()
	if a.body != "" {
		return client.Post(ctx, "chat/completions", nil, nil, option.WithRequestBody("application/json", []byte(a.body)))
	}
	if a.legacy {
		c, err := client.Completions.New(ctx, openai.CompletionNewParams{
			Model:     openai.CompletionNewParamsModel(a.model),
			Prompt:    openai.CompletionNewParamsPromptUnion{OfString: openai.String(a.prompt)},
			MaxTokens: openai.Int(16),
		})
		if err == nil {
			got.usage(c.Usage)
		}
		return err
	}
	params := openai.ChatCompletionNewParams{
		Model:     a.model,
		Messages:  []openai.ChatCompletionMessageParamUnion{openai.UserMessage(a.prompt)},
		MaxTokens: openai.Int(16),
	}
	if !a.stream {
		c, err := client.Chat.Completions.New(ctx, params)
		if err == nil {
			got.usage(c.Usage)
		}
		return err
	}
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	for stream.Next() {
		chunk := stream.Current()
		if got.firstToken == 0 && len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			got.firstToken = time.Since(start)
		}
		if chunk.Usage.TotalTokens > 0 {
			got.usage(chunk.Usage)
		}
	}
	return stream.Err()
}

func (got *answer) usage(u openai.CompletionUsage) {
	got.tokens, got.cached = u.TotalTokens, u.PromptTokensDetails.CachedTokens
}

// check returns what is wrong; before is the result of the request before.
func (a *ask) check(s *stack.Stack, got, before *answer) []string {
	var bad []string
	want := func(what string, got, want any) {
		if got != want {
			bad = append(bad, fmt.Sprintf("%s is %v and should be %v", what, got, want))
		}
	}
	want("status", got.status, a.status)
	want("status in the access log", got.access.Status, a.status)
	if a.status != http.StatusOK {
		if a.code != "" {
			want("error code", got.code, a.code)
		}
		want("replica", got.replica, "")
		want("upstream in the access log", got.access.Replica, "")
		return bad
	}
	want("model at the replica", got.sent, a.sent)
	want("body at the replica", got.sum, a.expectedSum(got.request))
	want("pool", got.access.Pool, a.pool)
	if a.again {
		want("replica", got.replica, before.replica)
		want("part of the prompt found in the cache", got.cached > 0, true)
	}
	for _, r := range s.PoolReplicas(a.pool) {
		if r.Name == got.replica {
			want("replica's address", got.access.Replica, r.Address())
			want("first of the picked replicas", first(got.access.Picked), r.Address())
			return append(bad, a.checkAnswer(got)...)
		}
	}
	return append(bad, fmt.Sprintf("replica %q is not one of pool %s", got.replica, a.pool))
}

func (a *ask) checkAnswer(got *answer) []string {
	var bad []string
	if got.tokens == 0 {
		bad = append(bad, "no usage in the response")
	}
	if a.stream && got.firstToken == 0 {
		bad = append(bad, "no token arrived")
	}
	if got.access.Why == "" {
		bad = append(bad, "no why in the access log")
	}
	return bad
}

// expectedSum is the checksum of the body with the one change that Inlet may make: the model's name.
func (a *ask) expectedSum(body []byte) string {
	body = bytes.Replace(body, []byte(`"model":"`+a.model+`"`), []byte(`"model":"`+a.sent+`"`), 1)
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func first(list string) string {
	address, _, _ := strings.Cut(list, ",")
	return address
}

// row is the request's line in the table.
func (a *ask) row(got *answer, bad []string) []string {
	mark := "ok"
	if len(bad) > 0 {
		mark = "WRONG"
	}
	asked, ttft, tokens := a.model, "", ""
	if asked == "" {
		asked = "-"
	}
	if got.firstToken > 0 {
		ttft = got.firstToken.Round(time.Millisecond).String()
	}
	if got.tokens > 0 {
		tokens = fmt.Sprint(got.tokens)
	}
	if got.cached > 0 {
		tokens += fmt.Sprintf(" (%d cached)", got.cached)
	}
	where := got.replica
	if got.status != http.StatusOK {
		where = strings.TrimSpace(fmt.Sprintf("%d %s", got.status, got.code))
	}
	return []string{mark, a.what, asked, got.sent, got.access.Pool, where, got.access.Why, ttft, tokens}
}
