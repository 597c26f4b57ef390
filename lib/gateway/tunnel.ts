// Tunnels to the gateway, for an engine whose machine the host's unix sockets do
// not reach: a listener on the host's loopback. The parent's services
// request a server with HTTP CONNECT and a bearer token, which changes at each start. The connection is then piped to the server's socket.
// https://www.rfc-editor.org/rfc/rfc9110#name-connect

import { Buffer } from "node:buffer";
import { randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import * as v from "valibot";
import { joinSockets } from "./forward.ts";
import { type Owner, writeAtomic } from "../std/owned.ts";

/** The host's name in containers of an engine that runs in a virtual machine. */
const hostName = "host.docker.internal";

const timeoutMs = 5000;

/** Connections of the parent, and of anyone else who tries. */
const maxConnections = 4096;

/** Port and token. */
const fileName = "tunnel.json";

const address = v.object({ port: v.number(), token: v.string() });

export interface Tunnels {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Listens on 127.0.0.1, and writes the port and the token to `directory`.
 * `socketOf` returns the socket path of a server.
 */
export async function serveTunnels(
  directory: string,
  socketOf: (name: string) => string | undefined,
  owner: Owner,
): Promise<Tunnels> {
  const token = randomBytes(32).toString("base64url");
  const wanted = Buffer.from(`Bearer ${token}`);
  const open = new Set<Duplex>();
  const server = createServer((_, response) => {
    response.writeHead(405, { allow: "CONNECT" }).end();
  });
  server.maxConnections = maxConnections;
  server.on("connect", ({ url, headers }, client: Socket, head: Buffer) => {
    open.add(client);
    client.on("close", () => open.delete(client));
    client.on("error", () => client.destroy());
    const given = Buffer.from(headers["proxy-authorization"] ?? "");
    const socket = socketOf(url?.split(":")[0] ?? "");
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      return refuse(client, "407 Proxy Authentication Required");
    }
    if (socket === undefined) {
      return refuse(client, "404 Not Found");
    }
    client.setNoDelay(true);
    client.write("HTTP/1.1 200 OK\r\n\r\n");
    const gateway = createConnection(socket);
    gateway.write(head);
    joinSockets(client, gateway);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as { port: number };
  const text = JSON.stringify({ port, token });
  writeAtomic(tunnelFile(directory), text, owner, 0o640);
  return {
    port,
    close: async () => {
      forgetTunnels(directory);
      for (const client of open) client.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function refuse(client: Socket, status: string): void {
  client.end(`HTTP/1.1 ${status}\r\n\r\n`, () => client.destroy());
}

/** Also removes the file of a killed gateway. */
export function forgetTunnels(directory: string): void {
  rmSync(tunnelFile(directory), { force: true });
}

/** Opens a tunnel; undefined if `directory` describes none. */
export function openTunnel(
  directory: string,
  name: string,
): Promise<Duplex> | undefined {
  const tunnel = read(tunnelFile(directory));
  if (!tunnel) return undefined;
  return new Promise((resolve, reject) => {
    const asked = request({
      host: hostName,
      port: tunnel.port,
      method: "CONNECT",
      path: `${name}:80`,
      agent: false,
      headers: { "proxy-authorization": `Bearer ${tunnel.token}` },
      timeout: timeoutMs,
    });
    asked.on("connect", ({ statusCode }, socket, head) => {
      socket.setNoDelay(true);
      socket.unshift(head);
      if (statusCode === 200) return resolve(socket);
      socket.destroy();
      reject(new Error(`The gateway's tunnel answers ${statusCode}`));
    });
    asked.on("timeout", () => asked.destroy(new Error("it does not answer")));
    asked.on("error", reject);
    asked.end();
  });
}

function tunnelFile(directory: string): string {
  return join(directory, fileName);
}

function read(path: string): v.InferOutput<typeof address> | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  return v.parse(address, JSON.parse(text));
}
