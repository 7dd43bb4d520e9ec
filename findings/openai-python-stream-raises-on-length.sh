#!/usr/bin/env bash
# OpenAI's Python client raises on finish_reason "length" and "content_filter" in streams of plain text.
#
# Expected: chat.completions.stream() and .parse() raise LengthFinishReasonError or ContentFilterFinishReasonError only if
# the caller asked for structured output; a text that ends early is a normal end, as with create() and as in Node.
# Seen (PyPI openai 3.57.0, npm openai 7.59.0; no response_format, no tools): Python's stream() and parse() raise for both
# reasons. Node's parse() throws too, Node's stream() does not.
# Why it matters to a gateway: a gateway that lowers max_tokens, or blocks with finish_reason "content_filter", turns a response into
# an exception for users of Python's stream(), after they have already seen the text.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 >/dev/null
cat >stream.py <<'PY'
import json, sys
import httpx2, openai

def chunk(delta, reason=None):
    return "data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                  "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + "\n\n"

def client(reason, stream):
    if stream:
        kind, body = "text/event-stream", chunk({"role": "assistant", "content": "hello "}) + chunk({"content": "wor"}) + chunk({}, reason) + "data: [DONE]\n\n"
    else:
        kind, body = "application/json", json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": "hello wor"}}]})
    answer = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=body))
    return openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", max_retries=0, http_client=httpx2.Client(transport=answer))

def streamed(reason):
    with client(reason, True).chat.completions.stream(model="m", messages=[]) as events:
        for _ in events:
            pass
        return events.get_final_completion().choices[0].finish_reason

calls = {
    "create": lambda r: client(r, False).chat.completions.create(model="m", messages=[]).choices[0].finish_reason,
    "parse": lambda r: client(r, False).chat.completions.parse(model="m", messages=[]).choices[0].finish_reason,
    "stream": streamed,
}
for name, call in calls.items():
    for reason in ("stop", "length", "content_filter"):
        try:
            got = call(reason)
        except openai.OpenAIError as e:
            got = type(e).__name__
        print("python", name, reason, "->", got)
PY
cat >stream.mjs <<'JS'
import OpenAI from 'openai';
const completion = (reason) => JSON.stringify({id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [{index: 0, finish_reason: reason, message: {role: 'assistant', content: 'hello wor'}}]});
const chunk = (delta, reason = null) => `data: ${JSON.stringify({id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{index: 0, delta, finish_reason: reason}]})}\n\n`;
const client = (type, body) => new OpenAI({apiKey: 'k', baseURL: 'http://127.0.0.1:1', maxRetries: 0, fetch: async () => new Response(body, {headers: {'content-type': type}})}).chat.completions;
const ask = {model: 'm', messages: []};
const calls = {
  create: (r) => client('application/json', completion(r)).create(ask),
  parse: (r) => client('application/json', completion(r)).parse(ask),
  stream: (r) => client('text/event-stream', chunk({role: 'assistant', content: 'hello '}) + chunk({content: 'wor'}) + chunk({}, r) + 'data: [DONE]\n\n').stream(ask).finalChatCompletion(),
};
for (const [name, call] of Object.entries(calls)) {
  for (const reason of ['stop', 'length', 'content_filter']) {
    const got = await call(reason).then((c) => c.choices[0].finish_reason, (e) => e.constructor.name);
    console.log('node', name, reason, '->', got);
  }
}
JS
{ venv/bin/python stream.py; node stream.mjs; } | tee seen
diff - seen <<'WANT'
python create stop -> stop
python create length -> length
python create content_filter -> content_filter
python parse stop -> stop
python parse length -> LengthFinishReasonError
python parse content_filter -> ContentFilterFinishReasonError
python stream stop -> stop
python stream length -> LengthFinishReasonError
python stream content_filter -> ContentFilterFinishReasonError
node create stop -> stop
node create length -> length
node create content_filter -> content_filter
node parse stop -> stop
node parse length -> LengthFinishReasonError
node parse content_filter -> ContentFilterFinishReasonError
node stream stop -> stop
node stream length -> length
node stream content_filter -> content_filter
WANT
