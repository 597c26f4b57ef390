// A greeting to an MCP server, as a client would send it.

import { request } from "node:http";

const patienceMs = 10_000;

/** A gateway's socket, or a port of 127.0.0.1. */
type Place = { socketPath: string } | { port: number };

/** What the server calls itself; throws with the reason where it does not answer. */
export async function greet(place: Place): Promise<string> {
  const text = await post(place, {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: {
      protocolVersion: "2025-06-18",
      capabilities: {},
      clientInfo: { name: "hal9000-doctor", version: "1" },
    },
  });
  // An event, or plain JSON.
  const line = /^(?:data: )?(\{.*)$/m.exec(text)?.[1] ?? "{}";
  const { result, error } = JSON.parse(line);
  if (error) throw new Error(error.message);
  if (!result?.serverInfo) throw new Error("it speaks no MCP");
  const { name, version } = result.serverInfo;
  return `${name} ${version}`;
}

function post(place: Place, body: unknown): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request({
      ...place,
      path: "/mcp",
      method: "POST",
      headers: {
        host: "localhost",
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
      },
      timeout: patienceMs,
    }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => text += chunk);
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    sent.on("timeout", () => sent.destroy(new Error("it does not answer")));
    sent.on("error", reject);
    sent.end(JSON.stringify(body));
  });
}
