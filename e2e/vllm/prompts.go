package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// The size of the conversations. A token is a byte, and the longest prompt must leave space for the output.
const (
	turns        = 10
	turnText     = 720
	answerTokens = 16
)

// text is n bytes of words, the same for the same seed and different from the first word on for others.
func text(seed string, n int) string {
	r := rand.New(rand.NewChaCha8(sha256.Sum256([]byte(seed))))
	var b strings.Builder
	for b.Len() < n {
		for range 2 + r.IntN(8) {
			b.WriteByte("etaoinshrdlucmfwypvbgkjqxz"[min(r.IntN(26), r.IntN(26))])
		}
		b.WriteByte(' ')
	}
	return b.String()[:n]
}

// request is the body that a client's user writes for an API; more comes last.
func request(api, model, prompt string, more ...field) fields {
	turn := []fields{message("user", prompt)}
	switch api {
	case "completions":
		return slices.Concat(fields{{"model", model}, {"prompt", prompt}, {"max_tokens", answerTokens}}, more)
	case "responses":
		return slices.Concat(fields{{"model", model}, {"input", turn}, {"max_output_tokens", answerTokens}, {"store", false}}, more)
	}
	return slices.Concat(fields{{"model", model}, {"messages", turn}, {"max_tokens", answerTokens}}, more)
}

func message(role, content string) fields { return fields{{"role", role}, {"content", content}} }

// asksUsage is what a stream of chat or completions needs to end with its usage.
func asksUsage(api string, stream bool) fields {
	if stream && (api == "chat" || api == "completions") {
		return fields{{"stream_options", fields{{"include_usage", true}}}}
	}
	return nil
}

// conversation is one that grows by a question and its answer each turn.
type conversation struct {
	client *client
	api    string
	stream bool
	seed   string

	messages []fields // so far
	prompt   string   // the same for completions
	sum      tokens
}

// conversations are several of each client.
func (c *checks) conversations(seed string) [][]*conversation {
	return [][]*conversation{
		{
			{client: c.openAIPython, api: "chat", stream: true, seed: seed + "1"},
			{client: c.openAIPython, api: "completions", seed: seed + "2"},
		},
		{
			{client: c.openAINode, api: "responses", stream: true, seed: seed + "3"},
			{client: c.openAINode, api: "chat", seed: seed + "4"},
		},
		{
			{client: c.anthropicPython, api: "messages", stream: true, seed: seed + "5"},
			{client: c.anthropicPython, api: "messages", seed: seed + "6"},
		},
	}
}

// turn asks the next question.
func (v *conversation) turn(base, model string, n int) error {
	question := text(fmt.Sprintf("%s %d", v.seed, n), turnText)
	v.messages = append(v.messages, message("user", question))
	v.prompt += "\nuser\n" + question + "\nassistant\n"
	body := request(v.api, model, v.prompt, asksUsage(v.api, v.stream)...)
	if v.api != "completions" {
		body[1].value = v.messages // instead of one message
	}
	got, err := v.client.play(ask{base, v.api, v.stream, body})
	if err != nil {
		return fmt.Errorf("%s, turn %d: %w", v.api, n+1, err)
	}
	if got.Usage == nil {
		return fmt.Errorf("%s, turn %d: no usage", v.api, n+1)
	}
	v.sum = v.sum.plus(got.Usage.tokens())
	v.messages = append(v.messages, message("assistant", got.Text))
	v.prompt += got.Text
	return nil
}

// play plays all conversations, those of different clients concurrently. Turn n goes to base n, and then to the first
// again.
func (c *checks) play(ctx context.Context, seed, model string, bases ...string) (sum tokens, requests int, err error) {
	all := c.conversations(seed)
	group, ctx := errgroup.WithContext(ctx)
	for _, of := range all {
		group.Go(func() error {
			for n := range turns {
				for _, v := range of {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err := v.turn(bases[n%len(bases)], model, n); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	err = group.Wait()
	for _, v := range slices.Concat(all...) {
		sum, requests = sum.plus(v.sum), requests+turns
	}
	return sum, requests, err
}
