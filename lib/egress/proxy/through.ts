// Connects through the user's own proxy.

import { Buffer } from "node:buffer";
import { isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type Target, targetText } from "../target.ts";
import type { Bounds } from "./bounds.ts";
import { connectFirst, within, type World } from "./world.ts";

/** The proxy is the user's choice: neither its name nor its address is judged. */
export async function connectToProxy(
  world: World,
  via: URL,
  ca: string | null,
  { lookupMs, connectMs }: Pick<Bounds, "lookupMs" | "connectMs">,
): Promise<Socket> {
  const host = via.hostname.replace(/^\[|\]$/g, "");
  const port = Number(via.port) || (via.protocol === "https:" ? 443 : 80);
  try {
    const addresses = isIP(host)
      ? [host]
      : await within(world.lookup(host), lookupMs, "no answer in time");
    const { socket } = await connectFirst(world, addresses, port, connectMs);
    if (via.protocol === "http:") return socket;
    const secured = within(secure(socket, host, ca), connectMs, "TLS fails");
    return await orDestroyed(socket, secured);
  } catch (error) {
    // The message has no password: it is about the name or the address.
    throw new Error(`the host's proxy ${host}:${port} does not answer`, {
      cause: error,
    });
  }
}

function secure(
  socket: Socket,
  host: string,
  ca: string | null,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const secured = connectTls({
      socket,
      host,
      ...(isIP(host) ? {} : { servername: host }),
      ...(ca === null ? {} : { ca: [ca] }),
    });
    secured.on("error", reject);
    secured.once("secureConnect", () => resolve(secured));
  });
}

/** The header that the proxy's user and password give; none without them. */
export function proxyAuthorization(via: URL): string[] {
  if (via.username === "" && via.password === "") return [];
  const pair = [via.username, via.password].map(decodeURIComponent).join(":");
  const text = Buffer.from(pair).toString("base64");
  return ["Proxy-Authorization", `Basic ${text}`];
}

const maxHeadBytes = 16 * 1024;

/** Asks the proxy for a tunnel. Destroys the socket and rejects if it refuses. */
export async function openTunnelThrough(
  socket: Socket,
  via: URL,
  target: Target,
  timeoutMs: number,
): Promise<void> {
  const place = targetText(target);
  const [name, value] = proxyAuthorization(via);
  socket.write([
    `CONNECT ${place} HTTP/1.1`,
    `Host: ${place}`,
    ...(name === undefined ? [] : [`${name}: ${value}`]),
    "",
    "",
  ].join("\r\n"));
  const late = "the host's proxy does not answer";
  await orDestroyed(socket, within(answered(socket), timeoutMs, late));
}

/** Does not leave the socket open if the promise rejects. */
export async function orDestroyed<T>(
  socket: Socket,
  promise: Promise<T>,
): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function answered(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = Buffer.alloc(0);
    const settle = (error?: Error) => {
      socket.off("data", read);
      socket.off("close", closed);
      socket.pause();
      if (error) reject(error);
      else resolve();
    };
    const closed = () => settle(new Error("the host's proxy has left"));
    const read = (chunk: Buffer) => {
      text = Buffer.concat([text, chunk]);
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) {
        if (text.length <= maxHeadBytes) return;
        return settle(new Error("the host's proxy sends no answer"));
      }
      const [, status] =
        /^HTTP\/1\.[01] (\d{3})/.exec(text.toString("latin1")) ??
          [];
      const rest = text.subarray(end + 4);
      settle(
        status === "200"
          ? undefined
          : new Error(`the host's proxy answers with status ${status}`),
      );
      if (rest.length > 0) socket.unshift(rest);
    };
    socket.on("data", read);
    socket.on("close", closed);
  });
}
