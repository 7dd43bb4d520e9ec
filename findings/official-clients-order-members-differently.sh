#!/usr/bin/env bash
# The official clients of one API send the members of the same request in a different order in each language.
#
# Expected: the clients write the members in the order of the API reference, or at least all alike; and instructions and tools, which the
# model reads first, come before the conversation.
# Seen (OpenAI: PyPI 3.57.0, npm 7.59.0, Go v3.95.0; Anthropic: PyPI 2.14.0, npm 1.14.0): JavaScript keeps the order of the caller's
# object. Python has its own, whatever the caller writes: "input" before "instructions" and "tools" in Responses, "messages"
# before "system" and "tools" in Messages. Go has "instructions" before "input", and writes a message as content, then role.
# Why it matters to a gateway: a prefix hash of the body in order of arrival sees two prompts where the model sees one. A router that
# looks at the first kilobyte finds the shared instruction with one client only. A reader that needs the role before the
# content gets it too late.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 anthropic==2.14.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 @anthropic-ai/sdk@1.14.0 >/dev/null
cat >ask.py <<'PY'
import sys, anthropic, openai
tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
try:
    openai.OpenAI(api_key="k", base_url=sys.argv[1] + "/python/v1", max_retries=0).responses.create(model="m", instructions="Be brief.", input="hi", tools=[tool])
except openai.APIStatusError:
    pass
try:
    anthropic.Anthropic(api_key="k", base_url=sys.argv[1] + "/python", max_retries=0).messages.create(
        model="m", max_tokens=9, system="Be brief.", messages=[{"role": "user", "content": "hi"}], tools=[{"name": "f", "input_schema": {"type": "object"}}])
except anthropic.APIStatusError:
    pass
PY
cat >ask.mjs <<'JS'
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
const url = process.argv[2] + '/node';
const tool = {type: 'function', name: 'f', parameters: {type: 'object', properties: {}}, strict: false};
await new OpenAI({apiKey: 'k', baseURL: url + '/v1', maxRetries: 0}).responses.create({model: 'm', instructions: 'Be brief.', input: 'hi', tools: [tool]}).catch(() => {});
await new Anthropic({apiKey: 'k', baseURL: url, maxRetries: 0}).messages.create({model: 'm', max_tokens: 9, system: 'Be brief.', messages: [{role: 'user', content: 'hi'}], tools: [{name: 'f', input_schema: {type: 'object'}}]}).catch(() => {});
JS
mkdir goclient
cat >goclient/main.go <<'GO'
package main

import (
	"context"
	"os"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

func main() {
	client := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(os.Args[1]+"/go/v1"), option.WithMaxRetries(0))
	_, _ = client.Responses.New(context.Background(), responses.ResponseNewParams{
		Model:        "m",
		Instructions: openai.String("Be brief."),
		Input:        responses.ResponseNewParamsInputUnion{OfString: openai.String("hi")},
	})
	_, _ = client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model:    "m",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
	})
}
GO
(cd goclient && go mod init goclient && go mod edit -require github.com/openai/openai-go/v3@v3.95.0 && go mod tidy && go build -o ../ask-go .) >go.log 2>&1 || { cat go.log; exit 1; }
cat >server.py <<'PY'
import http.server, json, subprocess, sys, threading
class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        _, client, *path = self.path.split("?")[0].split("/")
        seen[client, path[-1]] = list(body)
        if "messages" in body:
            seen[client, path[-1] + " message"] = list(body["messages"][0])
        self.send_response(400)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
seen = {}
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
for command in ([sys.executable, "ask.py"], ["node", "ask.mjs"], ["./ask-go"]):
    subprocess.run([*command, url], check=True, timeout=100)
for (client, what), members in sorted(seen.items(), key=lambda s: s[0][::-1]):
    print(f"{what:20} {client:7}", *members)
first = lambda client, what, a, b: seen[client, what].index(a) < seen[client, what].index(b)
ok = (first("go", "responses", "instructions", "input") and first("python", "responses", "input", "instructions")
      and first("python", "messages", "messages", "system") and first("python", "messages", "messages", "tools")
      and seen["node", "messages"] == ["model", "max_tokens", "system", "messages", "tools"]
      and seen["go", "completions message"] == ["content", "role"] and seen["python", "messages message"] == ["role", "content"])
sys.exit(0 if ok else "the behavior has changed")
PY
venv/bin/python server.py
