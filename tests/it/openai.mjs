// Calls the example `tokens` with OpenAI's official client for Node: `node openai.mjs <package> <base URL>`.
// Prints a line for each way of calling that works, and throws at the first one that fails.
import assert from "node:assert/strict";

const [, , path, baseURL] = process.argv;
const { default: OpenAI } = await import(path);
const { completions } = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, timeout: 60_000 }).chat;
const request = { model: "brook", messages: [{ role: "user", content: 'say {"stream": true}' }] };
const streamed = { ...request, stream: true };

const plain = async () => {
  const { object, choices } = await completions.create(request);
  assert.equal(object, "chat.completion");
  assert.equal(choices[0].finish_reason, "stop");
  return choices[0].message;
};

const stream = async () => {
  let content = "", pieces = 0, end;
  for await (const { choices: [{ delta, finish_reason }] } of await completions.create(streamed)) {
    content += delta.content ?? "";
    pieces += 1;
    end = finish_reason;
  }
  assert.equal(end, "stop");
  assert.ok(pieces > 20, `${pieces} pieces`);
  return content;
};

// The helper assembles the message, and throws if a chunk is invalid.
const helper = async () => (await completions.stream(request).finalChatCompletion()).choices[0].message;

const cancelled = async () => {
  let pieces = 0;
  const chunks = await completions.create(streamed);
  for await (const _ of chunks) {
    pieces += 1;
    if (pieces === 3) chunks.controller.abort();
  }
  return pieces;
};

const [message, content, helped, pieces] = await Promise.all([plain(), stream(), helper(), cancelled()]);
assert.equal(message.role, "assistant");
assert.match(message.content, /^A brooklet is .*long\.$/);
console.log("plain");
assert.equal(content, message.content);
console.log("stream");
assert.equal(helped.content, message.content);
console.log("helper");
assert.ok(pieces < 20, `${pieces} pieces after a cancellation`);
console.log("cancelled");
