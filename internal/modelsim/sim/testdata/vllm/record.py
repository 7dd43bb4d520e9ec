"""Records what a running vLLM answers: exchanges.json, and its metrics at rest and under load. README.md says how to start it."""
import concurrent.futures, http.client, json, sys, time

host, out = sys.argv[1], sys.argv[2]
exchanges = []


def ask(method, path, body=None, raw=None):
    conn = http.client.HTTPConnection(host, timeout=300)
    data = raw if raw is not None else None if body is None else json.dumps(body)
    conn.request(method, path, data, {"content-type": "application/json"} if data else {})
    answer = conn.getresponse()
    headers = {k.lower(): v for k, v in answer.getheaders() if k.lower() not in ("date",)}
    return data, answer.status, headers, answer.read().decode()


def record(name, method, path, body=None, raw=None):
    data, status, headers, text = ask(method, path, body, raw)
    exchanges.append({"name": name, "method": method, "path": path, "request": data, "status": status, "headers": headers, "answer": text})
    return text


def metrics(name):
    with open(f"{out}/{name}.txt", "w") as f:
        f.write(ask("GET", "/metrics")[3])


def user(text, **more):
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 3, "temperature": 0, "ignore_eos": True, **more}


metrics("metrics-idle")
for path in ("/v1/models", "/health", "/ping", "/version"):
    record(path.strip("/").replace("/", "-"), "GET", path)
chat, text = "/v1/chat/completions", "/v1/completions"
record("chat", "POST", chat, user("Hello"))
record("chat-stream", "POST", chat, user("Hello", stream=True))
record("chat-stream-usage", "POST", chat, user("Hello", stream=True, stream_options={"include_usage": True}))
record("chat-stream-continuous", "POST", chat, user("Hello", stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}))
prompt = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
record("completion", "POST", text, prompt)
record("completion-stream", "POST", text, {**prompt, "stream": True})
record("completion-stream-usage", "POST", text, {**prompt, "stream": True, "stream_options": {"include_usage": True}})
record("completion-lora", "POST", text, {**prompt, "model": "sql"})
record("completion-second-name", "POST", text, {**prompt, "model": "tiny-too"})
message = {"model": "tiny", "max_tokens": 3, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}
record("messages", "POST", "/v1/messages", message)
record("messages-stream", "POST", "/v1/messages", {**message, "stream": True})
system = {**message, "system": "Answer in one word. " * 30}
record("messages-created", "POST", "/v1/messages", system)
record("messages-cached", "POST", "/v1/messages", system)
record("messages-stream-cached", "POST", "/v1/messages", {**system, "stream": True})
record("messages-unknown-model", "POST", "/v1/messages", {**message, "model": "none"})
response = {"model": "tiny", "max_output_tokens": 3, "temperature": 0, "input": "Hello", "store": False}
record("responses", "POST", "/v1/responses", response)
record("responses-stream", "POST", "/v1/responses", {**response, "stream": True})
record("unknown-model", "POST", chat, user("Hello", model="none"))
record("too-long", "POST", chat, user("x" * 5000))
record("too-many-tokens", "POST", chat, user("Hello", max_tokens=5000))
record("completion-cut-short", "POST", text, {**prompt, "prompt": "x" * 4090, "max_tokens": 100})
record("completion-no-room", "POST", text, {**prompt, "prompt": "x" * 4096})
record("completion-too-long", "POST", text, {**prompt, "prompt": "x" * 5000})
record("not-json", "POST", chat, raw="{")
record("no-messages", "POST", chat, {"model": "tiny"})
record("messages-a-string", "POST", chat, {"model": "tiny", "messages": "Hello"})
record("max-tokens-negative", "POST", chat, user("Hello", max_tokens=-1))
record("stream-options-alone", "POST", chat, user("Hello", stream_options={"include_usage": True}))
record("no-such-path", "GET", "/v1/nothing")
record("wrong-method", "GET", chat)

# The prefix cache: prompts of so many bytes (tokens) that share so many with the one before, from a beginning that nobody had.
cached = []
for i, (shared, length) in enumerate([(0, 1000), (1000, 1000), (128, 1000), (127, 1000), (129, 200), (256, 256), (255, 256), (300, 257), (384, 385), (0, 128), (128, 128), (128, 129), (0, 127), (127, 127)]):
    if shared == 0:
        base = chr(ord("A") + i)
        base = base * 4000
    body = {"model": "tiny", "prompt": base[:shared] + chr(ord("a") + i) * max(0, length - shared), "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    usage = json.loads(ask("POST", text, body)[3])["usage"]
    cached.append({"prompt": [base[0], shared, body["prompt"][-1], max(0, length - shared)], "usage": usage})
    if shared == 0:
        base = body["prompt"]
cached_chat = []
for name in ("one", "two", "three"):
    body = {"model": "tiny", "max_tokens": 1, "temperature": 0, "ignore_eos": True,
            "messages": [{"role": "system", "content": "You are a helpful assistant. " * 40}, {"role": "user", "content": "Question " + name}]}
    cached_chat.append({"request": body, "usage": json.loads(ask("POST", chat, body)[3])["usage"]})
for model in ("sql", "law", "sql"):
    body = {"model": model, "prompt": "y" * 300, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    cached.append({"model": model, "prompt": ["y", 300, "", 0], "usage": json.loads(ask("POST", text, body)[3])["usage"]})
for salt in ("a", "b", "a"):
    body = {"model": "tiny", "prompt": "z" * 300, "max_tokens": 1, "temperature": 0, "ignore_eos": True, "cache_salt": salt}
    cached.append({"salt": salt, "prompt": ["z", 300, "", 0], "usage": json.loads(ask("POST", text, body)[3])["usage"]})

# Under load: more than run at once (--max-num-seqs), under three models of which two have a slot.
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for i in range(12):
        pool.submit(ask, "POST", text, {**prompt, "model": ("tiny", "sql", "law")[i % 3], "prompt": f"{i} " * 200, "max_tokens": 1500})
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 3)
    metrics("metrics-busy")
with open(f"{out}/exchanges.json", "w") as f:
    json.dump({"exchanges": exchanges, "cached": cached, "cachedChat": cached_chat}, f, indent=1)
