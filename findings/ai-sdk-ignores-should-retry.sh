#!/usr/bin/env bash
# Vercel's AI SDK retries a refusal with "x-should-retry: false".
#
# Expected: the header that stops retries in OpenAI's and Anthropic's own clients also works in other clients of
# these APIs.
# Seen (npm ai 7.0.173 with @ai-sdk/openai-compatible 3.0.92): a 429 with x-should-retry: false is sent three times, as without the
# header; npm openai 7.59.0 sends it once. The SDK does not send the number of the attempt (no x-stainless-retry-count). Both
# respect a Retry-After of one second.
# Why it matters to a gateway: the header saves nothing with these clients. To make an exhausted quota cheap, the refusal itself
# must cost nothing, and it should have a Retry-After, which these clients do respect.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-fund --no-audit --prefix "$dir" ai@7.0.173 @ai-sdk/openai-compatible@3.0.92 openai@7.59.0 zod@4.1.13 >/dev/null
cat >retry.mjs <<'JS'
import http from 'node:http';
import {once} from 'node:events';
import {generateText} from 'ai';
import {createOpenAICompatible} from '@ai-sdk/openai-compatible';
import OpenAI from 'openai';

let requests = [], headers = {};
const server = http.createServer((req, res) => {
  requests.push(req.headers);
  req.resume().on('end', () => res.writeHead(429, {'content-type': 'application/json', 'retry-after': '1', ...headers})
    .end('{"error":{"message":"Out of tokens.","type":"tokens","code":"rate_limit_exceeded","param":null}}'));
}).listen(0, '127.0.0.1');
await once(server, 'listening');
const baseURL = `http://127.0.0.1:${server.address().port}/v1`;
const clients = {
  'ai': () => generateText({model: createOpenAICompatible({name: 'gateway', baseURL, apiKey: 'k'})('m'), prompt: 'hi'}),
  'openai': () => new OpenAI({baseURL, apiKey: 'k'}).chat.completions.create({model: 'm', messages: [{role: 'user', content: 'hi'}]}),
};
const seen = [];
for (const [name, call] of Object.entries(clients)) {
  for (const should of [undefined, 'false']) {
    requests = [];
    headers = should ? {'x-should-retry': should} : {};
    await call().then(() => { throw new Error('not refused'); }, () => {});
    seen.push(`${name}, x-should-retry ${should ?? 'absent'}: ${requests.length} requests, retry counts told: ${requests.map((h) => h['x-stainless-retry-count'] ?? 'none').join(' ')}`);
  }
}
server.close();
server.closeAllConnections();
console.log(seen.join('\n'));
const want = ['ai, x-should-retry absent: 3 requests, retry counts told: none none none', 'ai, x-should-retry false: 3 requests, retry counts told: none none none',
  'openai, x-should-retry absent: 3 requests, retry counts told: 0 1 2', 'openai, x-should-retry false: 1 requests, retry counts told: 0'];
if (JSON.stringify(seen) !== JSON.stringify(want)) { console.error('the behavior has changed'); process.exit(1); }
JS
node retry.mjs
