#!/usr/bin/env bash
# LangChain asks OpenAI for the usage of a stream, but not a gateway.
#
# Expected: the same code sends the same body whatever the base URL is.
# Seen (langchain-openai 1.7.4 on openai 3.57.0): ChatOpenAI.stream() adds stream_options {"include_usage": true} only if
# no base URL is set, neither as an argument nor as OPENAI_BASE_URL. Behind a gateway the streams have no usage unless
# the caller sets stream_usage=True.
# Why it matters to a gateway: token quotas see no usage in exactly the streams that pass the gateway. It must request
# the usage itself and remove the additional event again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check langchain-openai==1.7.4 openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
cat >"$dir/ask.py" <<'PY'
import json, os, sys
import httpx2

seen = []
def answer(_, request):  # replaces the network: no request leaves the process
    seen.append(json.loads(request.read()))
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")
httpx2.HTTPTransport.handle_request = answer

from langchain_openai import ChatOpenAI
gateway = "http://127.0.0.1:1/v1"
def asked(**kw):
    list(ChatOpenAI(model="gpt-4o", api_key="k", **kw).stream("hi"))
    return seen[-1].get("stream_options")
got = {"no base URL": asked(), "base_url": asked(base_url=gateway), "base_url and stream_usage=True": asked(base_url=gateway, stream_usage=True)}
os.environ["OPENAI_BASE_URL"] = gateway
got["OPENAI_BASE_URL"] = asked()
for how, options in got.items():
    print(f"{how:31} stream_options: {options}")
yes = {"include_usage": True}
want = {"no base URL": yes, "base_url": None, "base_url and stream_usage=True": yes, "OPENAI_BASE_URL": None}
sys.exit(0 if got == want else "the behavior has changed")
PY
env -u OPENAI_BASE_URL -u OPENAI_API_BASE LANGSMITH_TRACING=false "$dir/venv/bin/python" "$dir/ask.py"
