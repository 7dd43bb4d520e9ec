#!/usr/bin/env bash
# Mistral's older chat templates put the system prompt and the tools before the LAST user message.
#
# Expected: a chat template writes tools and system prompt first, so conversations that share them share a prefix of the
# prompt, and turn n+1 of a conversation begins with the whole of turn n.
# Seen (mistral-common 1.13.1, the tokenizers it ships): with v2 and v3 (Mistral 7B v0.2/v0.3, Mixtral, Nemo 2407) the system
# prompt moves into the last user message and the tools come right before it. The first two turns of a conversation share
# one or two tokens, later turns only what came before the previous question. v7 puts the system prompt first, but still
# moves the tools. v1 keeps everything in place (it has no tools).
# Why it matters to a gateway: a router that hashes "tools, system, messages" expects cache hits that such a replica does
# not have, and sends all conversations with one system prompt to one replica without any benefit.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check 'mistral-common[sentencepiece]==1.13.1' pydantic==2.14.4 numpy==2.3.5
cat >"$dir/turns.py" <<'PY'
import sys
from importlib.metadata import version
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, Tool
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

tool = Tool(function=Function(name="weather", description="The weather of a city", parameters={"type": "object", "properties": {"city": {"type": "string"}}}))

def turn(n):
    messages = [SystemMessage(content="You answer briefly and politely. " * 40)]
    for i in range(n):
        messages.append(UserMessage(content=f"Question {i}. " * 20))
        if i < n - 1:
            messages.append(AssistantMessage(content=f"Answer {i}. " * 20))
    return messages

def shared(tokenizer, tools):
    """Tokens that turns 1 and 2 have in common at their beginning, and the tokens of turn 1."""
    a, b = (tokenizer.encode_chat_completion(ChatCompletionRequest(messages=turn(n), tools=tools)).tokens for n in (1, 2))
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
    return same, len(a)

print("mistral-common", version("mistral-common"))
seen = {}
for name, make in (("v1", MistralTokenizer.v1), ("v2", MistralTokenizer.v2), ("v3", MistralTokenizer.v3),
                   ("v3 tekken", lambda: MistralTokenizer.v3(is_tekken=True)), ("v7", MistralTokenizer.v7)):
    for tools in (None, [tool]):
        same, whole = shared(make(), tools)
        seen[name, bool(tools)] = same / whole
        print(f"{name:10} {'tools' if tools else 'no tools':9} turn 2 begins with {same:4} of the {whole} tokens of turn 1")
ok = all(seen[n, t] < 0.01 for n in ("v2", "v3", "v3 tekken") for t in (False, True))
ok = ok and seen["v7", False] == 1 and seen["v7", True] < 0.9 and seen["v1", False] == 1
sys.exit(0 if ok else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/turns.py"
