// JSON that others wrote. A text that is all brackets takes many times its length when it
// is parsed. One that nests deep takes time that grows with the square of the depth when
// it is written again, or uses up the stack.

import * as v from "valibot";
import { plainText } from "./plain-file.ts";

/** Deeper than anything that means something. */
const maxDepth = 1000;

/** Of objects and lists; a list of numbers is one. */
const maxContainers = 250_000;

const maxValues = 5_000_000;

/** Whether a text is not to be parsed; it need not be JSON. */
export function isTooMuch(text: string): boolean {
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

/** Where the string that begins at `at` ends. */
function endOfString(text: string, at: number): number {
  let end = text.indexOf('"', at + 1);
  for (; end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++;
    if (escapes % 2 === 0) return end;
  }
  return text.length;
}

/** The value of a JSON text; undefined where it is no JSON, or not of this form. */
export function parseJson<T>(
  schema: v.GenericSchema<unknown, T>,
  text: string | undefined,
): T | undefined {
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
  return parsed.success ? parsed.output : undefined;
}

/** The same of a file; undefined too where there is none, or none that is read. */
export function readJson<T>(
  path: string,
  schema: v.GenericSchema<unknown, T>,
  maxBytes = 64 * 1024,
): T | undefined {
  try {
    return parseJson(schema, plainText(path, { maxBytes }));
  } catch {
    return undefined; // it is not ours to read
  }
}
