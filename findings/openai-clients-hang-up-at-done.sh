#!/usr/bin/env bash
# OpenAI's clients close the connection when they have read "data: [DONE]", before the response has ended.
#
# Expected: a client that reads a stream to its end reads the HTTP response to its end, and keeps the connection.
# Seen (PyPI openai 3.57.0, npm openai 7.59.0): both close the connection at [DONE] if the last chunk of the chunked body has not arrived with it.
# They read nothing that follows. The next request needs a new connection.
# Why it matters to a gateway: a complete, paid stream looks like a client that went away (Envoy's response flag DC). If
# usage, latency or the replica's health are recorded only for responses that ended, these streams are missing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openai==3.57.0 httpx2==2.16.2 pydantic==2.14.4
npm install --silent --no-fund --no-audit --prefix "$dir" openai@7.59.0 >/dev/null
cat >node.mjs <<'JS'
import OpenAI from 'openai';
const client = new OpenAI({apiKey: 'k', baseURL: process.argv[2], maxRetries: 0});
for (let i = 0; i < 2; i++) {
  for await (const _ of await client.chat.completions.create({model: 'm', messages: [{role: 'user', content: 'hi'}], stream: true})) ;
}
JS
cat >python.py <<'PY'
import sys, openai
client = openai.OpenAI(api_key="k", base_url=sys.argv[1], max_retries=0)
for _ in range(2):
    for _ in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True):
        pass
PY
cat >server.py <<'PY'
"""Sends a stream whose last chunk (of no bytes) comes only when the client asks for it by keeping the connection."""
import json, select, socket, subprocess, sys, threading
chunk = json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]})
body = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()
ends = []
def serve(conn):
    with conn, conn.makefile("rb") as reader:
        if not reader.readline():
            return  # a connection without a request
        length = 0
        while (line := reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        reader.read(length)
        conn.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
        readable, _, _ = select.select([conn], [], [], 5)  # a client that waits for the end sends nothing
        try:
            ends.append("hung up before the end" if readable and conn.recv(1) == b"" else "waits for the end")
        except ConnectionResetError:
            ends.append("hung up before the end")
        try:
            conn.sendall(b"0\r\n\r\n")
        except OSError:
            pass
listener = socket.create_server(("127.0.0.1", 0))
def accept():
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=serve, args=(conn,)).start()
threading.Thread(target=accept, daemon=True).start()
url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
ok = True
for name, command in (("python", [sys.executable, "python.py"]), ("node", ["node", "node.mjs"])):
    ends.clear()
    subprocess.run([*command, url], check=True, timeout=60)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    print(name, ends)
    ok = ok and ends == ["hung up before the end"] * 2
sys.exit(0 if ok else "the behavior has changed")
PY
venv/bin/python server.py
