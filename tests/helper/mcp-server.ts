// An MCP server of the official SDK for tests: echo, count (which a process has of its
// own), big, crash, slow with progress, ask (the client), and what its stderr says.

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import {
  CallToolRequestSchema,
  ListToolsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

let count = 0;
const server = new Server(
  { name: "for-tests", version: "1" },
  { capabilities: { tools: {}, logging: {} } },
);
const names = ["echo", "count", "big", "crash", "slow", "env"];
server.setRequestHandler(ListToolsRequestSchema, () => ({
  tools: names.map((name) => ({
    name,
    description: name,
    inputSchema: { type: "object" as const },
  })),
}));
server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
  const given = params.arguments ?? {};
  const text = (value: unknown) => ({
    content: [{ type: "text" as const, text: String(value) }],
  });
  switch (params.name) {
    case "echo":
      return text(given["word"]);
    case "count":
      return text(++count);
    case "big":
      return text("x".repeat(Number(given["bytes"])));
    case "env":
      return text(process.env[String(given["name"])] ?? "unset");
    case "crash":
      return process.exit(3);
    case "slow": {
      const token = params._meta?.progressToken;
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
    default:
      throw new Error(`There is no tool ${params.name}`);
  }
});
process.stderr.write("for-tests begins\n");
await server.connect(new StdioServerTransport());
