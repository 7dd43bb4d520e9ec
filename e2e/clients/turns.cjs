// Conversations through the official Node clients of OpenAI and Anthropic, as their users write them. turns_test.go documents input and
// output.
//
// usage: node turns.cjs BASE_URL chat|responses|messages
const task = JSON.parse(require("fs").readFileSync(0, "utf8"));
const [url, api] = process.argv.slice(2);
const PLACE = { type: "object", properties: { place: { type: "string", description: "where" } }, required: ["place"] };
const WEATHER = { name: "weather", description: "Tells the weather of a place." };

const question = (turn) => `Question ${turn}: what does the instruction say about this, and why does it matter?`;

function chat() {
  const OpenAI = require("openai");
  const client = new OpenAI({ baseURL: url + "/v1", apiKey: "k" });
  const said = task.instructions.map((content) => [{ role: "system", content }]);
  return async (c, turn) => {
    said[c].push({ role: "user", content: question(turn) });
    const { data, response } = await client.chat.completions
      .create({
        messages: said[c],
        model: task.model,
        max_tokens: 16,
        tools: [{ type: "function", function: { ...WEATHER, parameters: PLACE } }],
      })
      .withResponse();
    said[c].push({ role: "assistant", content: data.choices[0].message.content });
    return response.headers;
  };
}

function respond() {
  const OpenAI = require("openai");
  const client = new OpenAI({ baseURL: url + "/v1", apiKey: "k" });
  const said = task.instructions.map(() => []);
  return async (c, turn) => {
    said[c].push({ role: "user", content: question(turn) });
    const { data, response } = await client.responses
      .create({
        input: said[c],
        model: task.model,
        max_output_tokens: 16,
        tools: [{ type: "function", ...WEATHER, parameters: PLACE, strict: false }],
        instructions: task.instructions[c],
      })
      .withResponse();
    said[c].push({ role: "assistant", content: data.output_text });
    return response.headers;
  };
}

function message() {
  const { Anthropic } = require("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: url, apiKey: "k" });
  const said = task.instructions.map(() => []);
  return async (c, turn) => {
    said[c].push({ role: "user", content: question(turn) });
    const billing = `x-anthropic-billing-header: cc_version=2.1.0; cch=${turn * 7919 + c};`; // as Claude Code does
    const { data, response } = await client.messages
      .create({
        messages: said[c],
        model: task.model,
        max_tokens: 16,
        tools: [{ ...WEATHER, input_schema: PLACE }],
        system: [
          { type: "text", text: billing },
          { type: "text", text: task.instructions[c] },
        ],
      })
      .withResponse();
    said[c].push({ role: "assistant", content: data.content[0].text });
    return response.headers;
  };
}

async function main() {
  const talk = { chat, responses: respond, messages: message }[api]();
  for (let turn = 0; turn < task.turns; turn++) {
    for (let c = 0; c < task.instructions.length; c++) {
      const h = await talk(c, turn);
      const found = { why: h.get("x-inlet-why"), cached: h.get("x-modelsim-cached"), replica: h.get("x-modelsim-replica") };
      console.log(JSON.stringify({ conversation: c, turn, ...found }));
    }
  }
}

main();
