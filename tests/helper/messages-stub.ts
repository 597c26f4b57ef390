// A stand-in for the Anthropic Messages API: answers as a prompt requests and
// records what it was sent.
//
// messages-stub.ts PORT RECORD [ANSWERS]: listens on 127.0.0.1:PORT and appends one line
// of JSON per request to the file RECORD. ANSWERS is a file of JSON: for a prompt, the
// answers to it and to the results of its tool calls. If the variable SERVICES names a
// directory, also serves isolated workers, by its socket PORT.sock. ADDRESS is another
// address to listen on; with TLS, the path of a certificate and a key without .crt and
// .key, it speaks TLS.
//
// A prompt that begins with `TOOL <name> <input as JSON>` is answered with that
// tool call, its result with "tool done"; any other prompt with "echo: <prompt>".
// `FAIL <status> <count> ...` is first refused that many times with that status;
// `HOLD <name> ...` is answered when the file RECORD.<name> exists, and of the answer to
// `PART <name> ...` all but the beginning is sent then. `LIMIT <seconds> ...` reaches the
// limit of the account, for all prompts, until so many seconds later.
// https://docs.anthropic.com/en/api/messages-streaming

import { appendFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import {
  createServer,
  type RequestListener,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createServer as createFront } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

interface Block {
  type: string;
  text?: string;
}

interface Message {
  role: string;
  content: string | Block[];
}

interface MessagesRequest {
  model: string;
  stream?: boolean;
  messages: Message[];
}

type Content =
  | { type: "text"; text: string }
  | { type: "tool_use"; id: string; name: string; input: unknown };

const [port, record, answers] = process.argv.slice(2);
if (!port || !record) {
  throw new Error("usage: messages-stub.ts PORT RECORD [ANSWERS]");
}
const scripted: Record<string, Content[]> = answers
  ? JSON.parse(readFileSync(answers, "utf8"))
  : {};

let calls = 0;
/** How often each prompt that begins with FAIL was refused. */
const refused = new Map<string, number>();

const answer: RequestListener = (request, response) => {
  let body = "";
  request.on("data", (chunk) => body += chunk);
  request.on("end", () => {
    const { method, url, headers } = request;
    const parsed = body === "" ? null : JSON.parse(body);
    appendFileSync(
      record,
      JSON.stringify({ method, url, headers, body: parsed }) + "\n",
    );
    if (method === "POST" && url?.startsWith("/v1/messages/count_tokens")) {
      json(response, { input_tokens: 1 });
    } else if (method === "POST" && url?.startsWith("/v1/messages")) {
      void reply(response, parsed);
    } else {
      response.writeHead(method === "HEAD" ? 200 : 404).end();
    }
  });
};
const { TLS: tls, ADDRESS: address = "127.0.0.1" } = process.env;
const server = tls
  ? createTlsServer({
    cert: readFileSync(`${tls}.crt`),
    key: readFileSync(`${tls}.key`),
  }, answer)
  : createServer(answer);
server.listen(Number(port), address);
const services = process.env["SERVICES"];
if (services) {
  const { readOrigin } = await import("../../lib/std/origin.ts");
  const path = `${services}/${port}.sock`;
  rmSync(path, { force: true }); // of a stub that was killed
  createFront(async (socket) => {
    await readOrigin(socket);
    server.emit("connection", socket);
  }).listen(path);
}

async function reply(
  response: ServerResponse,
  request: MessagesRequest,
): Promise<void> {
  // The CLI puts its own reminders after the user's message and before the
  // prompt in it.
  const last = request.messages.findLast(({ role }) => role === "user");
  const prompt = promptOf(last);
  if (refuses(response, prompt) || limits(response, prompt)) return;
  const [, held] = /^HOLD (\w+)/.exec(prompt) ?? [];
  while (held && !existsSync(`${record}.${held}`)) await sleep(50);
  const content = scriptedContent(request.messages) ?? contentFor(last);
  const message = {
    id: `msg_${++calls}`,
    type: "message",
    role: "assistant",
    model: request.model,
    content: [content],
    stop_reason: content.type === "tool_use" ? "tool_use" : "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 1, output_tokens: 1 },
  };
  const [, part] = /^PART (\w+)/.exec(prompt) ?? [];
  const rest = async () => {
    while (part && !existsSync(`${record}.${part}`)) await sleep(50);
  };
  if (request.stream) await stream(response, message, content, rest);
  else json(response, message);
}

function refuses(response: ServerResponse, prompt: string): boolean {
  const [, status, count] = /^FAIL (\d+) (\d+)/.exec(prompt) ?? [];
  const before = refused.get(prompt) ?? 0;
  if (!status || before >= Number(count)) return false;
  refused.set(prompt, before + 1);
  response.writeHead(Number(status), { "content-type": "application/json" });
  response.end(JSON.stringify({
    type: "error",
    error: { type: "overloaded_error", message: "Overloaded" },
  }));
  return true;
}

/** When the limit of the account resets, by the prompt that has reached it. */
const resets = new Map<string, number>();

/** As for a subscription: https://docs.anthropic.com/en/api/rate-limits */
function limits(response: ServerResponse, prompt: string): boolean {
  const [, seconds] = /^LIMIT (\d+)/.exec(prompt) ?? [];
  if (seconds && !resets.has(prompt)) {
    resets.set(prompt, Date.now() + Number(seconds) * 1000);
  }
  const reset = Math.max(0, ...resets.values());
  const left = Math.ceil((reset - Date.now()) / 1000);
  if (left <= 0) return false;
  const unified = "anthropic-ratelimit-unified";
  response.writeHead(429, {
    "content-type": "application/json",
    "retry-after": String(left),
    [`${unified}-status`]: "rejected",
    [`${unified}-reset`]: String(Math.ceil(reset / 1000)),
    [`${unified}-representative-claim`]: "five_hour",
    [`${unified}-5h-utilization`]: "1",
    [`${unified}-5h-reset`]: String(Math.ceil(reset / 1000)),
  });
  response.end(JSON.stringify({
    type: "error",
    error: { type: "rate_limit_error", message: "The limit is reached" },
  }));
  return true;
}

function blocksOf(message: Message | undefined): Block[] {
  return typeof message?.content === "string"
    ? [{ type: "text", text: message.content }]
    : message?.content ?? [];
}

function promptOf(message: Message | undefined): string {
  return blocksOf(message).findLast(({ type, text }) =>
    type === "text" && !text?.startsWith("<system-reminder>")
  )?.text ?? "";
}

/** The answer to the last prompt from the file ANSWERS, if it has that prompt. */
function scriptedContent(messages: Message[]): Content | undefined {
  const asked = messages.findLastIndex((message) =>
    message.role === "user" && promptOf(message) !== ""
  );
  const results = messages.slice(asked + 1).filter((message) =>
    blocksOf(message).some(({ type }) => type === "tool_result")
  );
  const content = scripted[promptOf(messages[asked])]?.[results.length];
  return content?.type === "tool_use"
    ? { ...content, id: `toolu_${calls}` }
    : content;
}

function contentFor(message: Message | undefined): Content {
  if (blocksOf(message).some(({ type }) => type === "tool_result")) {
    return { type: "text", text: "tool done" };
  }
  const prompt = promptOf(message);
  const call = /^TOOL ([\w-]+) (\{.*\})/s.exec(prompt);
  if (!call) return { type: "text", text: `echo: ${prompt}` };
  return {
    type: "tool_use",
    id: `toolu_${calls}`,
    name: call[1] ?? "",
    input: JSON.parse(call[2] ?? "{}"),
  };
}

/** `rest` resolves when all but the beginning is to be sent. */
async function stream(
  response: ServerResponse,
  message: Record<string, unknown>,
  content: Content,
  rest: () => Promise<void>,
): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (type: string, data: Record<string, unknown>) =>
    response.write(
      `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`,
    );
  send("message_start", {
    message: { ...message, content: [], stop_reason: null },
  });
  await rest();
  send("content_block_start", {
    index: 0,
    content_block: content.type === "text"
      ? { ...content, text: "" }
      : { ...content, input: {} },
  });
  send("content_block_delta", {
    index: 0,
    delta: content.type === "text"
      ? { type: "text_delta", text: content.text }
      : {
        type: "input_json_delta",
        partial_json: JSON.stringify(content.input),
      },
  });
  send("content_block_stop", { index: 0 });
  send("message_delta", {
    delta: { stop_reason: message["stop_reason"], stop_sequence: null },
    usage: { output_tokens: 1 },
  });
  send("message_stop", {});
  response.end();
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}
