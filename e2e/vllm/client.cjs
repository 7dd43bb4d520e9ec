// OpenAI's Node client, controlled line by line, as documented in client.py.
const OpenAI = require("openai");
const readline = require("node:readline");

const apis = {
  chat: {
    create: (client) => client.chat.completions,
    answer: (data) => ({ models: [data.model], text: data.choices[0].message.content, usage: data.usage }),
    event: (chunk, found) => {
      found.models.add(chunk.model);
      found.usage = chunk.usage ?? found.usage;
      for (const choice of chunk.choices) found.text += choice.delta.content ?? "";
    },
  },
  completions: {
    create: (client) => client.completions,
    answer: (data) => ({ models: [data.model], text: data.choices[0].text, usage: data.usage }),
    event: (chunk, found) => {
      found.models.add(chunk.model);
      found.usage = chunk.usage ?? found.usage;
      for (const choice of chunk.choices) found.text += choice.text ?? "";
    },
  },
  responses: {
    create: (client) => client.responses,
    answer: (data) => ({ models: [data.model], text: data.output_text, usage: data.usage }),
    event: (event, found) => {
      if (event.type === "response.output_text.delta") found.text += event.delta;
      if (event.type !== "response.created" && event.type !== "response.completed") return;
      found.models.add(event.response.model);
      found.usage = event.response.usage;
    },
  },
};

const clients = {};

async function play({ base, api, stream, body }) {
  const client = (clients[base] ??= new OpenAI({ baseURL: base + "/v1", apiKey: "none", maxRetries: 0 }));
  const { create, answer, event } = apis[api];
  const { data, response } = await create(client)
    .create(stream ? { ...body, stream: true } : body)
    .withResponse();
  const id = response.headers.get("x-request-id");
  if (!stream) return { id, ...answer(data) };
  const found = { models: new Set(), text: "", usage: null };
  for await (const one of data) event(one, found);
  return { id, ...found, models: [...found.models].sort() };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let found;
    try {
      found = await play(JSON.parse(line));
    } catch (e) {
      found = { error: `${e.constructor.name}: ${e.message}` };
    }
    console.log(JSON.stringify(found));
  }
}

main();
