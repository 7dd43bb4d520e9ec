"""OpenAI's Python client, as its users write it. Prints one line of JSON for each check; clients_test.go has the expected lines.

usage: openai_client.py BASE_URL open|guarded
"""
import json
import sys

from openai import APIStatusError, OpenAI

PROMPT = 'Say "model":"llama-3-8b", please: é, 語, 🦙'
client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="inlet-demo-key")


def tell(check, **found):
    print(json.dumps({"check": check, **found}), flush=True)


def question(model="llama", prompt=PROMPT):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64}


def chat(model):
    raw = client.chat.completions.with_raw_response.create(**question(model))
    answer = raw.parse()
    tell(
        "chat " + model,
        sent=raw.headers["x-modelsim-model"],
        model=answer.model,
        text=answer.choices[0].message.content,
        total=answer.usage.total_tokens - answer.usage.prompt_tokens - answer.usage.completion_tokens,
    )


def stream(model):
    models, text, usage = set(), "", None
    for chunk in client.chat.completions.create(**question(model), stream=True, stream_options={"include_usage": True}):
        models.add(chunk.model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    tell(
        "stream " + model,
        models=sorted(models),
        text=text,
        total=usage.total_tokens - usage.prompt_tokens - usage.completion_tokens,
    )


def embedding(model):
    answer = client.embeddings.create(model=model, input=["one", "two"])
    tell("embedding " + model, model=answer.model, vectors=len(answer.data))


def response(model):
    answer = client.responses.create(model=model, input=PROMPT, max_output_tokens=64)
    tell("response " + model, model=answer.model, text=answer.output_text)


def response_stream(model):
    text, final = "", None
    for event in client.responses.create(model=model, input=PROMPT, max_output_tokens=64, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            final = event.response
    tell("response stream " + model, model=final.model, text=text)


def transcription(model):
    sound = bytes(range(256)) * 4096
    answer = client.audio.transcriptions.create(model=model, file=("speech.wav", sound, "audio/wav"), language="en")
    tell("transcription " + model, bytes=str(len(sound)) in answer.text, file="speech.wav" in answer.text, sent="llama-3-8b" in answer.text)


def models():
    listed = client.models.list()
    tell("models", ids=[m.id for m in listed], owners=sorted({m.owned_by for m in listed}))
    one = client.models.retrieve("gemma-support")
    tell("one model", id=one.id, object=one.object, parent=one.parent)


def refused(check, ask):
    try:
        ask()
        tell(check, error=None)
    except APIStatusError as e:
        tell(check, error=type(e).__name__, status=e.status_code, code=e.code, param=e.param)


def open_to_all():
    chat("llama")
    chat("gemma")
    stream("llama")
    stream("gemma-support")
    embedding("llama")
    response("llama")
    response_stream("llama")
    transcription("llama")
    models()
    refused("unknown model", lambda: client.chat.completions.create(**question("gpt-9")))
    refused("unknown model, stream", lambda: client.chat.completions.create(**question("gpt-9"), stream=True))
    refused("no such model", lambda: client.models.retrieve("org/gpt-9"))
    refused("no model", lambda: client.chat.completions.create(**question(model="")))


def guarded():
    chat("llama")
    refused("wrong key", lambda: client.with_options(api_key="guessed").chat.completions.create(**question()))
    refused("wrong key, models", lambda: client.with_options(api_key="guessed").models.list())
    refused("blocked prompt", lambda: client.chat.completions.create(**question(prompt="What is Project Aurora?")))


{"open": open_to_all, "guarded": guarded}[sys.argv[2]]()
