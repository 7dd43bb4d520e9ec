#!/usr/bin/env bash
# OpenAI's Python client returns no final response for a Responses stream that ends with response.incomplete.
#
# Expected: response.incomplete is one of the three regular ends of a Responses stream (max_output_tokens reached, content
# filter); get_final_response() returns the response with its status, as Node's finalResponse() does.
# Seen (PyPI openai 3.57.0, npm openai 7.59.0): Python raises RuntimeError "Didn't receive a `response.completed` event." for
# response.incomplete and response.failed. A response.completed event whose response has the status "incomplete" works.
# Node returns the response in all three cases.
# Why it matters to a gateway: a gateway that ends a stream early must choose the event. The event that the
# API documents for it raises an exception in Python; response.completed with the status "incomplete" works in both.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 >/dev/null
cat >events.py <<'PY'
import json, os
text = {"type": "output_text", "text": "half an ans", "annotations": []}
def response(status, output, **more):
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": output, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, **more}
def message(status, content):
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}
def stream(end, status, **more):
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": message("in_progress", [])},
        {"type": "response.content_part.added", **at, "part": {**text, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": text["text"], "logprobs": []},
        {"type": "response.output_text.done", **at, "text": text["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": message("incomplete", [text])},
        {"type": end, "response": response(status, [message("incomplete", [text])], **more)},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': i})}\n\n" for i, e in enumerate(events))
ends = {
    "incomplete": stream("response.incomplete", "incomplete", incomplete_details={"reason": "max_output_tokens"}),
    "failed": stream("response.failed", "failed", error={"code": "server_error", "message": "the engine died"}),
    "completed-incomplete": stream("response.completed", "incomplete", incomplete_details={"reason": "max_output_tokens"}),
}
for name, body in ends.items():
    open(name, "w").write(body)

import httpx2, openai
for name in ends:
    answer = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=open(name).read()))
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", max_retries=0, http_client=httpx2.Client(transport=answer))
    try:
        with client.responses.stream(model="m", input="x") as s:
            got = s.get_final_response().status
    except RuntimeError as e:
        got = f"RuntimeError {e}"
    print("python", name, "->", got)
PY
cat >events.mjs <<'JS'
import OpenAI from 'openai';
import {readFileSync} from 'node:fs';
for (const name of ['incomplete', 'failed', 'completed-incomplete']) {
  const client = new OpenAI({apiKey: 'k', baseURL: 'http://127.0.0.1:1', maxRetries: 0,
    fetch: async () => new Response(readFileSync(name, 'utf8'), {headers: {'content-type': 'text/event-stream'}})});
  const got = await client.responses.stream({model: 'm', input: 'x'}).finalResponse().then((r) => r.status, (e) => e.message);
  console.log('node', name, '->', got);
}
JS
{ venv/bin/python events.py; node events.mjs; } | tee seen
diff - seen <<'WANT'
python incomplete -> RuntimeError Didn't receive a `response.completed` event.
python failed -> RuntimeError Didn't receive a `response.completed` event.
python completed-incomplete -> incomplete
node incomplete -> incomplete
node failed -> failed
node completed-incomplete -> incomplete
WANT
