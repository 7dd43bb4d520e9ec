package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// retries sends two requests through the client of an API, and prints one line for each: ok, or the status of the error that the client returned.
func retries(url, api, key string) {
	for range 2 {
		var openAI *openai.Error
		var anthropicError *anthropic.Error
		switch err := ask(url, api, key); {
		case err == nil:
			fmt.Println("ok")
		case errors.As(err, &openAI):
			fmt.Println(openAI.StatusCode)
		case errors.As(err, &anthropicError):
			fmt.Println(anthropicError.StatusCode)
		default:
			check(err)
		}
	}
}

func ask(url, api, key string) (err error) {
	if api == "openai" {
		client := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey(key))
		_, err = client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
			Model: "llama", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")}, MaxTokens: openai.Int(4),
		})
		return err
	}
	client := anthropic.NewClient(anthropicoption.WithBaseURL(url), anthropicoption.WithAPIKey(key))
	_, err = client.Messages.New(context.Background(), anthropic.MessageNewParams{
		Model: "llama", MaxTokens: 4, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hello"))},
	})
	return err
}
