"""The official Python clients of OpenAI and Anthropic, controlled line by line: a line of JSON on stdin is a request, and a line on
stdout is the response as the client sees it.

in:  {"base": URL, "api": "chat", "stream": true, "body": {...}}   body: the arguments of the client's method, in their order
out: {"id": x-request-id, "models": [...], "text": "...", "usage": {...}}
"""
import functools
import json
import sys

from anthropic import Anthropic
from openai import OpenAI


def plain(usage):
    return usage.model_dump() if usage is not None else None


def chat(client, body):
    raw = client.chat.completions.with_raw_response.create(**body)
    answer = raw.parse()
    return raw, {answer.model}, answer.choices[0].message.content, answer.usage


def chat_stream(client, body):
    raw = client.chat.completions.with_raw_response.create(stream=True, **body)
    models, text, usage = set(), "", None
    for chunk in raw.parse():
        models.add(chunk.model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return raw, models, text, usage


def completions(client, body):
    raw = client.completions.with_raw_response.create(**body)
    answer = raw.parse()
    return raw, {answer.model}, answer.choices[0].text, answer.usage


def completions_stream(client, body):
    raw = client.completions.with_raw_response.create(stream=True, **body)
    models, text, usage = set(), "", None
    for chunk in raw.parse():
        models.add(chunk.model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.text or ""
    return raw, models, text, usage


def responses(client, body):
    raw = client.responses.with_raw_response.create(**body)
    answer = raw.parse()
    return raw, {answer.model}, answer.output_text, answer.usage


def responses_stream(client, body):
    raw = client.responses.with_raw_response.create(stream=True, **body)
    models, text, usage = set(), "", None
    for event in raw.parse():
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type in ("response.created", "response.completed"):
            models.add(event.response.model)
            usage = event.response.usage
    return raw, models, text, usage


def messages(client, body):
    raw = client.messages.with_raw_response.create(**body)
    answer = raw.parse()
    return raw, {answer.model}, "".join(part.text for part in answer.content), answer.usage


def messages_stream(client, body):
    with client.messages.stream(**body) as events:
        text = "".join(events.text_stream)
        answer = events.get_final_message()
        return events.response, {answer.model}, text, answer.usage


@functools.cache
def openai_client(base):
    return OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)


@functools.cache
def anthropic_client(base):
    return Anthropic(base_url=base, api_key="none", max_retries=0)


def main():
    for line in sys.stdin:
        ask = json.loads(line)
        client = (anthropic_client if ask["api"] == "messages" else openai_client)(ask["base"])
        method = globals()[ask["api"] + ("_stream" if ask["stream"] else "")]
        try:
            raw, models, text, usage = method(client, ask["body"])
            found = {"id": raw.headers.get("x-request-id"), "models": sorted(models), "text": text, "usage": plain(usage)}
        except Exception as e:  # whatever the client raises is the result
            found = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(found), flush=True)


main()
