// What the meter reads from replies, and what it refuses.

import { Buffer } from "node:buffer";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMeter, type Exchange } from "../../lib/usage/meter.ts";
import type { Note, ReplyNote, State } from "../../lib/usage/notes.ts";

const exchange = (change: Partial<Exchange> = {}): Exchange => ({
  session: "shop",
  project: "/p/shop",
  method: "POST",
  path: "/v1/messages?beta=true",
  at: 1000,
  ...change,
});

const open: State = {
  version: 1,
  paused: {},
  sessions: {},
  projects: {},
  maxPerMinute: 0,
};

function meterFor(state: unknown = open) {
  const notes: Note[] = [];
  let now = 5000;
  const meter = createMeter((note) => void notes.push(note), () => now);
  meter.setState(state);
  return { meter, notes, wait: (ms: number) => void (now += ms) };
}

const event = (type: string, data: object) =>
  Buffer.from(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`);

const started = event("message_start", {
  message: {
    model: "claude-opus-5-5",
    content: [],
    usage: {
      input_tokens: 10,
      output_tokens: 1,
      cache_read_input_tokens: 300,
      cache_creation_input_tokens: 40,
      cache_creation: { ephemeral_1h_input_tokens: 30 },
    },
  },
});
const delta = (output: number) =>
  event("message_delta", { delta: {}, usage: { output_tokens: output } });
const text = (length: number) =>
  event("content_block_delta", { delta: { text: "x".repeat(length) } });

const stream = { "content-type": "text/event-stream; charset=utf-8" };

const sum = (notes: Note[], key: "output" | "requests" | "cacheRead") =>
  notes.reduce((all, note) => all + (note.kind === "reply" ? note[key] : 0), 0);

for (const size of [1, 7, 64 * 1024]) {
  test(`reads the figures of a stream in chunks of ${size} bytes`, () => {
    const { meter, notes } = meterFor();
    const observer = meter.reply(exchange(), 200, stream);
    const bytes = Buffer.concat([started, text(900), delta(5), delta(70)]);
    for (let at = 0; at < bytes.length; at += size) {
      observer.bytes(bytes.subarray(at, at + size));
    }
    assert.equal(observer.end("whole"), {
      model: "claude-opus-5-5",
      input: 10,
      output: 70,
      cacheRead: 300,
      cacheWrite: 40,
    });
    assert.is(notes.length, 2);
    assert.equal(notes[0], {
      kind: "reply",
      session: "shop",
      project: "/p/shop",
      at: 5000,
      startedAt: 1000,
      status: 200,
      requests: 1,
      model: "claude-opus-5-5",
      promptTokens: 350,
      input: 10,
      output: 1,
      cacheRead: 300,
      cacheWrite: 40,
      cacheWriteHour: 30,
    });
    assert.is(sum(notes, "output"), 70);
    assert.is(sum(notes, "requests"), 1);
    assert.is(sum(notes, "cacheRead"), 300);
  });
}

test("a stream that is cut counts what it has told", () => {
  const { meter, notes } = meterFor();
  const observer = meter.reply(exchange(), 200, stream);
  observer.bytes(started);
  // Already here, should this process be killed.
  assert.is(sum(notes, "cacheRead"), 300);
  observer.bytes(delta(5));
  observer.bytes(Buffer.from('data: {"type":"message_delta","usage":{"outp'));
  assert.is(observer.end("cut").output, 5);
  assert.is(sum(notes, "output"), 5);
});

test("a stream that is cut before its figures counts what it has sent, by its length", () => {
  const { meter, notes } = meterFor();
  const delta = (delta: object) =>
    event("content_block_delta", { index: 0, delta });
  const outputOf = (...events: Buffer[]) => {
    notes.length = 0;
    const observer = meter.reply(exchange(), 200, stream);
    for (const bytes of [started, ...events]) observer.bytes(bytes);
    const { output } = observer.end("cut");
    assert.is(sum(notes, "output"), output);
    assert.is(sum(notes, "requests"), 1);
    return output;
  };
  assert.is(outputOf(), 1);
  const word = delta({ type: "text_delta", text: " word" });
  const words = outputOf(...Array.from({ length: 100 }, () => word));
  assert.ok(words >= 100 && words <= 250, String(words));
  const signed = { type: "signature_delta", signature: "s".repeat(6000) };
  const thought = outputOf(delta(signed));
  assert.ok(thought >= 2000 && thought <= 2100, String(thought));
  const long = { type: "text_delta", text: "x".repeat(300_000) };
  const longest = outputOf(delta(long));
  assert.ok(longest >= 100_000 && longest <= 100_100, String(longest));
  // Its last line is not whole.
  assert.ok(outputOf(word, word.subarray(0, 60)) >= 3);
  assert.is(outputOf(event("ping", { text: "x".repeat(900) })), 1);
});

test("reads the figures of a reply that is not streamed", () => {
  const { meter, notes } = meterFor();
  const json = { "content-type": "application/json" };
  const observer = meter.reply(exchange(), 200, json);
  const body = JSON.stringify({
    model: "claude-haiku-4-5-20251001",
    content: [{ type: "text", text: '"usage":{"output_tokens":999}' }],
    usage: { input_tokens: 3, output_tokens: 4 },
  });
  for (const char of body) observer.bytes(Buffer.from(char));
  assert.is(observer.end("whole").output, 4);
  assert.is((notes[0] as ReplyNote).input, 3);
  assert.is(sum(notes, "requests"), 1);
});

test("summaries that the API makes within a request are counted", () => {
  const { meter } = meterFor();
  const observer = meter.reply(exchange(), 200, stream);
  observer.bytes(started);
  observer.bytes(event("message_delta", {
    usage: {
      input_tokens: 23_000,
      output_tokens: 1000,
      iterations: [
        { type: "compaction", input_tokens: 180_000, output_tokens: 3500 },
        { type: "message", input_tokens: 23_000, output_tokens: 1000 },
      ],
    },
  }));
  const { input, output, cacheRead } = observer.end("whole");
  assert.equal([input, output, cacheRead], [203_000, 4500, 300]);
});

test("text of the model is not taken for figures", () => {
  const { meter } = meterFor();
  const observer = meter.reply(exchange(), 200, stream);
  observer.bytes(started);
  const planted = 'data: {"type":"message_delta","usage":{"output_tokens":9}}';
  observer.bytes(
    event("content_block_delta", { delta: { text: `\n${planted}\n` } }),
  );
  assert.is(observer.end("whole").output, 1);
});

test("a reply of 100 MB in one line, and garbage, take little memory", () => {
  const { meter, notes } = meterFor();
  const chunk = Buffer.alloc(1024 ** 2, "x");
  for (const type of [stream, { "content-type": "application/json" }]) {
    const observer = meter.reply(exchange(), 200, type);
    observer.bytes(started);
    const before = process.memoryUsage().rss;
    observer.bytes(Buffer.from('data: {"usage":"'));
    for (let count = 0; count < 100; count++) observer.bytes(chunk);
    observer.bytes(Buffer.from("\n"));
    assert.ok(process.memoryUsage().rss - before < 40 * 1024 ** 2);
    observer.bytes(delta(7));
    const figures = observer.end("whole");
    if (type === stream) assert.is(figures.output, 7);
  }
  for (
    const data of [
      "null",
      "[".repeat(60_000) + '"usage"',
      '{"type":"message_delta","usage":{"output_tokens":-5}}',
      '{"type":"message_delta","usage":{"output_tokens":1e300}}',
      '{"type":"message_delta","usage":{"output_tokens":"5"}}',
      '{"type":"message_delta","usage":null}',
      '{"type":"message_start","message":{"model":"\\u001b]52;","usage":{"input_tokens":2}}}',
    ]
  ) {
    const observer = meter.reply(exchange(), 200, stream);
    observer.bytes(Buffer.from(`data: ${data}\n\n`));
    const figures = observer.end("whole");
    assert.is(figures.output, 0, data);
    assert.is(figures.model, undefined);
  }
  assert.ok(notes.length > 0);
});

test("counts errors by their status, and only requests for messages", () => {
  const { meter, notes } = meterFor();
  meter.reply(exchange(), 529, { "content-type": "application/json" })
    .end("whole");
  assert.is((notes[0] as ReplyNote).status, 529);
  assert.is(notes.length, 1);
  for (
    const other of [
      { path: "/v1/messages/count_tokens" },
      { path: "/api/oauth/profile" },
      { path: "/v1/messagesx" },
      { method: "HEAD" },
    ]
  ) {
    const observer = meter.reply(exchange(other), 200, stream);
    observer.bytes(started);
    observer.end("whole");
  }
  assert.is(notes.length, 1);
  const touch = exchange({ path: "/v1/messages/cache_touch?beta=true" });
  meter.reply(touch, 200, stream).end("whole");
  assert.is(notes.length, 2);
});

test("refuses what the ledger refuses, with its message", () => {
  const { meter } = meterFor({
    ...open,
    sessions: { shop: "spent" },
    projects: { "/p/api": "spent too" },
    paused: { wild: "paused" },
  });
  assert.equal(meter.admit(exchange()), {
    status: 402,
    type: "billing_error",
    message: "spent",
  });
  const message = (change: Partial<Exchange>) =>
    meter.admit(exchange({ session: "other", project: "", ...change }))
      ?.message;
  assert.is(message({ project: "/p/api" }), "spent too");
  assert.is(message({ session: "wild" }), "paused");
  assert.is(message({}), undefined);
  assert.is(message({ session: "constructor" }), undefined);
  assert.is(message({ session: "shop", path: "/api/x" }), undefined);
  meter.setState({ ...open, all: "all is spent" });
  assert.is(message({}), "all is spent");
  meter.setState(open);
  assert.is(meter.admit(exchange()), undefined);
});

test("refuses for the time being what it does not know", () => {
  const { meter } = meterFor();
  for (const state of [undefined, {}, { ...open, version: 2 }]) {
    meter.setState(state);
    assert.is(meter.admit(exchange())?.status, 529);
  }
  assert.is(createMeter(() => {}).admit(exchange())?.status, 529);
});

test("pauses a session that sends too many requests in a minute", () => {
  const { meter, notes, wait } = meterFor({ ...open, maxPerMinute: 3 });
  const admitted = (session = "shop") =>
    meter.admit(exchange({ session })) === undefined;
  assert.equal([admitted(), admitted()], [true, true]);
  wait(60_000);
  assert.equal(
    [admitted(), admitted(), admitted(), admitted()],
    [true, true, true, false],
  );
  assert.is(admitted("other"), true);
  assert.equal(notes, [{
    kind: "runaway",
    session: "shop",
    project: "/p/shop",
    at: 65_000,
    maxPerMinute: 3,
  }]);
  assert.match(
    meter.admit(exchange())?.message ?? "",
    "Session shop is paused: it sent too many requests in a minute. " +
      "Let it go on with: claudy budget release shop",
  );
  // The ledger has not taken note of it yet.
  meter.setState({ ...open, maxPerMinute: 3 });
  assert.is(admitted(), false);
  meter.setState({ ...open, maxPerMinute: 3, paused: { shop: "p" } });
  assert.is(admitted(), false);
  meter.setState({ ...open, maxPerMinute: 3 }); // released
  assert.is(admitted(), true);
});

test("tells when the account's limits reset", () => {
  const { meter, notes } = meterFor();
  const limit = (headers: Record<string, string>) => {
    notes.length = 0;
    meter.reply(exchange(), 429, headers);
    const [note] = notes;
    return note?.kind === "limit" ? [note.resetsAt, note.claim] : undefined;
  };
  assert.equal(
    limit({
      "retry-after": "7",
      "anthropic-ratelimit-unified-status": "rejected",
      "anthropic-ratelimit-unified-reset": "000000100",
      "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }),
    [100_000, "five_hour"],
  );
  assert.equal(limit({ "retry-after": "30" }), [35_000, ""]);
  assert.equal(
    limit({
      "anthropic-ratelimit-requests-remaining": "0",
      "anthropic-ratelimit-requests-reset": "1970-01-01T00:00:42Z",
      "anthropic-ratelimit-tokens-remaining": "9",
      "anthropic-ratelimit-tokens-reset": "1970-01-01T00:09:00Z",
    }),
    [42_000, ""],
  );
  assert.equal(limit({}), [65_000, ""]);
  // Not in the past, nor for ever.
  assert.equal(limit({ "retry-after": "1999-01-01T00:00:00Z" })?.[1], "");
  const week = 8 * 24 * 3600 * 1000;
  assert.equal(limit({ "retry-after": "9999999" }), [5000 + week, ""]);
  notes.length = 0;
  meter.reply(exchange(), 200, { "retry-after": "30" }).end("whole");
  assert.is(notes.some(({ kind }) => kind === "limit"), false);
});

test("tells how much of the account's windows is used, when that changes", () => {
  const { meter, notes } = meterFor();
  const reply = (share: string) =>
    meter.reply(exchange(), 200, {
      "anthropic-ratelimit-unified-5h-utilization": share,
      "anthropic-ratelimit-unified-5h-reset": "1000000000",
    });
  reply("0.42");
  reply("0.421");
  reply("0.5");
  assert.equal(
    notes.map((note) => note.kind === "windows" && note.windows),
    [42, 50].map((percent) => [{ name: "5h", percent, resetsAt: 1e12 }]),
  );
});

test.run();
