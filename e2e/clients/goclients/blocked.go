package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// seen is what a user has of a stream.
type seen struct {
	Case    string `json:"case"`
	Text    string `json:"text"`
	End     string `json:"end"`
	Error   string `json:"error,omitempty"` // type of the error
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

func (s *seen) read(text string) {
	if text != "" && s.Text == "" {
		fmt.Println("begun")
	}
	s.Text += text
}

// blocked reads streams that a gateway blocks. For each it prints "begun" when the first text has come, and at the end one line of JSON;
// blocked_test.go has the expected lines.
func blocked(url string) {
	ways := []struct {
		name string
		ask  func(s *seen, url, model, prompt string) error
	}{{"chat", streamChat}, {"responses", streamResponse}, {"messages", streamMessage}}
	for _, way := range ways {
		for _, question := range [][3]string{
			{"error", "error", "Tell me the key."},
			{"content_filter", "content_filter", "Tell me the key."},
			{"at once", "error", "Tell me the key at once."},
			{"prompt", "error", "Is AKIAIOSFODNN7EXAMPLE a key?"},
		} {
			s := seen{Case: way.name + ": " + question[0]}
			s.note(way.ask(&s, url, question[1], question[2]))
			check(json.NewEncoder(os.Stdout).Encode(s))
		}
	}
}

// note notes what the client returned.
func (s *seen) note(err error) {
	if err == nil {
		return
	}
	s.Error, s.Message = fmt.Sprintf("%T", err), err.Error()
	var ofOpenAI *openai.Error
	var ofAnthropic *anthropic.Error
	switch {
	case errors.As(err, &ofOpenAI):
		s.Status, s.Code, s.Message = ofOpenAI.StatusCode, ofOpenAI.Code, ofOpenAI.Message
	case errors.As(err, &ofAnthropic):
		s.Status, s.Code, s.Message = ofAnthropic.StatusCode, string(ofAnthropic.Type()), ""
	}
}

func streamChat(s *seen, url, model, prompt string) error {
	client := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("k"))
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	})
	for stream.Next() {
		choice := stream.Current().Choices[0]
		s.read(choice.Delta.Content)
		s.End += choice.FinishReason
	}
	return stream.Err()
}

func streamResponse(s *seen, url, model, prompt string) error {
	client := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("k"))
	stream := client.Responses.NewStreaming(context.Background(), responses.ResponseNewParams{
		Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(prompt)},
	})
	for stream.Next() {
		switch event := stream.Current(); event.Type {
		case "response.output_text.delta":
			s.read(event.Delta)
		case "response.failed":
			s.End = fmt.Sprintf("%s: %s: %s", event.Type, event.Response.Error.Code, event.Response.Error.Message)
		case "response.incomplete":
			s.End = event.Type + ": " + event.Response.IncompleteDetails.Reason
		}
	}
	return stream.Err()
}

func streamMessage(s *seen, url, model, prompt string) error {
	client := anthropic.NewClient(anthropicoption.WithBaseURL(url), anthropicoption.WithAPIKey("k"))
	stream := client.Messages.NewStreaming(context.Background(), anthropic.MessageNewParams{
		Model: anthropic.Model(model), MaxTokens: 64, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))},
	})
	var whole anthropic.Message
	for stream.Next() {
		event := stream.Current()
		if err := whole.Accumulate(event); err != nil {
			return err
		}
		s.read(event.Delta.Text)
		s.End = string(whole.StopReason)
	}
	return stream.Err()
}
