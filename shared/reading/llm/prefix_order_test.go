package llm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// bodyOf joins members to a body, in their order.
func bodyOf(members ...string) []byte { return []byte("{" + strings.Join(members, ",") + "}") }

// byteByByte cuts a body into chunks of one byte.
func byteByByte(body []byte) (chunks [][]byte) {
	for i := range body {
		chunks = append(chunks, body[i:i+1])
	}
	return chunks
}

func quoted(text string) string { return `"` + text + `"` }

// schema is a tool with much to say.
func schema(name string) string {
	return `{"type":"function","function":{"name":"` + name + `","description":"` + words("d", 700) +
		`","parameters":{"type":"object","properties":{"n":{"type":"number","maximum":7}},"required":["n"]},"strict":true}}`
}

// A prompt begins with tools and instructions, wherever in the body they stand: official clients write them last (openai 3.52,
// anthropic 2.10).
func TestPrefixFollowsThePrompt(t *testing.T) {
	talk := func(turns int) (items []string) {
		for i := range turns {
			items = append(items, `{"role":"user","content":`+quoted(words(fmt.Sprint("q", i, "-"), 600))+`}`,
				`{"role":"assistant","content":`+quoted(words(fmt.Sprint("a", i, "-"), 300))+`}`)
		}
		return append(items, `{"role":"user","content":"`+words("end", 280)+`"}`)
	}
	instruction := quoted(words("i", 3000))
	for name, c := range map[string]struct {
		api     API
		before  []string // members before the conversation in the prompt, in any order in the body
		member  string   // the conversation
		shared  int      // blocks of before
		behind  string   // what comes behind it, if anything
		further int      // blocks of that
	}{
		"chat": {
			api: Chat, member: "messages", shared: 2 * len(schema("f")) / PrefixBlockBytes,
			before: []string{`"tools":[` + schema("f") + `,` + schema("g") + `]`, `"documents":[{"text":"a"}]`, `"chat_template_kwargs":{"thinking":true}`, `"reasoning_effort":"low"`},
		},
		"responses": {
			api: Responses, member: "input", shared: 11,
			before: []string{`"instructions":` + instruction, `"reasoning":{"effort":"low"}`, `"previous_response_id":"resp_1"`},
		},
		"messages": {
			api: Messages, member: "messages", shared: 11 + 1,
			before: []string{`"system":` + instruction, `"tools":[{"name":"f","input_schema":{"type":"object"},"description":"` + words("d", 300) + `"}]`},
		},
		"messages, blocks": {
			api: Messages, member: "messages", shared: 11,
			before: []string{`"system":[{"type":"text","text":` + instruction + `}]`, `"output_config":{"effort":"low"}`},
		},
		"completions": {
			api: Completions, member: "prompt",
			behind: `"suffix":` + quoted(words("s", 400)), further: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var longer []uint64
			for turns := range 4 {
				conversation := `"` + c.member + `":[` + strings.Join(talk(turns), ",") + `]`
				if c.api == Completions {
					conversation = `"prompt":` + quoted(words("p", 700+900*turns))
				}
				members := slices.Concat(c.before, []string{conversation, `"model":"m"`, `"temperature":0.5`})
				if c.behind != "" {
					members = append(members, c.behind)
				}
				want := prefixOf(t, c.api, 2048, bodyOf(members...))
				require.GreaterOrEqual(t, len(want), c.shared+c.further+900*turns/PrefixBlockBytes)
				for range members {
					members = append(members[1:], members[0])
					require.Equal(t, want, prefixOf(t, c.api, 2048, bodyOf(members...)))
					slices.Reverse(members)
					require.Equal(t, want, prefixOf(t, c.api, 2048, byteByByte(bodyOf(members...))...))
					slices.Reverse(members)
				}
				grown := common(longer, want)
				require.GreaterOrEqual(t, grown, len(longer)-c.further-1, "the last block of a turn may go on in the next")
				longer = want

				other := slices.Clone(members)
				for i := range other {
					other[i] = strings.Replace(other[i], conversation, `"`+c.member+`":`+quoted(words("other", 2000)), 1)
				}
				require.Equal(t, c.shared, common(want, prefixOf(t, c.api, 2048, bodyOf(other...))), "what they share is before the conversation")
			}
		})
	}
}

// Templates print the tools, names and structure included, before all else: each change of them is another prompt.
func TestPrefixHasTheTools(t *testing.T) {
	messages := `"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`
	with := func(tools string) []uint64 {
		return prefixOf(t, Chat, 2048, byteByByte(bodyOf(messages, `"tools":`+tools))...)
	}
	none := prefixOf(t, Chat, 2048, bodyOf(messages))
	for _, empty := range []string{`null`, `[]`, `[ ]`} {
		require.Equal(t, none, with(empty), empty)
	}
	const tool = `[{"type":"function","function":{"name":"f","description":"Finds.","parameters":{"type":"object","properties":{"n":{"type":"number","maximum":7}},"required":["n","m"],"additionalProperties":false}}}]`
	base := with(tool)
	require.Len(t, base, 3, "the tools are part of the first block")
	require.Zero(t, common(none, base))
	for _, same := range []string{
		strings.ReplaceAll(tool, ",", " ,\n "),
		strings.Replace(tool, `{"type":"function"`, `{"cache_control":{"type":"ephemeral","ttl":"1h","x":[1,"y",{"z":2}]},"type":"function"`, 1),
		strings.Replace(tool, `}}}]`, `}},"cache_control":{"type":"ephemeral","ttl":"5m"}}]`, 1),
		strings.Replace(tool, `"name":"f"`, `"n\u0061me":"\u0066"`, 1),
	} {
		require.Equal(t, base, with(same), same)
	}
	seen := map[uint64]string{base[0]: tool, none[0]: "none"}
	for _, change := range [][2]string{
		{`"f"`, `"g"`},
		{`Finds.`, `Finds!`},
		{`"number"`, `"integer"`}, // words of the protocol count too
		{`"n":{`, `"o":{`},
		{`"maximum"`, `"minimum"`},
		{`7`, `8`},
		{`false`, `true`},
		{`false`, `null`},
		{`["n","m"]`, `["nm"]`},
		{`["n","m"]`, `["n"],"x":["m"]`},
		{`["n","m"]`, `["n","m",""]`},
		{`,"maximum":7}`, `},"maximum":7`},
		{`"properties":{"n":`, `"properties":{"cache_control":{"type":"string"},"n":`}, // a parameter that is called so
		{`}]`, `},{"type":"function","function":{"name":"h"}}]`},
	} {
		require.Contains(t, tool, change[0])
		changed := strings.Replace(tool, change[0], change[1], 1)
		got := with(changed)
		require.NotContains(t, seen, got[0], changed)
		seen[got[0]] = changed
	}
	require.Len(t, with(`[`+schema("f")+`]`), 3+3, "three blocks of its JSON, three of what is said")
	require.Zero(t, common(base, prefixOf(t, Chat, 2048, bodyOf(messages, strings.Replace(`"functions":`+tool, "Finds", "Seeks", 1)))))
}

// Claude Code puts a block before its system prompt that says something else in each turn. vLLM leaves it out.
func TestPrefixLeavesBillingOut(t *testing.T) {
	const header = "x-anthropic-billing-header: cc_version=2.1.0; cch="
	prompt := words("s", 1000)
	block := func(text string) string { return `{"type":"text","text":` + quoted(text) + `}` }
	messages := `"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`
	prefix := func(members ...string) []uint64 {
		whole := prefixOf(t, Messages, 2048, bodyOf(members...))
		require.Equal(t, whole, prefixOf(t, Messages, 2048, byteByByte(bodyOf(members...))...))
		return whole
	}
	system := func(value string) []uint64 { return prefix(messages, `"system":`+value) }
	want := system("[" + block(prompt) + "]")
	for _, same := range []string{
		block(header+"1") + "," + block(prompt),
		block(header+"2") + "," + block(prompt),
		block(prompt) + "," + block(header+"3"),
		block(header+"4") + "," + block(header+"5") + "," + block(prompt) + "," + block(header),
		block("x-anthropic-billing-header") + "," + block(prompt),
		block("x-anthropic-billing-header"+prompt) + "," + block(prompt),
		`{"text":"\u0078-anthropic\u002dbilling-header: \u0061","type":"text"},` + block(prompt),
		`{"type":"text","text":"` + header + `","cache_control":{"type":"ephemeral","ttl":"1h"}},` + block(prompt),
	} {
		require.Equal(t, want, system("["+same+"]"), same)
	}
	for _, other := range []string{
		block("x-anthropic-billing-heade") + "," + block(prompt),
		block("x-anthropic-billing-heade: ") + "," + block(prompt),
		block("X-Anthropic-Billing-Header: 1") + "," + block(prompt),
		block(" "+header) + "," + block(prompt),
		block("x") + "," + block(prompt),
		`{"type":"text","title":"` + header + `"},` + block(prompt),
		`{"type":"x","content":[` + block(header) + `]},` + block(prompt),
		`[` + block(header) + `],` + block(prompt),
	} {
		require.Zero(t, common(want, system("["+other+"]")), other)
	}
	require.NotEqual(t, system(quoted(header+"1"+prompt)), system(quoted(header+"2"+prompt)), "a system prompt that is one string is shown as it is")
	user := func(n string) []uint64 {
		return prefix(`"messages":[{"role":"user","content":[` + block(header+n+prompt) + `]}]`)
	}
	require.Zero(t, common(user("1"), user("2")), "so is what a user says")

	inline := func(role, n string) []uint64 {
		return prefix(`"messages":[{"role":"` + role + `","content":[` + block(header+n) + "," + block(prompt) + `]},{"role":"user","content":"` + prompt + `"}]`)
	}
	require.Equal(t, inline("system", "1"), inline("system", "2"), "a system message among the others is treated as the system prompt")
	require.Zero(t, common(inline("user", "1"), inline("user", "2")))

	// A system message is treated so in whatever order it is written, also as one string, and one of which nothing is left has no turn.
	among := func(format, n string) []uint64 {
		return prefix(`"messages":[` + fmt.Sprintf(format, header+n) + `{"role":"user","content":"` + prompt + `"}]`)
	}
	bare := among("%.0s", "")
	for _, system := range []string{
		`{"role":"system","content":"%s"},`,
		`{"content":"%s","role":"system"},`,
		`{"role":"system","content":[{"type":"text","text":"%s"}]},`,
		`{"content":[{"text":"%s","type":"text"}],"role":"system"},`,
		`{"content":[{"text":"%[1]s","type":"text"},{"text":"%[1]s"}],"role":"system"},`,
		`{"role":"system","content":""},{"role":"system","content":"%s"},`,
	} {
		require.Equal(t, bare, among(system, "1"), system)
		require.Equal(t, bare, among(system, "2"), system)
	}
	for _, said := range []string{
		`{"role":"user","content":"%s"},`,
		`{"content":"%s","role":"user"},`,
		`{"content":"%s"},`,
		`{"content":[{"text":"%s","type":"text"},{"type":"text","text":` + quoted(prompt) + `}],"role":"assistant"},`,
		`{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":"%s"}]},`,
		`{"content":[{"type":"tool_result","content":[{"type":"text","text":"%s"}]}],"role":"system"},`,
		`{"content":[{"type":"tool_result","content":"%s"}],"role":"user"},`,
	} {
		require.Equal(t, among(said, "1"), among(said, "1"), said)
		require.Zero(t, common(among(said, "1"), among(said, "2")), said)
		require.Zero(t, common(bare, among(said, "2")), said)
	}

	chatted := func(n string) []uint64 {
		return prefixOf(t, Chat, 2048, bodyOf(`"messages":[{"role":"system","content":[`+block(header+n)+","+block(prompt)+`]}]`))
	}
	require.Zero(t, common(chatted("1"), chatted("2")), "another API has no such block")

	r := new(RequestScanner)
	r.Reset(Messages, Want{Prompt: true, PrefixBlocks: 8}, jsonscan.Limits{})
	require.NoError(t, r.Feed(bodyOf(`"system":[`+block(header+"1")+"]")))
	require.NoError(t, r.End())
	require.Equal(t, header+"1", string(r.Request().Prompt), "it is screened")
	require.Equal(t, len(header)+1, r.Request().PromptBytes)
}

// A mark for a provider's cache moves on with each turn; what servers make of the prompt does not depend on it.
func TestPrefixIgnoresCacheControl(t *testing.T) {
	for _, api := range []API{Chat, Messages} {
		body := func(mark string) []byte {
			return bodyOf(`"messages":[{"role":"user","content":[{"type":"text","text":"a"` + mark + `},{"type":"text","text":` + quoted(words("q", 1000)) + `}]}]`)
		}
		for _, mark := range []string{`,"cache_control":{"type":"ephemeral"}`, `,"cache_control":{"type":"ephemeral","ttl":"1h"}`, `,"cache_control":null`, `,"cache_control":["a",{"b":1}]`} {
			require.Equal(t, prefixOf(t, api, 2048, body("")), prefixOf(t, api, 2048, body(mark)), mark)
		}
	}
}

// What a call was made with is JSON that the model reads.
func TestPrefixHasTheArgumentsOfCalls(t *testing.T) {
	with := func(input string) []uint64 {
		return prefixOf(t, Messages, 2048, bodyOf(`"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":`+input+
			`}]},{"role":"user","content":`+quoted(words("q", 1000))+`}]`))
	}
	base := with(`{"a":{"n":1},"type":"user"}`)
	require.Equal(t, base, with(`{ "a" : {"n":1}, "type":"user"}`))
	for _, other := range []string{`{"a":{"n":2},"type":"user"}`, `{"a":{"m":1},"type":"user"}`, `{"a":{"n":1},"type":"system"}`, `{"a":{},"n":1,"type":"user"}`, `{"a":{"n":true},"type":"user"}`} {
		require.Zero(t, common(base, with(other)), other)
	}
}

// Some members make the prompt another from its beginning; most have nothing to do with it.
func TestPrefixAndFurtherMembers(t *testing.T) {
	for api, conversation := range map[API]string{
		Chat:        `"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`,
		Responses:   `"instructions":` + quoted(words("i", 600)) + `,"input":` + quoted(words("q", 1000)),
		Messages:    `"system":` + quoted(words("i", 600)) + `,"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`,
		Completions: `"prompt":` + quoted(words("q", 1000)),
	} {
		base := prefixOf(t, api, 2048, bodyOf(conversation))
		for _, member := range []string{
			`"temperature":0.7`, `"max_tokens":5`, `"user":"u"`, `"metadata":{"user_id":"u"}`, `"prompt_cache_key":"k"`, `"cache_salt":"s"`, `"extra_key":"e"`,
			`"lora_path":"l"`, `"seed":1`, `"stream":true`, `"stop":["a"]`, `"tool_choice":"none"`, `"parallel_tool_calls":false`, `"safety_identifier":"x"`,
			`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}`, `"tools":[]`, `"tools":null`, `"documents":null`,
			`"reasoning":{"summary":"auto"}`, `"reasoning":{"effort":null,"summary":{"effort":"low"}}`, `"reasoning":null`, `"reasoning":{}`,
			`"output_config":{"format":{"type":"json_schema","schema":{"effort":"low","type":"disabled"}}}`, `"thinking":null`,
			`"thinking":{"type":"enabled","budget_tokens":1024}`, `"thinking":{"budget_tokens":2048,"type":"enabled"}`, `"thinking":{"type":"adaptive"}`,
			`"chat_template_kwargs":{}`, `"chat_template_kwargs":null`, `"reasoning_effort":null`, `"chat_template":null`, `"unheard_of":"x"`,
		} {
			require.Equal(t, base, prefixOf(t, api, 2048, bodyOf(conversation, member)), "%v %s", api, member)
		}
		seen := map[uint64]string{base[0]: "none"}
		for _, member := range []string{
			`"chat_template_kwargs":{"enable_thinking":false}`, `"chat_template_kwargs":{"enable_thinking":true}`, `"chat_template_kwargs":{"thinking":true}`,
			`"chat_template_kwargs":{"a":{"b":1}}`, `"chat_template_kwargs":{"a":{},"b":1}`,
			`"chat_template":"{{ messages }}"`, `"chat_template_kwargs":{"chat_template":"{{ messages }}"}`, `"reasoning_effort":"high"`, `"reasoning_effort":"low"`,
			`"reasoning":{"effort":"high"}`, `"reasoning":{"effort":"low"}`, `"thinking":{"type":"disabled"}`, `"documents":[{"title":"a","text":"b"}]`, `"documents":[{"title":"ab"}]`, `"mm_processor_kwargs":{"max_pixels":1}`, `"add_special_tokens":true`, `"output_config":{"effort":"low"}`,
		} {
			if api == Completions && strings.Contains(member, "documents") {
				continue
			}
			first := prefixOf(t, api, 2048, bodyOf(conversation, member))[0]
			require.NotContains(t, seen, first, "%v %s", api, member)
			seen[first] = member
		}
	}
}

// What else is said of how much to think makes no difference to that.
func TestPrefixHasOnlyTheEffort(t *testing.T) {
	messages := `"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`
	for _, same := range [][]string{
		{`"reasoning":{"effort":"low"}`, `"reasoning":{"summary":"auto","effort":"low"}`, `"reasoning":{"effort":"low","summary":{"a":["b"]},"x":1}`},
		{`"output_config":{"effort":"low"}`, `"output_config":{"format":{"type":"json_schema","schema":{"a":[1]}},"effort":"low"}`, `"output_config":{"effort":"low","format":null}`},
		{`"thinking":{"type":"disabled"}`, `"thinking":{"display":"omitted","type":"disabled"}`, `"thinking":{"type":"disabled","x":{"type":"enabled"}}`},
	} {
		want := prefixOf(t, Messages, 2048, bodyOf(messages, same[0]))
		for _, member := range same[1:] {
			require.Equal(t, want, prefixOf(t, Messages, 2048, byteByByte(bodyOf(messages, member))...), member)
			require.Equal(t, want, prefixOf(t, Messages, 2048, bodyOf(member, messages)), member)
		}
	}
}

// Who speaks is part of the prompt, from the beginning of the message on, wherever in the message it stands.
func TestPrefixHasTheRoles(t *testing.T) {
	for api, member := range map[API]string{Chat: "messages", Messages: "messages", Responses: "input"} {
		for _, size := range []int{0, 5, PrefixBlockBytes - 2, PrefixBlockBytes - 1, PrefixBlockBytes, 1000} {
			text, rest := quoted(words("t", size)), `,{"role":"user","content":`+quoted(words("q", 1000))+`}]`
			seen := map[uint64]string{}
			for _, role := range []string{`"user"`, `"assistant"`, `"system"`, `"developer"`, `"tool"`, `"ipython"`, `null`} {
				if size == 0 && role == `"system"` {
					continue // Messages: no turn
				}
				first := prefixOf(t, api, 2048, bodyOf(quoted(member)+`:[{"role":`+role+`,"content":`+text+`}`+rest))
				require.NotContains(t, seen, first[0], "%v: %s is as %s, %d bytes", api, role, seen[first[0]], size)
				seen[first[0]] = role
				if role == `"ipython"` {
					continue // a word that is not known is text, in its place
				}
				last := prefixOf(t, api, 2048, byteByByte(bodyOf(quoted(member)+`:[{"content":`+text+`,"role":`+role+`}`+rest))...)
				require.Equal(t, first, last, "%v: %s, %d bytes", api, role, size)
			}
		}
	}
	item := func(item string) []uint64 {
		return prefixOf(t, Responses, 2048, bodyOf(`"input":[`+item+`,{"role":"user","content":`+quoted(words("q", 1000))+`}]`))
	}
	require.Equal(t, item(`{"role":"user","content":"x"}`), item(`{"type":"message","role":"user","content":"x"}`))
	require.Equal(t, item(`{"role":"user","content":"x"}`), item(`{"content":"x","role":"user","type":"message"}`))
	require.Zero(t, common(item(`{"role":"user","content":"x"}`), item(`{"type":"function_call_output","output":"x"}`)))
	require.Zero(t, common(item(`{"type":"reasoning","content":"x"}`), item(`{"type":"function_call_output","output":"x"}`)))
}

// A conversation that the server has comes behind the instructions.
func TestPrefixOfAnEarlierResponse(t *testing.T) {
	with := func(id string) []uint64 {
		return prefixOf(t, Responses, 2048, bodyOf(`"input":`+quoted(words("q", 1000)), id, `"instructions":`+quoted(words("i", 1000))))
	}
	none, first, second := with(`"previous_response_id":null`), with(`"previous_response_id":"resp_1"`), with(`"previous_response_id":"resp_2"`)
	require.Len(t, none, 6)
	require.Equal(t, 3, common(none, first))
	require.Equal(t, 3, common(first, second))
	require.Equal(t, none, prefixOf(t, Responses, 2048, bodyOf(`"instructions":`+quoted(words("i", 1000)), `"input":`+quoted(words("q", 1000)))))
}

// When there are more blocks than are wanted, the first of the prompt are those that count, not the first of the body.
func TestPrefixLimitInPromptOrder(t *testing.T) {
	system, messages := `"system":`+quoted(words("s", 1000)), `"messages":[{"role":"user","content":`+quoted(words("q", 100_000))+`}]`
	all := prefixOf(t, Messages, 2048, bodyOf(messages, system))
	for limit := range 8 {
		require.Equal(t, len(all[:limit]), len(prefixOf(t, Messages, limit, bodyOf(messages, system))))
		require.Equal(t, limit, common(all, prefixOf(t, Messages, limit, bodyOf(messages, system))))
		require.Equal(t, limit, common(all, prefixOf(t, Messages, limit, bodyOf(system, messages))))
	}
}

// What fills no block of its own tells prompts apart all the same.
func TestPrefixCountsEveryByteBeforeABlock(t *testing.T) {
	messages := `"messages":[{"role":"user","content":` + quoted(words("q", 1000)) + `}]`
	seen := map[uint64]int{}
	for n := range 3 * PrefixBlockBytes {
		prefix := prefixOf(t, Messages, 2048, bodyOf(messages, `"system":`+quoted(strings.Repeat("s", n))))
		first := prefix[len(prefix)-3] // of the messages
		require.NotContains(t, seen, first, "%d is as %d", n, seen[first])
		seen[first] = n
	}
	system := prefixOf(t, Messages, 2048, bodyOf(`"system":`+quoted(words("x", 1000))))
	said := prefixOf(t, Messages, 2048, bodyOf(`"messages":[{"role":"user","content":`+quoted(words("x", 1000))+`}]`))
	require.Zero(t, common(system, said), "the same text elsewhere is another prompt")
}

// The order of the members and the chunks make no difference, whatever they hold.
func TestPrefixOrderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return quoted(words(rapid.StringMatching("[a-c]").Draw(t, "seed"), rapid.IntRange(0, 1500).Draw(t, "bytes")))
		})
		members := []string{
			`"system":[{"type":"text","text":"x-anthropic-billing-header"},{"type":"text","text":` + text.Draw(t, "system") + `}]`,
			`"messages":[{"role":"user","content":` + text.Draw(t, "said") + `},{"content":[{"text":` + text.Draw(t, "more") + `,"type":"text"}],"role":"system"}]`,
			`"tools":[{"name":"f","description":` + text.Draw(t, "tool") + `,"cache_control":{"ttl":"1h"}}]`,
			`"chat_template_kwargs":{"a":` + text.Draw(t, "argument") + `,"b":1}`,
			`"model":"m"`, `"x":` + text.Draw(t, "x"),
		}
		limit := rapid.IntRange(1, 30).Draw(t, "limit")
		want := prefixOf(t, Messages, limit, bodyOf(members...))
		body := bodyOf(rapid.Permutation(members).Draw(t, "members")...)
		var chunks [][]byte
		for len(body) > 0 {
			n := rapid.IntRange(1, min(len(body), 300)).Draw(t, "cut")
			chunks, body = append(chunks, body[:n]), body[n:]
		}
		require.Equal(t, want, prefixOf(t, Messages, limit, chunks...))
	})
}

func TestPrefixOfToolsAllocatesNothing(t *testing.T) {
	body := bodyOf(`"messages":[{"role":"user","content":`+quoted(words("q", 30_000))+`}]`, `"system":[{"type":"text","text":`+quoted(words("s", 9000))+`}]`,
		`"tools":[`+schema("f")+`,`+schema("g")+`]`, `"chat_template_kwargs":{"a":true}`)
	r := new(RequestScanner)
	scan := func() {
		r.Reset(Messages, Want{PrefixBlocks: DefaultPrefixBlocks}, jsonscan.Limits{})
		if r.Feed(body) != nil || r.End() != nil || len(r.Request().Prefix) < 150 {
			t.Fatal("not read")
		}
	}
	scan()
	require.Zero(t, testing.AllocsPerRun(20, scan))
}

// What decides the prefix is refused when it stands twice, as any member that is read.
func TestRepeatedMembersOfThePrefix(t *testing.T) {
	repeated := func(want Want, members ...string) string {
		r := new(RequestScanner)
		r.Reset(Chat, want, jsonscan.Limits{})
		require.NoError(t, r.Feed(bodyOf(members...)))
		require.NoError(t, r.End())
		return r.Request().Repeated
	}
	for _, want := range []Want{{PrefixBlocks: 8}, {Prompt: true}} {
		for _, name := range named {
			if name == "previous_response_id" {
				continue // of another API
			}
			member := quoted(name) + `:null`
			require.Equal(t, name, repeated(want, member, `"messages":[]`, member))
			require.Empty(t, repeated(want, member, `"messages":[]`))
		}
		require.Empty(t, repeated(want, `"tools":[]`, `"functions":[]`, `"reasoning":null`, `"reasoning_effort":null`))
		require.Equal(t, "tools", repeated(want, `"tools":[]`, `"t\u006fols":[]`, `"functions":[]`, `"functions":[]`))
	}
	require.Empty(t, repeated(Want{}, `"tools":[]`, `"tools":[]`), "nobody reads them")
}
