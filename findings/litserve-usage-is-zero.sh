#!/usr/bin/env bash
# LitServe reports a usage of zero tokens for every chat, and gives each event of a stream another id.
#
# Expected: a server that does not count tokens omits "usage" (or sends null), and all chunks of one completion share an id.
# Seen (litserve 0.2.19, OpenAISpec, a model that yields three pieces of text): "usage" is present with prompt, completion and
# total tokens of 0, whole and streamed, even if the client did not ask for it. Each chunk has its own id. "stream": "yes" streams,
# and "max_tokens": "1_0" is ten: pydantic reads the body and accepts text as booleans and numbers.
# Why it matters to a gateway: a quota that trusts any present usage lets everything pass for free. No prompt has zero
# tokens, so 0 means "not counted". Chunks cannot be joined by id. A gateway that looks for a literal true misses the stream.
set -euo pipefail
dir=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill -- "-$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check litserve==0.2.19 pydantic==2.14.4 fastapi==0.165.0 uvicorn==0.54.0
cat >server.py <<'PY'
import sys
import litserve
class Model(litserve.LitAPI):
    def setup(self, device):
        pass
    def predict(self, prompt):
        yield from ("one ", "two ", "three")
if __name__ == "__main__":
    litserve.LitServer(Model(spec=litserve.OpenAISpec()), accelerator="cpu").run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
setsid venv/bin/python server.py "$port" >log 2>&1 & # a group of its own: it has workers
pid=$!
cat >ask.py <<'PY'
import json, sys, time, urllib.request
base = f"http://127.0.0.1:{sys.argv[1]}"
for attempt in range(240):
    try:
        urllib.request.urlopen(base + "/health")
        break
    except OSError:
        time.sleep(0.25)
else:
    sys.exit("the server did not start")
def ask(**more):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}).encode()
    with urllib.request.urlopen(urllib.request.Request(base + "/v1/chat/completions", body, {"content-type": "application/json"})) as r:
        return r.headers.get_content_type(), r.read().decode()
kind, whole = ask(max_tokens="1_0")
usage = json.loads(whole)["usage"]
print("whole:", kind, "usage", usage)
kind, stream = ask(stream="yes")
chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
ids = {c["id"] for c in chunks}
print("stream:", kind, len(chunks), "chunks with", len(ids), "ids, last usage", chunks[-1]["usage"])
zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
ok = usage == zero and chunks[-1]["usage"] == zero and kind == "text/event-stream" and len(chunks) == len(ids) == 4
sys.exit(0 if ok else "the behavior has changed")
PY
venv/bin/python ask.py "$port"
