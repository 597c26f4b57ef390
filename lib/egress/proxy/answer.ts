// Answers of the proxy itself.

import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
import { type Target, targetText } from "../target.ts";

/** Some programs show only this: pip, for instance. */
function reasonOf(status: number, target: Target | undefined): string {
  if (status === 403 && target) {
    return `Egress to ${targetText(target)} is refused`;
  }
  return { 400: "Bad Request", 403: "Forbidden", 503: "Service Unavailable" }[
    status
  ] ?? "Bad Gateway";
}

/** A whole response. */
export function responseText(
  status: number,
  sentence: string,
  target?: Target,
): string {
  const body = `${sentence}\n`;
  return [
    `HTTP/1.1 ${status} ${reasonOf(status, target)}`,
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
    "",
    body,
  ].join("\r\n");
}

/** Sends the last bytes of a connection, and closes it although the client does not. */
export function finish(socket: Duplex, text: string): void {
  socket.end(text);
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  socket.on("close", () => clearTimeout(timer));
}

const lingerMs = 2000;
