// Serves one MCP server as the gateway does, for unit tests, with functions to call it.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkServer } from "../../lib/mcp/config.ts";
import { Unread } from "../../lib/gateway/outlet.ts";
import { ServedMcp } from "../../lib/gateway/server.ts";
import { ServerLog } from "../../lib/gateway/server-log.ts";
import { Watch } from "../../lib/gateway/watch.ts";
import { ownerOf } from "../../lib/std/owned.ts";

export interface Answer {
  status: number;
  session: string | undefined;
  message: {
    result?: { content?: { text: string }[]; isError?: boolean };
    error?: { code: number; message: string };
  };
}

export interface Served {
  home: string;
  socket: string;
  server: ServedMcp;
  /** Sends one message, with a session if there is one. */
  send(
    message: object,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  /** The session of an initialized client. */
  greet(headers?: Record<string, string>): Promise<Answer>;
  /** Opens the stream of a session, which marks its client as present. */
  listen(session: string, headers?: Record<string, string>): Promise<void>;
  close(): Promise<void>;
}

export async function serve(
  { command, isolation = "session", home = newHome(), ...config }: {
    command: string | undefined;
    args?: string[];
    env?: Record<string, string>;
    isolation?: "session" | "shared";
    home?: string;
    [field: string]: unknown;
  },
): Promise<Served> {
  const socket = join(home, "x.sock");
  const server = new ServedMcp({
    home,
    name: "x",
    config: checkServer(
      "x",
      { command, isolation, port: 3050, ...config },
      "here",
    ),
    command,
    missing: undefined,
    socket,
    owner: ownerOf(home),
    log: new ServerLog(join(home, "x.log"), ownerOf(home)),
    tokenKey: "key",
    unread: new Unread(),
    watch: new Watch(),
  });
  await server.listen();
  const send = (message: object, headers = {}) => ask(socket, message, headers);
  return {
    home,
    socket,
    server,
    send,
    greet: (headers = {}) =>
      send({
        id: 0,
        method: "initialize",
        params: {
          protocolVersion: "2025-06-18",
          capabilities: {},
          clientInfo: { name: "test", version: "1" },
        },
      }, headers),
    listen: (session, headers = {}) => listen(socket, session, headers),
    close: async () => {
      await server.close();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

export function newHome(): string {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  mkdirSync(join(home, "bank"));
  return home;
}

function listen(
  socketPath: string,
  session: string,
  headers: Record<string, string>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    request({
      socketPath,
      path: "/mcp",
      agent: false,
      headers: {
        host: "localhost",
        accept: "text/event-stream",
        "mcp-session-id": session,
        ...headers,
      },
    })
      .on("response", () => resolve())
      .on("error", reject)
      .end();
  });
}

function ask(
  socketPath: string,
  message: object,
  headers: Record<string, string>,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({
      socketPath,
      path: "/mcp",
      method: "POST",
      agent: false,
      headers: {
        host: "localhost",
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
        ...headers,
      },
    }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => text += chunk);
      response.on("end", () => {
        const json = /^(?:data: )?(\{.*)$/m.exec(text)?.[1] ?? "{}";
        resolve({
          status: response.statusCode ?? 0,
          session: response.headers["mcp-session-id"]?.toString(),
          message: JSON.parse(json),
        });
      });
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(JSON.stringify({ jsonrpc: "2.0", ...message }));
  });
}
