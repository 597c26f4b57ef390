// Splits a stream of bytes into lines.

import { Buffer } from "node:buffer";
import { Failure } from "./errors.ts";

/**
 * The lines, without their newlines. Throws a Failure if one is longer than `maxBytes`:
 * who writes the stream must not be able to fill the memory.
 */
export async function* linesOf(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<string> {
  let parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    let rest = Buffer.from(chunk);
    for (let end; (end = rest.indexOf("\n")) >= 0;) {
      yield Buffer.concat([...parts, rest.subarray(0, end)]).toString();
      [parts, length, rest] = [[], 0, rest.subarray(end + 1)];
    }
    parts.push(rest);
    length += rest.length;
    if (length <= maxBytes) continue;
    throw new Failure("failed", "A line of the output is too long");
  }
  if (length > 0) yield Buffer.concat(parts).toString();
}
