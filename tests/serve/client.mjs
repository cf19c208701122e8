// The official npm client against a server: what it got, as one line of JSON.
import { createRequire } from "node:module";
const OpenAI = createRequire(process.argv[4] + "/")("openai");
const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
const messages = [{ role: "user", content: "When does the ship leave?" }];

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const whole = await client.chat.completions.create({ model: "base", messages, max_tokens: 6, temperature: 0, logprobs: true, top_logprobs: 2 });
let streamed = "";
for await (const part of await client.chat.completions.create({ model: "base", messages, max_tokens: 6, temperature: 0, stream: true }))
  streamed += part.choices[0]?.delta?.content ?? "";
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } }];
const called = await client.chat.completions.create({ model: "caller", messages, tools });
const refused = await client.chat.completions.create({ model: "nobody", messages }).catch((error) => [error.status, error.code]);
const stranger = new OpenAI({ baseURL: process.argv[2], apiKey: "wrong", maxRetries: 0 });
const unknown = await stranger.models.list().catch((error) => error.status);
console.log(JSON.stringify({
  models, whole: whole.choices[0].message.content, places: whole.choices[0].logprobs.content.length, finish: whole.choices[0].finish_reason,
  streamed, call: called.choices[0].message.tool_calls[0].function, refused, unknown,
}));
