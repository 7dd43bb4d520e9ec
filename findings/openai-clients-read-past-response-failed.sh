#!/usr/bin/env bash
# OpenAI's clients read on after response.failed, and raise if the connection breaks there; a "data: [DONE]" that the API does not have ends it.
#
# Expected: response.failed (or .incomplete, .completed) is the last event of a Responses stream, so with it the response is whole, and what
# happens to the connection afterwards does not matter. There is no [DONE] in this API.
# Seen (PyPI openai 3.57.0, npm openai 7.59.0): a chunked body without its last chunk, cut after response.failed. Python hands out the event and
# then raises APIConnectionError, Node throws a TypeError ("terminated"). With "data: [DONE]" after the event both end without an error.
# Why it matters to a gateway: one that cannot end a stream without breaking the connection (proxy-wasm after the headers) turns the reason that
# it gives in response.failed into a connection error. It should send [DONE] after the last event, on this API too.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
server=
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 >/dev/null
cat >server.py <<'PY'
import json, socketserver, time
failed = {"type": "response.failed", "sequence_number": 0, "response": {
    "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "failed", "output": [], "parallel_tool_calls": False, "tool_choice": "auto",
    "tools": [], "error": {"code": "server_error", "message": "the engine died"}, "incomplete_details": None, "instructions": None, "metadata": {}}}
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        if not line:
            return  # a connection without a request
        path = line.split()[1].decode()
        length = 0
        for line in iter(self.rfile.readline, b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        data = f"event: response.failed\ndata: {json.dumps(failed)}\n\n".encode()
        if path.startswith("/done"):
            data += b"data: [DONE]\n\n"
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(data), data))
        if path.startswith("/whole"):
            self.wfile.write(b"0\r\n\r\n")
        time.sleep(0.5)  # the client has read the event when the connection closes
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
with Server(("127.0.0.1", 0), Handler) as s:
    print(s.server_address[1], flush=True)
    s.serve_forever()
PY
venv/bin/python server.py >port &
server=$!
until [ -s port ]; do kill -0 "$server"; sleep 0.1; done
cat >ask.py <<'PY'
import sys, openai
for end in ("whole", "cut", "done"):
    last = None
    try:
        client = openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}/{end}", max_retries=0)
        for event in client.responses.create(model="m", input="hi", stream=True):
            last = event.type
        got = "no error"
    except Exception as e:
        got = type(e).__name__
    print("python", end, "last event", last, "->", got)
PY
cat >ask.mjs <<'JS'
import OpenAI from 'openai';
for (const end of ['whole', 'cut', 'done']) {
  const client = new OpenAI({apiKey: 'k', baseURL: `http://127.0.0.1:${process.argv[2]}/${end}`, maxRetries: 0});
  let last, got = 'no error';
  try {
    for await (const event of await client.responses.create({model: 'm', input: 'hi', stream: true})) last = event.type;
  } catch (e) {
    got = e.constructor.name;
  }
  console.log('node', end, 'last event', last, '->', got);
}
JS
{ venv/bin/python ask.py "$(cat port)"; node ask.mjs "$(cat port)"; } | tee seen
diff - seen <<'WANT'
python whole last event response.failed -> no error
python cut last event response.failed -> APIConnectionError
python done last event response.failed -> no error
node whole last event response.failed -> no error
node cut last event response.failed -> TypeError
node done last event response.failed -> no error
WANT
