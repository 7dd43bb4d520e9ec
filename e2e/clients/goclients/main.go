// Command goclients has conversations through the official Go clients of OpenAI and Anthropic, as their users write them.
// turns_test.go documents its input and output. With a key it sends two requests, see retries. With a URL only it reads streams that a gateway
// blocks, see blocked.
//
//	usage: goclients BASE_URL
//	       goclients BASE_URL chat|responses|messages
//	       goclients BASE_URL openai|anthropic KEY
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
)

// task is what to say.
type task struct {
	Model        string
	Instructions []string
	Turns        int
}

func main() {
	if len(os.Args) == 2 {
		blocked(os.Args[1])
		return
	}
	if len(os.Args) == 4 {
		retries(os.Args[1], os.Args[2], os.Args[3])
		return
	}
	var t task
	check(json.NewDecoder(os.Stdin).Decode(&t))
	talk := map[string]func(string, task) func(c, turn int) http.Header{"chat": chat, "responses": respond, "messages": message}[os.Args[2]](os.Args[1], t)
	for turn := range t.Turns {
		for c := range t.Instructions {
			h := talk(c, turn)
			check(json.NewEncoder(os.Stdout).Encode(map[string]any{
				"conversation": c, "turn": turn, "why": h.Get("x-inlet-why"), "cached": h.Get("x-modelsim-cached"), "replica": h.Get("x-modelsim-replica"),
			}))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func question(turn int) string {
	return fmt.Sprintf("Question %d: what does the instruction say about this, and why does it matter?", turn)
}

var place = map[string]any{"type": "object", "properties": map[string]any{"place": map[string]any{"type": "string", "description": "where"}}, "required": []string{"place"}}

func chat(url string, t task) func(c, turn int) http.Header {
	client := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("k"))
	said := make([][]openai.ChatCompletionMessageParamUnion, len(t.Instructions))
	for c, text := range t.Instructions {
		said[c] = append(said[c], openai.SystemMessage(text))
	}
	return func(c, turn int) http.Header {
		said[c] = append(said[c], openai.UserMessage(question(turn)))
		var raw *http.Response
		answer, err := client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
			Model: t.Model, Messages: said[c], MaxTokens: openai.Int(16),
			Tools: []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
				Name: "weather", Description: openai.String("Tells the weather of a place."), Parameters: place,
			})},
		}, option.WithResponseInto(&raw))
		check(err)
		said[c] = append(said[c], openai.AssistantMessage(answer.Choices[0].Message.Content))
		return raw.Header
	}
}

func respond(url string, t task) func(c, turn int) http.Header {
	client := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("k"))
	said := make([]responses.ResponseInputParam, len(t.Instructions))
	return func(c, turn int) http.Header {
		said[c] = append(said[c], responses.ResponseInputItemParamOfMessage(question(turn), responses.EasyInputMessageRoleUser))
		var raw *http.Response
		answer, err := client.Responses.New(context.Background(), responses.ResponseNewParams{
			Model: t.Model, Instructions: openai.String(t.Instructions[c]), MaxOutputTokens: openai.Int(16),
			Input: responses.ResponseNewParamsInputUnion{OfInputItemList: said[c]},
			Tools: []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{
				Name: "weather", Description: openai.String("Tells the weather of a place."), Parameters: place, Strict: openai.Bool(false),
			}}},
		}, option.WithResponseInto(&raw))
		check(err)
		said[c] = append(said[c], responses.ResponseInputItemParamOfMessage(answer.OutputText(), responses.EasyInputMessageRoleAssistant))
		return raw.Header
	}
}

func message(url string, t task) func(c, turn int) http.Header {
	client := anthropic.NewClient(anthropicoption.WithBaseURL(url), anthropicoption.WithAPIKey("k"))
	said := make([][]anthropic.MessageParam, len(t.Instructions))
	return func(c, turn int) http.Header {
		said[c] = append(said[c], anthropic.NewUserMessage(anthropic.NewTextBlock(question(turn))))
		var raw *http.Response
		answer, err := client.Messages.New(context.Background(), anthropic.MessageNewParams{
			Model: anthropic.Model(t.Model), MaxTokens: 16, Messages: said[c],
			System: []anthropic.TextBlockParam{
				{Text: fmt.Sprintf("x-anthropic-billing-header: cc_version=2.1.0; cch=%04x;", turn*7919+c)}, // as Claude Code does
				{Text: t.Instructions[c]},
			},
			Tools: []anthropic.ToolUnionParam{{OfTool: &anthropic.ToolParam{
				Name: "weather", Description: anthropic.String("Tells the weather of a place."),
				InputSchema: anthropic.ToolInputSchemaParam{Properties: place["properties"], Required: []string{"place"}},
			}}},
		}, anthropicoption.WithResponseInto(&raw))
		check(err)
		said[c] = append(said[c], anthropic.NewAssistantMessage(anthropic.NewTextBlock(answer.Content[0].Text)))
		return raw.Header
	}
}
