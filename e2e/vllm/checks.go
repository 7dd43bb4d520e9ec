package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The limits for a build.
const (
	minCached       = 0.77 // share of the tokens of growing conversations that vLLM must find in its caches
	maxAlternating  = 0.70 // share that it may find at most if turns alternate between the servers; otherwise the check above proves nothing
	maxEstimateMiss = 0.03 // how far the picker's estimate may be from vLLM's own count
)

// players are the official clients.
type players struct{ openAIPython, openAINode, anthropicPython *client }

// checks are the checks of one build.
type checks struct {
	*gateway
	players
	name  string // of the build
	seed  string // of the prompts: the caches have those of other builds, and of other runs
	out   io.Writer
	wrong int
}

// say prints a line about a result.
func (c *checks) say(ok bool, format string, args ...any) {
	mark := "ok   "
	if !ok {
		mark = "WRONG"
		c.wrong++
	}
	_, _ = fmt.Fprintf(c.out, "%s  %-6s  %s\n", mark, c.name, fmt.Sprintf(format, args...))
}

// tokens compares Inlet's counts, the responses' usage and vLLM's counts, one request after the other. Each is sent
// twice: the second time most of it is cached, which some APIs report in another way.
func (c *checks) tokens(ctx context.Context) error {
	for _, kind := range []struct {
		client *client
		apis   []string
	}{
		{c.openAIPython, []string{"chat", "completions", "responses"}},
		{c.openAINode, []string{"chat", "completions", "responses"}},
		{c.anthropicPython, []string{"messages"}},
	} {
		for _, api := range kind.apis {
			for _, stream := range []bool{false, true} {
				what := fmt.Sprintf("tokens of %s%s, %s", api, map[bool]string{true: ", streamed"}[stream], kind.client.name)
				body := request(api, publicModel, text(c.seed+what, 800), asksUsage(api, stream)...)
				for _, cached := range []bool{false, true} {
					if err := c.tokensOf(ctx, what, kind.client, ask{c.URL(), api, stream, body}, cached); err != nil {
						return fmt.Errorf("%s: %w", what, err)
					}
				}
			}
		}
	}
	return c.noUsage(ctx)
}

// tokensOf sends one request and compares.
func (c *checks) tokensOf(ctx context.Context, what string, with *client, a ask, cached bool) error {
	before, err := c.counts(ctx)
	if err != nil {
		return err
	}
	got, err := with.play(a)
	if err != nil {
		return err
	}
	after, err := c.since(ctx, before, 1)
	if err != nil {
		return err
	}
	if got.Usage == nil {
		c.say(false, "%s: no usage", what)
		return nil
	}
	said := got.Usage.tokens()
	inlet := tokens{after.inlet.input, said.cached, after.inlet.output} // Inlet does not count cached tokens
	ok := said.input > 0 && said.output > 0 && (said.cached > 0) == cached && inlet == said && after.server == said &&
		after.inletUnknown == 0 && slices.Equal(got.Models, []string{publicModel})
	c.say(ok, "%s: input %d, of which cached %d, output %d; Inlet counts %d and %d, vLLM %d and %d; model %s",
		what, said.input, said.cached, said.output, after.inlet.input, after.inlet.output, after.server.input, after.server.output, strings.Join(got.Models, ", "))
	return nil
}

// noUsage is a stream whose client did not request the usage: it has none, and Inlet must count it as unknown.
func (c *checks) noUsage(ctx context.Context) error {
	before, err := c.counts(ctx)
	if err != nil {
		return err
	}
	got, err := c.openAIPython.play(ask{c.URL(), "chat", true, request("chat", publicModel, text(c.seed+"no usage", 300))})
	if err != nil {
		return err
	}
	after, err := c.since(ctx, before, 1)
	if err != nil {
		return err
	}
	c.say(got.Usage == nil && after.inlet.input == 0 && after.inlet.output == 0 && after.inletUnknown == 1,
		"a stream without usage: Inlet counts %d and %d tokens, and %d answers of unknown usage", after.inlet.input, after.inlet.output, after.inletUnknown)
	return nil
}

// growing plays conversations through Inlet, and checks what was cached.
func (c *checks) growing(ctx context.Context) error {
	before, err := c.counts(ctx)
	if err != nil {
		return err
	}
	said, n, err := c.play(ctx, c.seed+" growing ", publicModel, c.URL())
	if err != nil {
		return err
	}
	got, err := c.since(ctx, before, n)
	if err != nil {
		return err
	}
	c.say(got.inlet.input == said.input && got.inlet.output == said.output && got.server == said,
		"tokens of %d requests of conversations, three clients at once: usage says %d and %d, Inlet counts %d and %d, vLLM %d and %d",
		n, said.input, said.output, got.inlet.input, got.inlet.output, got.server.input, got.server.output)
	cached, estimate := share(got.server.cached, got.queried), share(got.inlet.cached, got.hashed)
	c.say(cached >= minCached, "conversations: %.3f of their tokens were cached, want at least %.2f", cached, minCached)
	c.say(math.Abs(estimate-cached) <= maxEstimateMiss, "the picker's estimate is %.3f, want it within %.2f of that", estimate, maxEstimateMiss)
	return nil
}

// alternating plays such conversations without Inlet, with each turn on the other server, to show that the check of
// growing ones is meaningful.
func (c *checks) alternating(ctx context.Context) error {
	var bases []string
	for _, s := range c.servers {
		bases = append(bases, s.url())
	}
	said, _, err := c.play(ctx, c.seed+" alternating ", servedModel, bases...)
	cached := share(said.cached, said.input)
	if err == nil {
		c.say(cached <= maxAlternating, "conversations whose turns alternate between the servers: %.3f were cached, want at most %.2f, or the check above proves nothing", cached, maxAlternating)
	}
	return err
}

func share(part, whole int) float64 { return float64(part) / float64(max(whole, 1)) }

// instructionTokens is the length of the instructions that requests share. Blocks of the cache have 128 tokens: the last one
// has the beginning of the question too, and the first one the template's words.
const instructionTokens, instructionsCached = 1500, 1280

// sharedInstructions asks two questions for each of several instructions. The second time the instructions must be
// cached, wherever in the body the client writes them, and whatever the body has that the model does not read.
func (c *checks) sharedInstructions(ctx context.Context) error {
	turn := 0
	for _, kind := range []struct {
		what   string
		client *client
		api    string
		more   func(instructions string) field
	}{
		{"system of Messages, which the client writes after the messages", c.anthropicPython, "messages", func(text string) field { return field{"system", text} }},
		{"the same after Claude Code's line, which is new each time", c.anthropicPython, "messages", func(text string) field {
			turn++
			billing := fmt.Sprintf("x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli; cch=%05x;", turn)
			return field{"system", []fields{{{"type", "text"}, {"text", billing}}, {{"type", "text"}, {"text", text}}}}
		}},
		{"instructions of Responses, which the client writes after the input", c.openAIPython, "responses", func(text string) field { return field{"instructions", text} }},
	} {
		const tries = 6
		cached := 0
		for i := range tries {
			instructions := text(fmt.Sprint(c.seed, kind.what, i), instructionTokens)
			for n := range 2 {
				body := request(kind.api, publicModel, text(fmt.Sprint("question ", c.seed, i, n), 60), kind.more(instructions))
				got, err := kind.client.play(ask{c.URL(), kind.api, false, body})
				if err != nil {
					return fmt.Errorf("%s: %w", kind.what, err)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if n == 1 && got.Usage != nil && got.Usage.tokens().cached >= instructionsCached {
					cached++
				}
			}
		}
		c.say(cached == tries, "%s: cached at the second call in %d of %d", kind.what, cached, tries)
	}
	return nil
}
