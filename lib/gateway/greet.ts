// Sends an MCP `initialize` request to a server, as a client would.

import { request } from "node:http";
import type { Duplex } from "node:stream";
import { tooManyClients } from "./refused.ts";

const timeoutMs = 10_000;

/** Connects to the server. */
type Connect = () => Duplex;

/** The server's name and version. Throws with the reason if it does not answer. */
export async function greet(connect: Connect): Promise<string> {
  const { text, session } = await ask(connect, "POST", {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: {
      protocolVersion: "2025-06-18",
      capabilities: {},
      clientInfo: { name: "hal9000-doctor", version: "1" },
    },
  });
  if (session !== undefined) await ask(connect, "DELETE", undefined, session);
  const { result, error } = parse(text);
  // This request has no token, so anonymous clients may have taken all slots.
  if (error?.message === tooManyClients) return "busy";
  if (error) throw new Error(error.message);
  if (!result?.serverInfo) throw new Error("not an MCP server");
  const { name, version } = result.serverInfo;
  return `${name} ${version}`;
}

interface Greeting {
  result?: { serverInfo?: { name: string; version: string } };
  error?: { message: string };
}

/** An event of a stream, or plain JSON. */
function parse(text: string): Greeting {
  try {
    return JSON.parse(/^(?:data: )?(\{.*)$/m.exec(text)?.[1] ?? "{}");
  } catch {
    return {};
  }
}

interface Answer {
  text: string;
  session: string | undefined;
}

function ask(
  connect: Connect,
  method: string,
  body?: unknown,
  session?: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({
      createConnection: connect,
      path: "/mcp",
      method,
      headers: {
        host: "localhost",
        connection: "close",
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
        ...(session === undefined ? {} : { "mcp-session-id": session }),
      },
      timeout: timeoutMs,
    }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => text += chunk);
      response.on("end", () => {
        const session = response.headers["mcp-session-id"];
        resolve({ text, session: session?.toString() });
      });
      response.on("error", reject);
    });
    sent.on("timeout", () => sent.destroy(new Error("it does not answer")));
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
