// How deep a JSON text nests. What is read may be written again, and that takes a time
// that grows with the square of the depth, or all of the stack.

/** Deeper than anything that means something. */
const mostDepth = 1000;

/** Whether a text that others wrote is not to be parsed; it need not be JSON. */
export function isTooDeep(text: string): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      at = endOfString(text, at);
    } else if (code === bracket || code === brace) {
      depth++;
      if (depth > mostDepth) return true;
    } else if (code === closingBracket || code === closingBrace) depth--;
  }
  return false;
}

const quote = 0x22;
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
