// OpenAI's Node client, as its users write it. Prints one line of JSON for each check; clients_test.go has the expected lines.
//
// usage: node openai_client.cjs BASE_URL open|guarded
const OpenAI = require("openai");

const PROMPT = 'Say "model":"llama-3-8b", please: é, 語, 🦙';
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "inlet-demo-key" });

const tell = (check, found) => console.log(JSON.stringify({ check, ...found }));

const question = (model = "llama", prompt = PROMPT) => ({
  model,
  messages: [{ role: "user", content: prompt }],
  max_tokens: 64,
});

async function chat(model) {
  const { data, response } = await client.chat.completions.create(question(model)).withResponse();
  tell("chat " + model, {
    sent: response.headers.get("x-modelsim-model"),
    model: data.model,
    text: data.choices[0].message.content,
    total: data.usage.total_tokens - data.usage.prompt_tokens - data.usage.completion_tokens,
  });
}

async function stream(model) {
  const models = new Set();
  let text = "";
  let usage;
  const chunks = await client.chat.completions.create({
    ...question(model),
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    models.add(chunk.model);
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) text += choice.delta.content ?? "";
  }
  tell("stream " + model, {
    models: [...models].sort(),
    text,
    total: usage.total_tokens - usage.prompt_tokens - usage.completion_tokens,
  });
}

async function embedding(model) {
  const answer = await client.embeddings.create({ model, input: ["one", "two"] });
  tell("embedding " + model, { model: answer.model, vectors: answer.data.length });
}

async function response(model) {
  const answer = await client.responses.create({ model, input: PROMPT, max_output_tokens: 64 });
  tell("response " + model, { model: answer.model, text: answer.output_text });
}

async function responseStream(model) {
  let text = "";
  let final;
  for await (const event of await client.responses.create({ model, input: PROMPT, max_output_tokens: 64, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.completed") final = event.response;
  }
  tell("response stream " + model, { model: final.model, text });
}

async function transcription(model) {
  const sound = Buffer.alloc(1 << 20, "\r\n--sound\0\xff", "latin1");
  const file = await OpenAI.toFile(sound, "speech.wav", { type: "audio/wav" });
  const { text } = await client.audio.transcriptions.create({ model, file, language: "en" });
  tell("transcription " + model, {
    bytes: text.includes(String(sound.length)),
    file: text.includes("speech.wav"),
    sent: text.includes("llama-3-8b"),
  });
}

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model);
  tell("models", { ids: listed.map((m) => m.id), owners: [...new Set(listed.map((m) => m.owned_by))] });
  const one = await client.models.retrieve("gemma-support");
  tell("one model", { id: one.id, object: one.object, parent: one.parent });
}

async function refused(check, ask) {
  try {
    await ask();
    tell(check, { error: null });
  } catch (e) {
    if (!(e instanceof OpenAI.APIError)) throw e;
    tell(check, { error: e.constructor.name, status: e.status, code: e.code, param: e.param });
  }
}

async function open() {
  await chat("llama");
  await chat("gemma");
  await stream("llama");
  await stream("gemma-support");
  await embedding("llama");
  await response("llama");
  await responseStream("llama");
  await transcription("llama");
  await models();
  await refused("unknown model", () => client.chat.completions.create(question("gpt-9")));
  await refused("unknown model, stream", () => client.chat.completions.create({ ...question("gpt-9"), stream: true }));
  await refused("no such model", () => client.models.retrieve("org/gpt-9"));
  await refused("no model", () => client.chat.completions.create(question("")));
}

async function guarded() {
  await chat("llama");
  await refused("wrong key", () => client.withOptions({ apiKey: "guessed" }).chat.completions.create(question()));
  await refused("wrong key, models", () => client.withOptions({ apiKey: "guessed" }).models.list());
  await refused("blocked prompt", () => client.chat.completions.create(question("llama", "What is Project Aurora?")));
}

({ open, guarded })[process.argv[3]]();
