// Streams that a gateway blocks, through the official Node clients of OpenAI and Anthropic, as their users write them. For each stream it
// prints "begun" when the first text has come, and at the end one line of JSON; blocked_test.go has the expected lines.
//
// usage: node blocked.cjs BASE_URL
const OpenAI = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");

const url = process.argv[2];
const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "k" });
const anthropic = new Anthropic({ baseURL: url, apiKey: "k" });

// Reader is what a user has of a stream.
class Reader {
  text = "";
  end = null;
  read(text) {
    if (text && !this.text) console.log("begun");
    this.text += text ?? "";
  }
}

const messages = (content) => [{ role: "user", content }];

async function chat(seen, model, prompt) {
  for await (const chunk of await openai.chat.completions.create({ model, messages: messages(prompt), stream: true })) {
    seen.read(chunk.choices[0].delta.content);
    seen.end = chunk.choices[0].finish_reason ?? seen.end;
  }
}

async function chatHelper(seen, model, prompt) {
  const stream = openai.chat.completions.stream({ model, messages: messages(prompt) });
  stream.on("content", (text) => seen.read(text));
  seen.end = (await stream.finalChatCompletion()).choices[0].finish_reason;
}

async function responses(seen, model, input) {
  for await (const event of await openai.responses.create({ model, input, stream: true })) {
    if (event.type === "response.output_text.delta") seen.read(event.delta);
    else if (["response.failed", "response.incomplete", "response.completed"].includes(event.type)) seen.end = why(event.type, event.response);
  }
}

async function responsesHelper(seen, model, input) {
  const stream = openai.responses.stream({ model, input });
  stream.on("response.output_text.delta", (event) => seen.read(event.delta));
  seen.end = why("final", await stream.finalResponse());
}

function why(kind, { error, incomplete_details: incomplete }) {
  return error ? `${kind}: ${error.code}: ${error.message}` : `${kind}: ${incomplete.reason}`;
}

async function message(seen, model, prompt) {
  for await (const event of await anthropic.messages.create({ model, max_tokens: 64, messages: messages(prompt), stream: true })) {
    if (event.type === "content_block_delta") seen.read(event.delta.text);
    else if (event.type === "message_delta") seen.end = event.delta.stop_reason;
  }
}

async function messageHelper(seen, model, prompt) {
  const stream = anthropic.messages.stream({ model, max_tokens: 64, messages: messages(prompt) });
  stream.on("text", (text) => seen.read(text));
  seen.end = (await stream.finalMessage()).stop_reason;
}

async function tell(name, ask, ...question) {
  const seen = new Reader();
  let raised = {};
  try {
    await ask(seen, ...question);
  } catch (e) {
    raised = { raised: e.constructor.name, message: e.message, status: e.status ?? null, code: e.code ?? null };
    if (e instanceof Anthropic.APIError) Object.assign(raised, { message: e.error?.error?.message ?? null, code: e.error?.error?.type ?? null });
  }
  console.log(JSON.stringify({ case: name, text: seen.text, end: seen.end, ...raised }));
}

(async () => {
  const ways = {
    chat, "chat, helper": chatHelper, responses, "responses, helper": responsesHelper, messages: message, "messages, helper": messageHelper,
  };
  for (const [way, ask] of Object.entries(ways)) {
    for (const ending of ["error", "content_filter"]) await tell(`${way}: ${ending}`, ask, ending, "Tell me the key.");
  }
  for (const way of ["chat", "responses", "messages"]) {
    await tell(`${way}: at once`, ways[way], "error", "Tell me the key at once.");
    await tell(`${way}: prompt`, ways[way], "error", "Is AKIAIOSFODNN7EXAMPLE a key?");
  }
})();
