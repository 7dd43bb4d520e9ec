package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/inlet-proxy/inlet/e2e/clients"
)

// client is an official client in its own process, which sends one request after the other. Only one goroutine may use it
// at a time.
type client struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Reader
}

// ask is one request. Body has the arguments of the client's method, in the order in which its users write them.
type ask struct {
	Base   string `json:"base"`
	API    string `json:"api"`
	Stream bool   `json:"stream"`
	Body   fields `json:"body"`
}

// answer is what the client got.
type answer struct {
	ID     string   `json:"id"` // x-request-id; "" of a server without
	Models []string `json:"models"`
	Text   string   `json:"text"`
	Usage  *usage   `json:"usage"`
	Error  string   `json:"error"`
}

// usage is that of any of the four APIs.
type usage struct {
	PromptTokens     int         `json:"prompt_tokens"`
	CompletionTokens int         `json:"completion_tokens"`
	PromptDetails    cachedCount `json:"prompt_tokens_details"`
	InputTokens      int         `json:"input_tokens"`
	OutputTokens     int         `json:"output_tokens"`
	InputDetails     cachedCount `json:"input_tokens_details"`
	CacheCreation    int         `json:"cache_creation_input_tokens"`
	CacheRead        int         `json:"cache_read_input_tokens"`
}

type cachedCount struct {
	CachedTokens int `json:"cached_tokens"`
}

// tokens are the counts that all APIs have: input are all tokens of the prompt, cached ones included.
type tokens struct{ input, cached, output int }

func (t tokens) plus(u tokens) tokens {
	return tokens{t.input + u.input, t.cached + u.cached, t.output + u.output}
}

func (u *usage) tokens() tokens {
	return tokens{
		// Messages: input_tokens excludes tokens read from the cache or written to it.
		input:  u.PromptTokens + u.InputTokens + u.CacheCreation + u.CacheRead,
		cached: u.PromptDetails.CachedTokens + u.InputDetails.CachedTokens + u.CacheRead,
		output: u.CompletionTokens + u.OutputTokens,
	}
}

// field is a member of a JSON object.
type field struct {
	name  string
	value any
}

// fields are an object's members in their order.
type fields []field

// MarshalJSON keeps the order.
func (f fields) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, m := range f {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

// startClient starts a script of this folder. It ends with close, or with ctx.
func startClient(ctx context.Context, name string, with *clients.Runtime, script string) (*client, error) {
	c := &client{name: name, cmd: with.Command(ctx, script)}
	c.cmd.Env = append(c.cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	c.cmd.Stderr = os.Stderr
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.answers = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *client) close() {
	_ = c.stdin.Close() // at which the scripts end
	_ = c.cmd.Wait()
}

// play sends a request and returns the result. An exception of the client is an error.
func (c *client) play(a ask) (*answer, error) {
	line, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	if line, err = c.answers.ReadBytes('\n'); err != nil {
		return nil, fmt.Errorf("%s ended: %w", c.name, err)
	}
	got := &answer{}
	if err := json.Unmarshal(line, got); err != nil {
		return nil, fmt.Errorf("%s: %w in %s", c.name, err, line)
	}
	if got.Error != "" {
		return nil, errors.New(c.name + ": " + got.Error)
	}
	return got, nil
}
