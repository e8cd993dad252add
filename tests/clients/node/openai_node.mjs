// OpenAI's own package for Node against the gate, as its users write it.

import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { MODEL, chat, run } from "./cases.mjs";

const plain = new OpenAI({ maxRetries: 0 });
const keyed = (name, more = {}) => new OpenAI({ apiKey: process.env[name], maxRetries: 0, ...more });
const greedy = chat({ temperature: 0 });
const faulty = (fault) => ({ headers: { "x-simulated-fault": fault } });
const Answer = z.object({ city: z.string(), country: z.string() });
const asked = "What is the capital of France, and how is the weather there?";
const question = { messages: [{ role: "user", content: asked }], max_tokens: 120, temperature: 0 };

await run({
  models: async () => {
    const listed = [];
    for await (const model of plain.models.list()) listed.push(model.id);
    return { listed, one: (await plain.models.retrieve(MODEL)).id };
  },
  talk: async () => {
    const { data, request_id, response } = await plain.chat.completions.create(greedy).withResponse();
    const [{ message, finish_reason }] = data.choices;
    return {
      text: message.content,
      finish: finish_reason,
      tokens: data.usage.completion_tokens,
      request_id,
      remaining: response.headers.get("x-ratelimit-remaining-requests"),
    };
  },
  stream: async () => {
    const parts = [];
    for await (const part of await plain.chat.completions.create({ ...greedy, stream: true })) parts.push(part);
    return {
      text: parts.map((part) => part.choices[0].delta.content ?? "").join(""),
      finish: parts.at(-1).choices[0].finish_reason,
    };
  },
  stream_helper: async () => {
    const helped = plain.chat.completions.stream({ ...greedy, stream_options: { include_usage: true } });
    const final = await helped.finalChatCompletion();
    return { text: final.choices[0].message.content, tokens: final.usage.completion_tokens };
  },
  many_at_once: async () => {
    const one = async () => (await plain.chat.completions.create(greedy)).usage.completion_tokens;
    return Promise.all(Array.from({ length: 12 }, one));
  },
  wrong_key: () => new OpenAI({ apiKey: "sg-wrong", maxRetries: 0 }).models.list(),
  may_only_read: () => keyed("KEY_READER").chat.completions.create(greedy),
  wrong_model: () => plain.chat.completions.create(chat({ model: "nope" })),
  wrong_cap: () => plain.chat.completions.create(chat({ max_tokens: -1 })),
  broken_replica: () => plain.chat.completions.create(greedy, faulty("error")),
  broken_stream: async () => {
    const parts = await plain.chat.completions.create({ ...greedy, stream: true }, faulty("break"));
    for await (const part of parts) void part;
  },
  left_early: async () => {
    const parts = await plain.chat.completions.create(chat({ max_tokens: 1500, stream: true }));
    for await (const part of parts) if (part) break;
  },
  over_the_limit: async () => {
    const client = keyed("KEY_ONE_AT_A_TIME");
    await client.chat.completions.create(greedy);
    await client.chat.completions.create(greedy);
  },
  retried: async () => {
    const client = keyed("KEY_RETRIED", { maxRetries: 1 });
    await client.chat.completions.create(chat({ max_tokens: 1 }));
    return (await client.chat.completions.create(chat({ max_tokens: 1 }))).usage.completion_tokens;
  },
  quota_spent: async () => {
    const client = keyed("KEY_SPENT", { maxRetries: 3 });
    await client.chat.completions.create(greedy);
    await client.chat.completions.create(greedy);
  },

  // What follows needs a real model.
  parse: async () => {
    const told = await plain.chat.completions.parse({
      ...question,
      model: MODEL,
      response_format: zodResponseFormat(Answer, "answer"),
    });
    return told.choices[0].message.parsed;
  },
  tools: async () => {
    const weather = zodFunction({ name: "weather", parameters: z.object({ city: z.string() }) });
    const called = { type: "function", function: { name: "weather" } };
    const told = await plain.chat.completions.parse({
      ...question,
      model: MODEL,
      tools: [weather],
      tool_choice: called,
    });
    const [call] = told.choices[0].message.tool_calls;
    return { name: call.function.name, args: Object.keys(call.function.parsed_arguments) };
  },
  embeddings: () => plain.embeddings.create({ model: MODEL, input: "Hello" }),
  respond: async () => {
    const body = { model: MODEL, input: "Hello", max_output_tokens: 8, temperature: 0 };
    const told = await plain.responses.create(body);
    const streamed = await plain.responses.stream(body).finalResponse();
    return { text: told.output_text, streamed: streamed.output_text };
  },
  respond_parsed: async () => {
    const text = { format: zodTextFormat(Answer, "answer") };
    const body = { model: MODEL, input: asked, max_output_tokens: 120, temperature: 0, text };
    return (await plain.responses.parse(body)).output_parsed;
  },
});
