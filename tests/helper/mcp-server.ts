// An MCP server of the official SDK for tests, with the tools echo, count (one counter per
// process), big, crash, slow with progress and a log message, ask (asks the client) and hang
// (until cancelled). It also writes to stderr. With a PORT it serves HTTP there.

import { createServer } from "node:http";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import {
  CallToolRequestSchema,
  CreateMessageResultSchema,
  ListToolsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

let count = 0;
let cancelled = 0;
const names = [
  ...["echo", "count", "big", "crash", "slow", "env", "ask", "hang"],
  "cancelled",
];

function newServer(): Server {
  const server = new Server(
    { name: "for-tests", version: "1" },
    { capabilities: { tools: {}, logging: {} } },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: names.map((name) => ({
      name,
      description: name,
      inputSchema: { type: "object" as const },
    })),
  }));
  server.setRequestHandler(
    CallToolRequestSchema,
    async ({ params }, extra) => {
      const given = params.arguments ?? {};
      const text = (value: unknown) => ({
        content: [{ type: "text" as const, text: String(value) }],
      });
      switch (params.name) {
        case "echo":
          return text(given["word"]);
        case "count":
          return text(++count);
        case "cancelled":
          return text(cancelled);
        case "big":
          return text("x".repeat(Number(given["bytes"])));
        case "env":
          return text(process.env[String(given["name"])] ?? "unset");
        case "crash":
          return process.exit(3);
        case "slow": {
          const token = params._meta?.progressToken;
          await extra.sendNotification({
            method: "notifications/message",
            params: { level: "info", data: "slowly" },
          });
          for (let progress = 1; progress <= 3; progress++) {
            await sleep(50);
            if (token === undefined) continue;
            await extra.sendNotification({
              method: "notifications/progress",
              params: { progressToken: token, progress, total: 3 },
            });
          }
          return text("slow");
        }
        case "ask": {
          const question = String(given["question"]);
          const { content } = await extra.sendRequest({
            method: "sampling/createMessage",
            params: {
              messages: [{
                role: "user",
                content: { type: "text", text: question },
              }],
              maxTokens: 10,
            },
          }, CreateMessageResultSchema);
          return text(content.type === "text" ? content.text : "");
        }
        case "hang":
          await new Promise((resolve) =>
            extra.signal.addEventListener("abort", resolve)
          );
          cancelled++;
          return text("cancelled");
        default:
          throw new Error(`There is no tool ${params.name}`);
      }
    },
  );
  return server;
}

process.stderr.write("for-tests begins\n");
const [port] = process.argv.slice(2);
if (port === undefined) {
  await newServer().connect(new StdioServerTransport());
} else {
  createServer(async (request, response) => {
    const transport = new StreamableHTTPServerTransport({});
    // deno-lint-ignore no-explicit-any -- the SDK's own types disagree
    await newServer().connect(transport as any);
    await transport.handleRequest(request, response);
  }).listen(Number(port), "127.0.0.1");
}
