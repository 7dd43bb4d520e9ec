#!/usr/bin/env bash
# LiteLLM gives a stream that ended early the finish_reason "stop" and a usage.
#
# Expected: a stream that ends after two words without finish_reason, usage and [DONE] is not complete. A client raises an error, or hands
# it out as it is, as OpenAI's client does: no finish_reason, no usage.
# Seen (litellm 1.105.7 on openai 2.54.0): LiteLLM adds a last chunk with finish_reason "stop", and a usage from its own tokenizer (8 and 3 tokens).
# Nothing distinguishes it from a complete response.
# Why it matters to a gateway: one that ends a response properly when its replica fails (or that sits behind a proxy that does) makes LiteLLM's
# users take half a sentence for a whole one, and bill an estimate. After a reset or an error event LiteLLM raises an error.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check litellm==1.105.7 openai==2.54.0 tenacity==9.1.2
cat >"$dir/cut.py" <<'PY'
import http.server, json, sys, threading
from importlib.metadata import version

class Replica(http.server.BaseHTTPRequestHandler):
    """Sends two words and the last chunk of HTTP, but neither finish_reason nor [DONE]."""
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in ("Never ", "run "):
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
            event = f"data: {json.dumps(chunk)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}/v1"
request = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True}}

import litellm, openai
litellm.suppress_debug_info = True
print("litellm", version("litellm"), "openai", version("openai"))
got = []
for name, chunks in (("openai", openai.OpenAI(base_url=base, api_key="k").chat.completions.create(model="m", **request)),
                     ("litellm", litellm.completion(model="openai/m", api_base=base, api_key="k", **request))):
    reasons, usage = [], None
    for chunk in chunks:
        reasons += [c.finish_reason for c in chunk.choices if c.finish_reason]
        usage = getattr(chunk, "usage", None) or usage
    print(f"{name}: finish_reason {reasons}, usage {usage and (usage.prompt_tokens, usage.completion_tokens)}")
    got.append((reasons, bool(usage)))
server.shutdown()
sys.exit(0 if got == [([], False), (["stop"], True)] else "the behavior has changed")
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$dir/venv/bin/python" "$dir/cut.py"
