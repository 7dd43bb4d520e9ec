// Two requests through the official Node client of OpenAI or Anthropic, as its users write them. Prints one line for each: ok, or the status of
// the error that the client raised.
//
// usage: node retries.cjs BASE_URL openai|anthropic KEY
const [url, api, apiKey] = process.argv.slice(2);
const question = { model: "llama", messages: [{ role: "user", content: "hello" }], max_tokens: 4 };

function asker() {
  if (api === "openai") {
    const OpenAI = require("openai");
    const client = new OpenAI({ baseURL: url + "/v1", apiKey });
    return () => client.chat.completions.create(question);
  }
  const { Anthropic } = require("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: url, apiKey });
  return () => client.messages.create(question);
}

(async () => {
  const ask = asker();
  for (let i = 0; i < 2; i++) {
    try {
      await ask();
      console.log("ok");
    } catch (e) {
      if (e.status === undefined) throw e;
      console.log(e.status);
    }
  }
})();
