"""Two requests through the official Python client of OpenAI or Anthropic, as its users write them. Prints one line for each: ok, or the status of
the error that the client raised.

usage: retries.py BASE_URL openai|anthropic KEY
"""
import sys

url, api, key = sys.argv[1:]
question = {"model": "llama", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
if api == "openai":
    from openai import APIStatusError, OpenAI

    ask = OpenAI(base_url=url + "/v1", api_key=key).chat.completions.create
else:
    from anthropic import Anthropic, APIStatusError

    ask = Anthropic(base_url=url, api_key=key).messages.create
for _ in range(2):
    try:
        ask(**question)
        print("ok", flush=True)
    except APIStatusError as e:
        print(e.status_code, flush=True)
