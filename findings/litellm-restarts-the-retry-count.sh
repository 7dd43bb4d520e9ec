#!/usr/bin/env bash
# LiteLLM adds its own retries to those of OpenAI's client, and its retries claim to be first attempts.
#
# Expected: num_retries=2 means at most three requests, and x-stainless-retry-count numbers them.
# Seen (litellm 1.105.7 on openai 2.54.0, tenacity 9.1.2): five requests: three by OpenAI's client (0, 1, 2), then two by LiteLLM, each with
# the count 0. Without num_retries there are three, although no retry was requested.
# Why it matters to a gateway: a retry budget or an alert based on x-stainless-retry-count does not see the storm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check litellm==1.105.7 openai==2.54.0 tenacity==9.1.2
cat >"$dir/retries.py" <<'PY'
import http.server, logging, sys, threading
from importlib.metadata import version

counts = []
class Refuse(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        counts.append(self.headers.get("x-stainless-retry-count"))
        body = b'{"error":{"message":"Slow down.","type":"requests","code":"rate_limit_exceeded","param":null}}'
        self.send_response(429)
        for header in (("content-type", "application/json"), ("retry-after", "0"), ("content-length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
threading.Thread(target=server.serve_forever, daemon=True).start()

import litellm
litellm.suppress_debug_info = True
print("litellm", version("litellm"), "openai", version("openai"))
got = []
for options in ({}, {"num_retries": 2}):
    counts.clear()
    try:
        litellm.completion(model="openai/m", api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="k",
                           messages=[{"role": "user", "content": "hi"}], **options)
    except litellm.RateLimitError:
        pass
    print(options, "->", len(counts), "requests, retry counts", counts)
    got.append(list(counts))
server.shutdown()
sys.exit(0 if got == [["0", "1", "2"], ["0", "1", "2", "0", "0"]] else "the behavior has changed")
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$dir/venv/bin/python" "$dir/retries.py"
