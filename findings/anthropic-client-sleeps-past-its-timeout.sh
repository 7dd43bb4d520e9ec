#!/usr/bin/env bash
# Anthropic's Python client sleeps for as long as Retry-After says, whatever its timeout; OpenAI's does not retry after a long one.
#
# Expected: the two clients, which come from the same generator, treat Retry-After alike, and timeout=5 bounds a call: a 429 with
# Retry-After of a day raises RateLimitError at once.
# Seen (anthropic 2.11.0, openai 3.52.0): up to 120 s both sleep for the time given. Above it, OpenAI's raises at once, without a retry. Anthropic's
# sleeps for the day, retries, and sleeps for another: two days in one call with timeout=5 and the default of two retries, with nothing on
# the screen. (The script replaces time.sleep by one that records.)
# Why it matters to a gateway: a truthful Retry-After for a daily quota freezes the callers instead of telling them. Send
# x-should-retry: false with it: then both raise at once.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check anthropic==2.11.0 openai==3.52.0
cat >"$dir/sleeps.py" <<'PY'
import http.server, sys, threading, time

headers = {}  # of each response
class Refuse(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"type":"error","error":{"type":"rate_limit_error","message":"The quota of today is used up."}}'
        self.send_response(429)
        for header in (("content-type", "application/json"), ("content-length", str(len(body))), *headers.items()):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"

import anthropic, openai
print("anthropic", anthropic.__version__, "openai", openai.__version__)
request = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
clients = {
    "anthropic": (anthropic.Anthropic(base_url=base, api_key="k", timeout=5).messages, anthropic.RateLimitError),
    "openai": (openai.OpenAI(base_url=base + "/v1", api_key="k", timeout=5).chat.completions, openai.RateLimitError),
}
sleeps = []
time.sleep = sleeps.append
DAY = "86400"
ok = True
for sent, want in (({"retry-after": "120"}, {"anthropic": [120.0, 120.0], "openai": [120.0, 120.0]}),
                   ({"retry-after": DAY}, {"anthropic": [86400.0, 86400.0], "openai": []}),
                   ({"retry-after": DAY, "x-should-retry": "false"}, {"anthropic": [], "openai": []})):
    headers = sent
    for name, (api, error) in clients.items():
        sleeps.clear()
        try:
            api.create(**request)
        except error:
            print(f"{name}, {sent}: sleeps {sleeps} s, then raises {error.__name__}")
            ok = ok and sleeps == want[name]
        else:
            ok = False
server.shutdown()
sys.exit(0 if ok else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/sleeps.py"
