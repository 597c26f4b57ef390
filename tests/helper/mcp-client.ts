// A client of the official SDK for tests and benchmarks of MCP; prints a line of JSON.
//
//   mcp-client.ts URL call NAME ARGUMENTS   one call; prints its text
//   mcp-client.ts URL watch NAME ARGUMENTS  the same, with what it received meanwhile
//   mcp-client.ts URL cancel NAME           calls, then cancels the call
//   mcp-client.ts URL many COUNT CLIENTS    echo calls; prints their times and errors
//   mcp-client.ts URL parallel COUNT BYTES  concurrent large answers; prints their lengths
//   mcp-client.ts URL short COUNT           COUNT clients that leave without a message
//   mcp-client.ts URL hold COUNT            uses all clients and connections, and stays
//   mcp-client.ts URL mute                  calls, never reads, and stays
//
// UNIX_SOCKET=PATH connects directly to a gateway's socket.

import { createConnection, type Socket } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import type { RequestOptions } from "@modelcontextprotocol/sdk/shared/protocol.js";
import {
  CreateMessageRequestSchema,
  LoggingMessageNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

declare const Deno: {
  createHttpClient(options: unknown): unknown;
};

const [url = "", command, ...words] = process.argv.slice(2);
const path = process.env["UNIX_SOCKET"];
const viaSocket = path === undefined
  ? undefined
  : Deno.createHttpClient({ proxy: { transport: "unix", path } });

async function connect(): Promise<Client> {
  const client = new Client(
    { name: "test", version: "1" },
    { capabilities: { sampling: {} } },
  );
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    ...(viaSocket
      ? {
        fetch: (input: string | URL, init?: RequestInit) =>
          fetch(input, { ...init, client: viaSocket } as RequestInit),
      }
      : {}),
  });
  // deno-lint-ignore no-explicit-any -- the SDK's own types disagree
  await client.connect(transport as any);
  return client;
}

async function call(
  client: Client,
  name: string,
  given: unknown,
  options: RequestOptions = {},
) {
  const result = await client.callTool(
    { name, arguments: given as Record<string, unknown> },
    undefined,
    options,
  );
  const [content] = result.content as { text: string }[];
  return content?.text ?? "";
}

function say(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Prints the result and exits, even if a stream is still open. */
function end(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`, () => process.exit(0));
}

if (command === "call") {
  const client = await connect();
  const [name = "", given = "{}"] = words;
  const text = await call(client, name, JSON.parse(given));
  await client.close();
  end(text);
} else if (command === "watch") {
  const client = await connect();
  const [name = "", given = "{}"] = words;
  const asked: unknown[] = [];
  const logged: unknown[] = [];
  const progress: number[] = [];
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => {
    asked.push(params.messages[0]?.content);
    const content = { type: "text" as const, text: `answer of ${process.pid}` };
    return { model: "test", role: "assistant" as const, content };
  });
  client.setNotificationHandler(
    LoggingMessageNotificationSchema,
    ({ params }) => void logged.push(params.data),
  );
  const text = await call(client, name, JSON.parse(given), {
    onprogress: (one) => progress.push(one.progress),
  });
  const own = text === `answer of ${process.pid}`;
  await client.close();
  end({ text, own, asked, logged, progress });
} else if (command === "cancel") {
  const client = await connect();
  const cancel = new AbortController();
  const called = call(client, words[0] ?? "", {}, { signal: cancel.signal });
  setTimeout(() => cancel.abort("enough"), 500);
  const text = await called.catch((error) => String(error));
  const after = await call(client, "echo", { word: "after" });
  end({ text, after });
} else if (command === "many") {
  const [count = 0, clients = 1] = words.map(Number);
  const times: number[] = [];
  const wrong: string[] = [];
  await Promise.all(Array.from({ length: clients }, async (_, who) => {
    const client = await connect();
    for (let at = 0; at < count / clients; at++) {
      const word = `${who}-${at}`;
      const startedAt = performance.now();
      try {
        const text = await call(client, "echo", { word });
        if (text !== word) wrong.push(`${word}: ${text.slice(0, 80)}`);
      } catch (error) {
        wrong.push(`${word}: ${String(error).slice(0, 80)}`);
      }
      times.push(performance.now() - startedAt);
    }
    // Frees its place at once, without waiting for the idle timeout.
    const transport = client.transport as StreamableHTTPClientTransport;
    await transport.terminateSession();
    await client.close();
  }));
  end({ times, wrong });
} else if (command === "parallel") {
  const [count = 0, bytes = 0] = words.map(Number);
  const client = await connect();
  const texts = Array.from(
    { length: count },
    () => call(client, "big", { bytes }),
  );
  end((await Promise.all(texts)).map(({ length }) => length));
} else if (command === "short") {
  for (let at = 0; at < Number(words[0]); at++) {
    const client = await connect();
    await client.listTools();
    // No termination, as if the worker was killed.
  }
  end("done");
} else if (command === "hold") {
  const clients: Client[] = [];
  const sockets: Socket[] = [];
  const { hostname, port } = new URL(url);
  // Reconnects whenever it is disconnected.
  while (true) {
    await connect().then((client) => clients.push(client), () => {});
    for (let at = 0; at < 50; at++) {
      if (sockets.length >= Number(words[0])) sockets.shift()?.destroy();
      const socket = createConnection(Number(port), hostname);
      sockets.push(socket.on("error", () => {}));
    }
    await sleep(20);
  }
} else if (command === "mute") {
  const client = await connect();
  const { sessionId } = client.transport as StreamableHTTPClientTransport;
  const open = [];
  for (let id = 100; id < 120; id++) {
    open.push(
      await fetch(url, {
        method: "POST",
        headers: {
          accept: "application/json, text/event-stream",
          "content-type": "application/json",
          "mcp-session-id": sessionId ?? "",
        },
        body: JSON.stringify({
          jsonrpc: "2.0",
          id,
          method: "tools/call",
          params: { name: "big", arguments: { bytes: 30_000_000 } },
        }),
      }).catch(() => undefined),
    );
  }
  say("mute");
  setTimeout(() => open.length = 0, 60_000);
}
