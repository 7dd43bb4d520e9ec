"""Conversations through the official Python clients of OpenAI and Anthropic, as their users write them. turns_test.go documents input and output.

usage: turns.py BASE_URL chat|responses|messages
"""
import json
import sys

task = json.load(sys.stdin)
url, api = sys.argv[1], sys.argv[2]
PLACE = {"type": "object", "properties": {"place": {"type": "string", "description": "where"}}, "required": ["place"]}
WEATHER = {"name": "weather", "description": "Tells the weather of a place."}


def question(turn):
    return f"Question {turn}: what does the instruction say about this, and why does it matter?"


def chat():
    from openai import OpenAI

    client = OpenAI(base_url=url + "/v1", api_key="k")
    said = [[{"role": "system", "content": text}] for text in task["instructions"]]

    def talk(c, turn):
        said[c].append({"role": "user", "content": question(turn)})
        raw = client.chat.completions.with_raw_response.create(
            model=task["model"], messages=said[c], max_tokens=16, tools=[{"type": "function", "function": {**WEATHER, "parameters": PLACE}}]
        )
        said[c].append({"role": "assistant", "content": raw.parse().choices[0].message.content})
        return raw.headers

    return talk


def respond():
    from openai import OpenAI

    client = OpenAI(base_url=url + "/v1", api_key="k")
    said = [[] for _ in task["instructions"]]

    def talk(c, turn):
        said[c].append({"role": "user", "content": question(turn)})
        raw = client.responses.with_raw_response.create(
            model=task["model"], instructions=task["instructions"][c], input=said[c], max_output_tokens=16,
            tools=[{"type": "function", **WEATHER, "parameters": PLACE, "strict": False}],
        )
        said[c].append({"role": "assistant", "content": raw.parse().output_text})
        return raw.headers

    return talk


def message():
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="k")
    said = [[] for _ in task["instructions"]]

    def talk(c, turn):
        said[c].append({"role": "user", "content": question(turn)})
        billing = f"x-anthropic-billing-header: cc_version=2.1.0; cch={turn * 7919 + c:04x};"  # as Claude Code does
        raw = client.messages.with_raw_response.create(
            model=task["model"], max_tokens=16, messages=said[c],
            system=[{"type": "text", "text": billing}, {"type": "text", "text": task["instructions"][c]}],
            tools=[{**WEATHER, "input_schema": PLACE}],
        )
        said[c].append({"role": "assistant", "content": raw.parse().content[0].text})
        return raw.headers

    return talk


talk = {"chat": chat, "responses": respond, "messages": message}[api]()
for turn in range(task["turns"]):
    for c in range(len(task["instructions"])):
        h = talk(c, turn)
        found = {"why": h["x-inlet-why"], "cached": h["x-modelsim-cached"], "replica": h["x-modelsim-replica"]}
        print(json.dumps({"conversation": c, "turn": turn, **found}), flush=True)
