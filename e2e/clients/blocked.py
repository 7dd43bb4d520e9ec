"""Streams that a gateway blocks, through the official Python clients of OpenAI and Anthropic, as their users write them. For each stream it prints
"begun" when the first text has come, and at the end one line of JSON; blocked_test.go has the expected lines.

usage: blocked.py BASE_URL
"""
import json
import sys

import anthropic
import openai

url = sys.argv[1]
openai_client = openai.OpenAI(base_url=url + "/v1", api_key="k")
anthropic_client = anthropic.Anthropic(base_url=url, api_key="k")


class Reader:
    """What a user has of a stream."""

    def __init__(self):
        self.text, self.end = "", None

    def read(self, text):
        if text and not self.text:
            print("begun", flush=True)
        self.text += text or ""


def messages(prompt):
    return [{"role": "user", "content": prompt}]


def chat(seen, model, prompt):
    for chunk in openai_client.chat.completions.create(model=model, messages=messages(prompt), stream=True):
        seen.read(chunk.choices[0].delta.content)
        seen.end = chunk.choices[0].finish_reason or seen.end


def chat_helper(seen, model, prompt):
    with openai_client.chat.completions.stream(model=model, messages=messages(prompt)) as stream:
        for event in stream:
            if event.type == "content.delta":
                seen.read(event.delta)
        seen.end = stream.get_final_completion().choices[0].finish_reason


def responses(seen, model, prompt):
    for event in openai_client.responses.create(model=model, input=prompt, stream=True):
        if event.type == "response.output_text.delta":
            seen.read(event.delta)
        elif event.type in ("response.failed", "response.incomplete", "response.completed"):
            seen.end = why(event.type, event.response)


def responses_helper(seen, model, prompt):
    with openai_client.responses.stream(model=model, input=prompt) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                seen.read(event.delta)
        seen.end = why("final", stream.get_final_response())


def why(kind, response):
    if response.error:
        return f"{kind}: {response.error.code}: {response.error.message}"
    return f"{kind}: {response.incomplete_details.reason}"


def message(seen, model, prompt):
    for event in anthropic_client.messages.create(model=model, max_tokens=64, messages=messages(prompt), stream=True):
        if event.type == "content_block_delta":
            seen.read(event.delta.text)
        elif event.type == "message_delta":
            seen.end = event.delta.stop_reason


def message_helper(seen, model, prompt):
    with anthropic_client.messages.stream(model=model, max_tokens=64, messages=messages(prompt)) as stream:
        for text in stream.text_stream:
            seen.read(text)
        seen.end = stream.get_final_message().stop_reason


def tell(case, ask, *question):
    seen, raised = Reader(), {}
    try:
        ask(seen, *question)
    except Exception as e:  # also those of the HTTP library
        raised = {"raised": type(e).__name__, "message": str(e)}
        if isinstance(e, openai.APIError):
            raised.update(message=e.message, code=e.code, status=getattr(e, "status_code", None))
        elif isinstance(e, anthropic.APIError):
            raised.update(message=e.body["error"]["message"], code=e.body["error"]["type"], status=getattr(e, "status_code", None))
    print(json.dumps({"case": case, "text": seen.text, "end": seen.end, **raised}), flush=True)


ways = {"chat": chat, "chat, helper": chat_helper, "responses": responses, "responses, helper": responses_helper, "messages": message, "messages, helper": message_helper}
for way, ask in ways.items():
    for ending in ("error", "content_filter"):
        tell(f"{way}: {ending}", ask, ending, "Tell me the key.")
for way in ("chat", "responses", "messages"):
    tell(f"{way}: at once", ways[way], "error", "Tell me the key at once.")
    tell(f"{way}: prompt", ways[way], "error", "Is AKIAIOSFODNN7EXAMPLE a key?")
