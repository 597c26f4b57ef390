// Parses untrusted JSON. A text that consists of brackets takes many times its length in
// memory when parsed. Serializing deeply nested values takes time quadratic in the depth,
// or overflows the stack.

import * as v from "valibot";
import { plainText } from "./plain-file.ts";

/** Deeper than any useful value. */
const maxDepth = 1000;

/** Objects and arrays; an array of numbers counts once. */
const maxContainers = 250_000;

const maxValues = 5_000_000;

/** Whether a text is too complex to be parsed safely; it need not be JSON. */
export function isTooComplex(text: string): boolean {
  let depth = 0;
  let containers = 0;
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) at = endOfString(text, at);
    else if (code === bracket || code === brace) {
      if (++depth > maxDepth || ++containers > maxContainers) return true;
    } else if (code === closingBracket || code === closingBrace) depth--;
    else if (code === comma && ++values > maxValues) return true;
  }
  return false;
}

const quote = 0x22;
const comma = 0x2c;
const backslash = 0x5c;
const bracket = 0x5b;
const closingBracket = 0x5d;
const brace = 0x7b;
const closingBrace = 0x7d;

/** The end of the string that starts at `at`. */
function endOfString(text: string, at: number): number {
  let end = text.indexOf('"', at + 1);
  for (; end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++;
    if (escapes % 2 === 0) return end;
  }
  return text.length;
}

/** Parses JSON; undefined if it is invalid or does not match the schema. */
export function parseJson<T>(
  schema: v.GenericSchema<unknown, T>,
  text: string | undefined,
): T | undefined {
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
  return parsed.success ? parsed.output : undefined;
}

/** Parses a JSON file; undefined if it is missing, unreadable or invalid. */
export function readJson<T>(
  path: string,
  schema: v.GenericSchema<unknown, T>,
  maxBytes = 64 * 1024,
): T | undefined {
  try {
    return parseJson(schema, plainText(path, { maxBytes }));
  } catch {
    return undefined; // it may not be read
  }
}
