// Decodes Docker's multiplexed output of containers.

import { Buffer } from "node:buffer";
import type { Readable } from "node:stream";

/**
 * The text of a multiplexed log. Each frame has a header of 8 bytes, and the last four
 * are the length of the payload.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
 */
export function withoutFrames(log: Uint8Array): Uint8Array {
  const buffer = Buffer.from(log.buffer, log.byteOffset, log.byteLength);
  const parts: Uint8Array[] = [];
  for (let at = 0; at + 8 <= buffer.length;) {
    const length = buffer.readUInt32BE(at + 4);
    parts.push(buffer.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return Buffer.concat(parts);
}

/** The first line of a log; "" if it is not complete yet. */
export function firstLineIn(log: Uint8Array): string {
  const text = new TextDecoder().decode(withoutFrames(log));
  return text.slice(0, Math.max(text.indexOf("\n"), 0));
}

/** The first line of a followed log; "" if the log ends without one. */
export async function firstLine(log: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of log) {
      chunks.push(chunk as Uint8Array);
      const line = firstLineIn(Buffer.concat(chunks));
      if (line !== "") return line;
    }
    return "";
  } finally {
    log.destroy();
  }
}

export interface Frame {
  stream: "stdout" | "stderr";
  payload: Buffer;
}

/** Reads the frames of a multiplexed stream that arrives in pieces. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  add(bytes: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let rest: Buffer = Buffer.concat([this.#rest, bytes]);
    while (rest.length >= 8) {
      const end = 8 + rest.readUInt32BE(4);
      if (rest.length < end) break;
      const stream = rest[0] === 2 ? "stderr" : "stdout";
      frames.push({ stream, payload: rest.subarray(8, end) });
      rest = rest.subarray(end);
    }
    this.#rest = rest;
    return frames;
  }
}
