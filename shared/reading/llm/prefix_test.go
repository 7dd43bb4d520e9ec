package llm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// prefixOf returns the prefix of a body that arrives in the given chunks.
func prefixOf(t require.TestingT, api API, blocks int, chunks ...[]byte) []uint64 {
	r := new(RequestScanner)
	r.Reset(api, Want{PrefixBlocks: blocks}, jsonscan.Limits{})
	facts := r.Request()
	for _, c := range chunks {
		require.NoError(t, r.Feed(c))
	}
	require.NoError(t, r.End())
	return slices.Clone(facts.Prefix)
}

func chat(contents ...any) []byte {
	var messages []map[string]any
	for _, c := range contents {
		messages = append(messages, map[string]any{"role": "user", "content": c})
	}
	b, err := json.Marshal(map[string]any{"messages": messages, "model": "m"})
	if err != nil {
		panic(err)
	}
	return b
}

func common(a, b []uint64) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// words is text of n bytes in which no two blocks are the same.
func words(seed string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%s%d ", seed, i)
	}
	return b.String()[:n]
}

func TestPrefixCountsFullBlocks(t *testing.T) {
	for bytes, blocks := range map[int]int{0: 0, 1: 0, 249: 0, 250: 1, 255: 1, 256: 1, 510: 1, 511: 2, 25_599: 100, 1 << 20: 2048} {
		// One byte more ends the string, and five are the role where the message ends in the block in which it began.
		require.Len(t, prefixOf(t, Chat, DefaultPrefixBlocks, chat(words("a", bytes))), blocks, bytes)
	}
	require.Len(t, prefixOf(t, Chat, 3, chat(words("a", 10_000))), 3)
	require.Empty(t, prefixOf(t, Chat, 0, chat(words("a", 10_000))))
}

// A conversation that goes on has the blocks that it had before.
func TestPrefixGrowsWithTheConversation(t *testing.T) {
	system, question, answer := words("s", 5000), words("q", 3000), words("a", 4000)
	first := prefixOf(t, Chat, 2048, chat(system, question))
	second := prefixOf(t, Chat, 2048, chat(system, question, answer, "and now?"))
	other := prefixOf(t, Chat, 2048, chat(system, words("o", 9000)))
	require.Equal(t, len(first), common(first, second))
	require.Equal(t, (5000+1)/PrefixBlockBytes, common(first, other))
	require.Less(t, len(first), len(second))
}

// Where one message ends and the next begins makes a difference.
func TestPrefixKnowsBorders(t *testing.T) {
	a := prefixOf(t, Chat, 2048, chat("ab", "c"+words("x", 300)))
	b := prefixOf(t, Chat, 2048, chat("a", "bc"+words("x", 300)))
	require.Zero(t, common(a, b))
}

func TestPrefixOfEachAPI(t *testing.T) {
	text := words("t", 1000)
	quoted := `"` + text + `"`
	tokens := strings.TrimSuffix(strings.Repeat("128000,", 500), ",")
	for name, c := range map[string]struct {
		api    API
		body   string
		blocks int
	}{
		"chat, parts":        {Chat, `{"messages":[{"content":[{"type":"text","text":` + quoted + `}]}]}`, 3},
		"completions":        {Completions, `{"prompt":` + quoted + `}`, 3},
		"completions tokens": {Completions, `{"prompt":[` + tokens + `]}`, 13},
		"responses":          {Responses, `{"instructions":` + quoted + `,"input":[{"content":[{"type":"input_text","text":` + quoted + `}]}]}`, 6},
		"messages":           {Messages, `{"system":[{"type":"text","text":` + quoted + `}],"messages":[{"content":` + quoted + `}]}`, 6},
		"embeddings":         {Embeddings, `{"input":` + quoted + `}`, 0},
		"not an object":      {Chat, `[` + quoted + `]`, 0},
		"not the prompt":     {Chat, `{"user":` + quoted + `,"model":"m","messages":[{"role":"user"}]}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			require.Len(t, prefixOf(t, c.api, 2048, []byte(c.body)), c.blocks)
		})
	}
}

// Images and files count by their hash, wherever an API puts them, and do not end up in the prompt's text.
func TestPrefixOfMedia(t *testing.T) {
	for name, c := range map[string]struct {
		api  API
		part string
	}{
		"chat image":       {Chat, `{"type":"image_url","image_url":{"url":"$","detail":"low"}}`},
		"chat audio":       {Chat, `{"type":"input_audio","input_audio":{"data":"$","format":"wav"}}`},
		"chat file":        {Chat, `{"type":"file","file":{"file_data":"$","filename":"a.pdf"}}`},
		"responses image":  {Responses, `{"type":"input_image","image_url":"$","detail":"low"}`},
		"messages image":   {Messages, `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"$"}}`},
		"messages by name": {Messages, `{"type":"image","source":{"type":"url","url":"$"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			member := map[API]string{Chat: "messages", Responses: "input", Messages: "messages"}[c.api]
			body := func(media string) []byte {
				part := strings.ReplaceAll(c.part, "$", media)
				return []byte(`{"` + member + `":[{"content":[` + part + `,{"type":"text","text":"what is this?"}]}]}`)
			}
			large := strings.Repeat("QUJD", 50_000)
			a, again, b := prefixOf(t, c.api, 2048, body(large)), prefixOf(t, c.api, 2048, body(large)), prefixOf(t, c.api, 2048, body(large+"x"))
			require.Len(t, a, 4, "not as many blocks as the file has bytes")
			require.Equal(t, a, again)
			require.Zero(t, common(a, b))

			r := new(RequestScanner)
			r.Reset(c.api, Want{Prompt: true, PrefixBlocks: 2048}, jsonscan.Limits{})
			require.NoError(t, r.Feed(body(large)))
			require.NoError(t, r.End())
			require.Contains(t, string(r.Request().Prompt), "what is this?")
			require.NotContains(t, string(r.Request().Prompt), "QUJD")
			require.Less(t, r.Request().PromptBytes, 30)
		})
	}
}

// The hashes do not depend on the chunks, and all other facts do not depend on whether hashes are wanted.
func TestPrefixProperty(t *testing.T) {
	piece := rapid.OneOf(
		rapid.StringN(0, 40, 200),
		rapid.Custom(func(t *rapid.T) string {
			return words(rapid.StringMatching("[a-c]").Draw(t, "seed"), rapid.IntRange(0, 2000).Draw(t, "bytes"))
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		var contents []any
		var all string
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			s := strings.ToValidUTF8(piece.Draw(t, "text"), "?")
			contents = append(contents, s)
			began := len(all) / PrefixBlockBytes
			if s != "" {
				all += s + "\xff"
			}
			if len(all)/PrefixBlockBytes == began {
				all += "user\xf9"
			}
		}
		body := chat(contents...)
		whole := prefixOf(t, Chat, 2048, body)
		if want := len(all) / PrefixBlockBytes; len(whole) != want {
			t.Fatalf("%d blocks, want %d", len(whole), want)
		}
		var chunks [][]byte
		for rest := body; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 700)).Draw(t, "cut")
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, whole, prefixOf(t, Chat, 2048, chunks...))

		with, without := new(RequestScanner), new(RequestScanner)
		with.Reset(Chat, Want{Prompt: true, PrefixBlocks: 4}, jsonscan.Limits{})
		without.Reset(Chat, Want{Prompt: true}, jsonscan.Limits{})
		for _, c := range chunks {
			require.NoError(t, with.Feed(c))
			require.NoError(t, without.Feed(c))
		}
		require.NoError(t, with.End())
		require.NoError(t, without.End())
		got := *with.Request()
		got.Prefix = nil
		require.Equal(t, *without.Request(), got)
	})
}

// Every block tells: whichever is changed, all from there on differ, and those before do not.
func TestPrefixTellsEveryBlockApart(t *testing.T) {
	text := []byte(words("w", 64*PrefixBlockBytes))
	before := prefixOf(t, Chat, 2048, chat(string(text)))
	seen := map[uint64]bool{}
	for _, h := range before {
		require.False(t, seen[h])
		seen[h] = true
	}
	for i := range before {
		changed := slices.Clone(text)
		changed[i*PrefixBlockBytes+i] ^= 1
		after := prefixOf(t, Chat, 2048, chat(string(changed)))
		require.Equal(t, i, common(before, after))
		for j := i; j < len(after); j++ {
			require.NotEqual(t, before[j], after[j])
		}
	}
	// Equal blocks in a row are different prefixes.
	same := prefixOf(t, Chat, 2048, chat(strings.Repeat("a", 1000*PrefixBlockBytes)))
	seen = map[uint64]bool{}
	for _, h := range same {
		require.False(t, seen[h])
		seen[h] = true
	}
}

func TestPrefixAllocatesNothing(t *testing.T) {
	body := chatBody(64 << 10)
	r := new(RequestScanner)
	scan := func() {
		r.Reset(Chat, Want{PrefixBlocks: DefaultPrefixBlocks}, jsonscan.Limits{})
		if r.Feed(body) != nil || r.End() != nil || len(r.Request().Prefix) < 200 {
			t.Fatal("not read")
		}
	}
	scan()
	require.Zero(t, testing.AllocsPerRun(20, scan))
}
