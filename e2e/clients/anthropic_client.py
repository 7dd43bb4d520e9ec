"""Anthropic's Python client, as its users write it. Prints one line of JSON for each check; clients_test.go has the expected lines.

usage: anthropic_client.py BASE_URL open|guarded
"""
import json
import sys

from anthropic import Anthropic, APIStatusError

PROMPT = 'Say "model":"llama-3-8b", please: é, 語, 🦙'
client = Anthropic(base_url=sys.argv[1], api_key="inlet-demo-key")


def tell(check, **found):
    print(json.dumps({"check": check, **found}), flush=True)


def question(model="llama", prompt=PROMPT):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64}


def message(model):
    raw = client.messages.with_raw_response.create(**question(model))
    answer = raw.parse()
    tell(
        "message " + model,
        sent=raw.headers["x-modelsim-model"],
        model=answer.model,
        text=answer.content[0].text,
        counted=answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 0 and answer.usage.output_tokens > 0,
    )


def stream(model):
    with client.messages.stream(**question(model)) as events:
        text = "".join(events.text_stream)
        answer = events.get_final_message()
    tell(
        "stream " + model,
        model=answer.model,
        text=text,
        counted=answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 0 and answer.usage.output_tokens > 0,
    )


def refused(check, ask):
    try:
        ask()
        tell(check, error=None)
    except APIStatusError as e:
        tell(check, error=type(e).__name__, status=e.status_code, type=e.body["error"]["type"])


def open_to_all():
    message("llama")
    message("gemma")
    stream("llama")
    stream("gemma-support")
    refused("unknown model", lambda: client.messages.create(**question("gpt-9")))
    refused("unknown model, stream", lambda: client.messages.create(**question("gpt-9"), stream=True))
    refused("no model", lambda: client.messages.create(**question(model="")))


def guarded():
    message("llama")
    refused("wrong key", lambda: client.with_options(api_key="guessed").messages.create(**question()))
    refused("blocked prompt", lambda: client.messages.create(**question(prompt="What is Project Aurora?")))


{"open": open_to_all, "guarded": guarded}[sys.argv[2]]()
