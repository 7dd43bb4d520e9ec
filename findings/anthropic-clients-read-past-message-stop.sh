#!/usr/bin/env bash
# Anthropic's clients read on after message_stop, and fail if the connection breaks there; Node's does not if the response has
# "connection: close".
#
# Expected: message_stop is the last event of a Messages stream, so the message is whole with it, and what happens to the
# connection afterwards does not matter. OpenAI's chat clients see it so: they stop reading at [DONE].
# Seen (PyPI anthropic 2.11.0, npm @anthropic-ai/sdk 1.14.0, Node 20): a chunked body without its last chunk, cut after message_stop.
# Python's messages.stream() and messages.create(stream=True) hand out all events, and then raise the HTTP library's
# RemoteProtocolError, which is no AnthropicError. Node's finalMessage() rejects with AnthropicError "terminated", although all of the
# message has arrived. With "connection: close" in the response it gives the message: Node's HTTP client then takes the end of the
# connection for that of the body, in spite of the missing chunk. With its last chunk both read the body without an error.
# Why it matters to a gateway: a filter that can end a stream only by a reset (proxy-wasm after the headers) turns a complete
# message into an error, and into a retry if the caller retries: a stream ends cleanly only with the last chunk. And a test whose
# server sends "connection: close" does not see it in Node.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
server=
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check anthropic==2.11.0
npm install --silent --no-fund --no-audit --prefix "$dir" @anthropic-ai/sdk@1.14.0 >/dev/null
cat >server.py <<'PY'
import json, socketserver
EVENTS = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                                          "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        length = 0
        for line in iter(self.rfile.readline, b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
        self.wfile.write(b"connection: close\r\n\r\n" if path.startswith("/closing") else b"\r\n")
        for e in EVENTS:
            data = f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if path.startswith("/whole"):
            self.wfile.write(b"0\r\n\r\n")
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
import sys, anthropic
ask = dict(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
def helper(client):
    with client.messages.stream(**ask) as s:
        yield from (e.type for e in s)
def plain(client):
    yield from (e.type for e in client.messages.create(stream=True, **ask))
for end in ("whole", "cut", "closing-cut"):
    for name, call in (("stream", helper), ("create", plain)):
        last = None
        try:
            for last in call(anthropic.Anthropic(api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}/{end}", max_retries=0)):
                pass
            got = "no error"
        except Exception as e:
            got = type(e).__name__
        print("python", name, end, "last event", last, "->", got)
PY
cat >ask.mjs <<'JS'
import Anthropic from '@anthropic-ai/sdk';
for (const end of ['whole', 'cut', 'closing-cut']) {
  const client = new Anthropic({apiKey: 'k', baseURL: `http://127.0.0.1:${process.argv[2]}/${end}`, maxRetries: 0});
  const got = await client.messages.stream({model: 'm', max_tokens: 9, messages: [{role: 'user', content: 'hi'}]}).finalMessage()
    .then(() => 'no error', e => `${e.constructor.name} ${e.message}`);
  console.log('node finalMessage', end, '->', got);
}
JS
{ venv/bin/python ask.py "$(cat port)"; node ask.mjs "$(cat port)"; } | tee seen
diff - seen <<'WANT'
python stream whole last event message_stop -> no error
python create whole last event message_stop -> no error
python stream cut last event message_stop -> RemoteProtocolError
python create cut last event message_stop -> RemoteProtocolError
python stream closing-cut last event message_stop -> RemoteProtocolError
python create closing-cut last event message_stop -> RemoteProtocolError
node finalMessage whole -> no error
node finalMessage cut -> AnthropicError terminated
node finalMessage closing-cut -> no error
WANT
