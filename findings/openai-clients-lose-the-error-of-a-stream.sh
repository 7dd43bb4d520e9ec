#!/usr/bin/env bash
# OpenAI's clients lose the error that a stream carries: Python's responses.stream() loses all of it, Go's chat client its fields.
#
# Expected: a stream that ends with an error raises an error with its code and message, in each language.
# Seen (PyPI openai 3.57.0, npm openai 7.59.0, Go v3.95.0): after response.failed, get_final_response() of Python's responses.stream() raises
# RuntimeError "Didn't receive a `response.completed` event." It is no OpenAIError, and has neither the code nor the message of the server. Node's
# finalResponse() returns the response with both. After an error in a chat stream, Python and Node raise APIError with the code. Go returns an
# ssestream.StreamError, which is no openai.Error: the code is only in its text, as JSON.
# Why it matters to a gateway: the code that it puts into a broken stream does not reach every caller. One that looks for
# openai.APIError or openai.Error does not even see that the server reported the error, and takes it for a fault of its own.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
server=
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 >/dev/null
cat >server.py <<'PY'
import http.server, json
response = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": [], "parallel_tool_calls": False,
            "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None, "instructions": None, "metadata": {}}
failed = {**response, "status": "failed", "error": {"code": "server_error", "message": "the engine died"}}
RESPONSES = [{"type": "response.created", "sequence_number": 0, "response": response}, {"type": "response.failed", "sequence_number": 1, "response": failed}]
CHAT = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]},
        {"error": {"message": "the engine died", "type": "server_error", "param": None, "code": "engine_died"}}]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/responses"):
            body = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in RESPONSES)
        else:
            body = "".join(f"data: {json.dumps(e)}\n\n" for e in CHAT) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
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
import sys, openai
client = openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", max_retries=0)
try:
    with client.responses.stream(model="m", input="hi") as s:
        s.get_final_response()
except Exception as e:
    print("python responses ->", type(e).__name__, e, "| OpenAIError:", isinstance(e, openai.OpenAIError), "| code:", getattr(e, "code", None))
try:
    for _ in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True):
        pass
except Exception as e:
    print("python chat ->", type(e).__name__, e, "| OpenAIError:", isinstance(e, openai.OpenAIError), "| code:", getattr(e, "code", None))
PY
cat >ask.mjs <<'JS'
import OpenAI from 'openai';
const client = new OpenAI({apiKey: 'k', baseURL: `http://127.0.0.1:${process.argv[2]}/v1`, maxRetries: 0});
const got = await client.responses.stream({model: 'm', input: 'hi'}).finalResponse();
console.log('node responses -> status', got.status, got.error.message, '| code:', got.error.code);
try {
  for await (const _ of await client.chat.completions.create({model: 'm', messages: [{role: 'user', content: 'hi'}], stream: true}));
} catch (e) {
  console.log('node chat ->', e.constructor.name, e.message, '| OpenAIError:', e instanceof OpenAI.OpenAIError, '| code:', e.code);
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

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func main() {
	client := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL("http://127.0.0.1:"+os.Args[1]+"/v1"), option.WithMaxRetries(0))
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
	})
	for stream.Next() {
	}
	var e *openai.Error
	fmt.Printf("go chat -> %T %v | openai.Error: %v\n", stream.Err(), stream.Err(), errors.As(stream.Err(), &e))
}
GO
(cd goclient && go mod init goclient && go mod edit -require github.com/openai/openai-go/v3@v3.95.0 && go mod tidy && go build -o ../ask-go .) >go.log 2>&1 || { cat go.log; exit 1; }
{ venv/bin/python ask.py "$(cat port)"; node ask.mjs "$(cat port)"; ./ask-go "$(cat port)"; } | tee seen
diff - seen <<'WANT'
python responses -> RuntimeError Didn't receive a `response.completed` event. | OpenAIError: False | code: None
python chat -> APIError the engine died | OpenAIError: True | code: engine_died
node responses -> status failed the engine died | code: server_error
node chat -> APIError the engine died | OpenAIError: true | code: engine_died
go chat -> *ssestream.StreamError received error while streaming: {"message": "the engine died", "type": "server_error", "param": null, "code": "engine_died"} | openai.Error: false
WANT
