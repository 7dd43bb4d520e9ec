#!/usr/bin/env bash
# Anthropic's Python and Go clients raise the error event of a stream as an API error with status 200; Node's has no status.
#
# Expected: an error event after the first text is an error without an HTTP status, or with the one that its type has outside of a
# stream (529 for overloaded_error). Callers decide by the status whether they ask again.
# Seen (PyPI anthropic 2.11.0, npm @anthropic-ai/sdk 1.14.0, Go v1.84.0): each error has the type from the event. But Python raises APIStatusError
# with status_code 200, Go returns an Error with StatusCode 200, and Node throws APIError with the status undefined. The same error before the stream
# has the status 529 in all three, and in Python and Node a class of its own, OverloadedError.
# Why it matters to a gateway: whatever error type it puts into a stream, code that retries by status (429, 5xx) sees a success there, and logs and
# metrics by status count one. Only the type says what to do, so a gateway must choose it with care, and fail before the first byte where it can.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
server=
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check anthropic==2.11.0
npm install --silent --no-fund --no-audit --prefix "$dir" @anthropic-ai/sdk@1.14.0 >/dev/null
cat >server.py <<'PY'
import http.server, json
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "no replica is left"}}
EVENTS = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                                          "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    ERROR,
]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status, kind, body = 200, "text/event-stream", "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in EVENTS)
        if self.path.startswith("/before"):
            status, kind, body = 529, "application/json", json.dumps(ERROR)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
PY
venv/bin/python server.py >port &
server=$!
until [ -s port ]; do kill -0 "$server"; sleep 0.1; done
cat >ask.py <<'PY'
import sys, anthropic
ask = dict(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
def plain(client):
    for _ in client.messages.create(stream=True, **ask):
        pass
def helper(client):
    with client.messages.stream(**ask) as s:
        s.get_final_message()
for when in ("before", "inside"):
    for name, call in (("create", plain), ("stream", helper)):
        try:
            call(anthropic.Anthropic(api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}/{when}", max_retries=0))
        except anthropic.APIError as e:
            print("python", name, when, "->", type(e).__name__, e.body["error"]["type"], "status", getattr(e, "status_code", None))
PY
cat >ask.mjs <<'JS'
import Anthropic from '@anthropic-ai/sdk';
const ask = {model: 'm', max_tokens: 9, messages: [{role: 'user', content: 'hi'}]};
for (const when of ['before', 'inside']) {
  const client = new Anthropic({apiKey: 'k', baseURL: `http://127.0.0.1:${process.argv[2]}/${when}`, maxRetries: 0});
  const plain = async () => { for await (const _ of await client.messages.create({...ask, stream: true})); };
  for (const [name, call] of [['create', plain], ['stream', () => client.messages.stream(ask).finalMessage()]])
    await call().catch((e) => console.log('node', name, when, '->', e.constructor.name, e.error.error.type, 'status', e.status));
}
JS
mkdir goclient
cat >goclient/main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

func main() {
	for _, when := range []string{"before", "inside"} {
		client := anthropic.NewClient(option.WithAPIKey("k"), option.WithBaseURL("http://127.0.0.1:"+os.Args[1]+"/"+when), option.WithMaxRetries(0))
		stream := client.Messages.NewStreaming(context.Background(), anthropic.MessageNewParams{
			Model: "m", MaxTokens: 9, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hi"))},
		})
		for stream.Next() {
		}
		var e *anthropic.Error
		if errors.As(stream.Err(), &e) {
			fmt.Println("go", when, "->", "Error", e.Type(), "status", e.StatusCode)
		}
	}
}
GO
(cd goclient && go mod init goclient && go mod edit -require github.com/anthropics/anthropic-sdk-go@v1.84.0 && go mod tidy && go build -o ../ask-go .) >go.log 2>&1 || { cat go.log; exit 1; }
{ venv/bin/python ask.py "$(cat port)"; node ask.mjs "$(cat port)"; ./ask-go "$(cat port)"; } | tee seen
diff - seen <<'WANT'
python create before -> OverloadedError overloaded_error status 529
python stream before -> OverloadedError overloaded_error status 529
python create inside -> APIStatusError overloaded_error status 200
python stream inside -> APIStatusError overloaded_error status 200
node create before -> OverloadedError overloaded_error status 529
node stream before -> OverloadedError overloaded_error status 529
node create inside -> APIError overloaded_error status undefined
node stream inside -> APIError overloaded_error status undefined
go before -> Error overloaded_error status 529
go inside -> Error overloaded_error status 200
WANT
