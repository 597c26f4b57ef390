// What a worker writes to a person's terminal passes here: what is display goes on,
// in one canonical form, and all else is dropped: clipboard and titles, strings for
// the terminal itself, questions whose answers would be typed, sizes of windows.
// Sequences are those of ECMA-48 and https://invisible-island.net/xterm/ctlseqs/.

import { printable } from "./text.ts";

/**
 * "screen" is a terminal that is handed to a program, such as tmux; "text" is lines
 * that stand among others, of which colours alone are obeyed.
 */
export type Display = "screen" | "text";

const CAN = 0x18;
const SUB = 0x1a;
const ESC = 0x1b;
const BEL = 0x07;
const LF = 0x0a;
const CR = 0x0d;
const DEL = 0x7f;

/** Nothing that is passed on is as long; what is longer is dropped whole. */
const maxControl = 256;
const maxString = 4096;

/**
 * Text, and controls that ring or move the cursor; never ENQ, which has the terminal
 * answer.
 */
// deno-lint-ignore no-control-regex
const screenRun = /[^\x00-\x06\x0a\x10-\x1f\x7f-\x9f]+/y;

/**
 * Index: one line down in the same column, as LF is meant by what draws a screen. A
 * terminal in the raw mode of Node and Deno would still put a CR before an LF.
 */
const index = "\x1bD";

/** Text alone, without what turns the order of letters. */
const textRun =
  // deno-lint-ignore no-control-regex
  /[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+/y;

/** A control sequence that is there as a whole, which most are. */
// deno-lint-ignore no-control-regex
const wholeControl = /\x1b\[([0-?]*[ -/]*)([@-~])/y;

/** Cursor, erasing, inserting, scrolling, tabs, colours; without a prefix. */
const plainFinals = "@ABCDEFGHIJKLMPSTXZ`abdefgmrsu";

/** Of SM and RM: insert, and the cursor that does not blink. */
const modes = [4, 34];

/**
 * Of DECSET: keys, wrapping, cursor, margins, the other screen, mouse, focus, paste,
 * synchronous output. Not those that resize, or report by themselves.
 */
// deno-fmt-ignore
const privateModes = [
  1, 5, 6, 7, 8, 9, 12, 25, 45, 47, 66, 69,
  1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016,
  1034, 1036, 1039, 1045, 1047, 1048, 1049, 2004, 2026, 2027,
];

/** Those that a terminal has on; and those whose state before is not known. */
const usuallyOn = [7, 8, 25];
const unknown = [12, 45, 1007, 1034, 1036, 1039, 1045, 1048];

/** Cursor, keypad, index, tab stop, character sets, reset; not DECID, nor ESC %. */
const escapes = /^(?:[6789=>DEHMNOcno|}~]|#[34568]|[()*+\-./][ -/]?[0-~])$/;

type State = "ground" | "escape" | "control" | "string" | "stringEscape";

export class TerminalFilter {
  readonly #display: Display;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #state: State = "ground";
  /** Of the sequence that has begun, without ESC and the character that names it. */
  #collected = "";
  /** Whether the string that has begun is an OSC; others are never passed on. */
  #isCommand = false;
  /** A CR whose next character is not known yet. */
  #carriage = false;
  /** What puts the terminal back, by what has changed it. */
  readonly #undo = new Map<string, string>();

  constructor(display: Display) {
    this.#display = display;
  }

  /** What a terminal is to be sent for the next bytes of the stream. */
  write(bytes: Uint8Array): string {
    return this.#filter(this.#decoder.decode(bytes, { stream: true }));
  }

  /** What is left at the end, and what puts the terminal back as it was. */
  end(): string {
    const rest = this.#filter(this.#decoder.decode());
    const undo = [...this.#undo.values()].join("");
    this.#undo.clear();
    return rest + (this.#carriage ? "\r\n" : "") + undo;
  }

  #filter(text: string): string {
    const run = this.#display === "screen" ? screenRun : textRun;
    let out = "";
    for (let at = 0; at < text.length;) {
      if (this.#state === "ground") {
        run.lastIndex = at;
        const plain = run.exec(text)?.[0];
        if (plain !== undefined) {
          out += this.#afterCarriage() + plain;
          at += plain.length;
          continue;
        }
        wholeControl.lastIndex = at;
        const whole = wholeControl.exec(text);
        if (whole) {
          out += this.#endControl(whole[1] ?? "", whole[2] ?? "");
          at += whole[0].length;
          continue;
        }
      }
      out += this.#step(text.charAt(at), text.charCodeAt(at));
      at++;
    }
    return out;
  }

  #step(character: string, code: number): string {
    if (this.#state === "string" || this.#state === "stringEscape") {
      return this.#stepString(character, code);
    }
    if (code === ESC) return this.#begin("escape");
    if (code === CAN || code === SUB) return this.#begin("ground");
    if (code < 0x20 || code === DEL) return this.#control(character, code);
    // The same as ESC and the letter.
    if (code >= 0x80 && code <= 0x9f) {
      this.#begin("escape");
      return this.#stepEscape(String.fromCharCode(code - 0x40));
    }
    if (this.#state === "escape") return this.#stepEscape(character);
    if (this.#state === "control") return this.#stepControl(character, code);
    return this.#afterCarriage() + printable(character);
  }

  #begin(state: State): "" {
    this.#state = state;
    this.#collected = "";
    return "";
  }

  /** C0 in the midst of a sequence is carried out at once, as terminals do. */
  #control(character: string, code: number): string {
    if (this.#display === "screen") {
      if (code === LF) return index;
      return code >= BEL && code <= 0x0f ? character : "";
    }
    if (code === CR) {
      this.#carriage = true;
      return "";
    }
    if (code === LF) {
      // A sequence that is not ended hides no more than a line.
      this.#begin("ground");
      const before = this.#carriage ? "\r" : "";
      this.#carriage = false;
      return `${before}\n`;
    }
    return code === 0x09 ? this.#afterCarriage() + character : "";
  }

  /** Alone a CR would have a line written over. */
  #afterCarriage(): string {
    if (!this.#carriage) return "";
    this.#carriage = false;
    return "\r\n";
  }

  #stepEscape(character: string): string {
    if (this.#collected === "") {
      if (character === "[") return this.#begin("control");
      // OSC; DCS, SOS, PM, APC, and the title of screen(1).
      if ("]PX^_k".includes(character)) {
        this.#isCommand = character === "]";
        return this.#begin("string");
      }
    }
    this.#collected += character;
    // Intermediate characters: more are to follow.
    if (/[ -/]$/.test(this.#collected) && this.#collected.length < 4) return "";
    const sequence = this.#collected;
    this.#begin("ground");
    if (this.#display === "text" || !escapes.test(sequence)) return "";
    if (sequence === "=") this.#undo.set("keypad", "\x1b>");
    if (sequence === ">") this.#undo.delete("keypad");
    if (/^\([^B]/.test(sequence)) this.#undo.set("letters", "\x0f\x1b(B");
    if (sequence === "(B") this.#undo.delete("letters");
    return `\x1b${sequence}`;
  }

  #stepControl(character: string, code: number): string {
    if (code > 0x7e) return this.#begin("ground");
    if (code < 0x40) {
      if (this.#collected.length < maxControl) this.#collected += character;
      return "";
    }
    const sequence = this.#collected;
    this.#begin("ground");
    return this.#endControl(sequence, character);
  }

  #endControl(sequence: string, character: string): string {
    if (sequence.length >= maxControl) return "";
    const parts = /^([<=>?]?)([0-9;:]*)([ -/]*)$/.exec(sequence);
    if (!parts) return "";
    const [, prefix = "", parameters = "", between = ""] = parts;
    const allowed = this.#allowed(prefix, parameters, between + character);
    return allowed === undefined
      ? ""
      : `\x1b[${prefix}${allowed}${between}${character}`;
  }

  /** The parameters of a control sequence that is passed on; else undefined. */
  #allowed(
    prefix: string,
    parameters: string,
    final: string,
  ): string | undefined {
    // No terminal is so wide; some would repeat a letter as often.
    if (/\d{6}/.test(parameters)) return undefined;
    if (prefix === "" && final === "m") {
      this.#note("colours", !/^0*$/.test(parameters), "\x1b[m");
      return parameters;
    }
    if (this.#display === "text") return undefined;
    if (final === "h" || final === "l") {
      return this.#allowedModes(prefix, parameters, final === "h");
    }
    switch (prefix + final) {
      case " q": // the cursor's shape
        this.#note("cursor", !/^0*$/.test(parameters), "\x1b[ q");
        return parameters;
      case "!p": // soft reset
      case '"q': // what can be erased
      case "$x": // filling and erasing a rectangle
      case "$z":
      case "?J":
      case "?K":
        return parameters;
      case ">m": // what keys send: xterm's protocol, and kitty's
        this.#note("modifiers", /^4;[1-9]/.test(parameters), "\x1b[>4m");
        return parameters;
      case ">n":
        return parameters;
      case ">u":
        this.#note("keys", true, "\x1b[<9u");
        return parameters;
      case "=u":
        this.#note("flags", !/^0*(;|$)/.test(parameters), "\x1b[=0u");
        return parameters;
      case "<u":
        this.#note("keys", false, "");
        return parameters;
      case "T": // with more it is a mouse that waits for an answer
      case "u":
        return /^\d*$/.test(parameters) ? parameters : undefined;
      default:
        return prefix === "" && plainFinals.includes(final)
          ? parameters
          : undefined;
    }
  }

  #note(what: string, isChanged: boolean, undo: string): void {
    if (isChanged) this.#undo.set(what, undo);
    else this.#undo.delete(what);
  }

  #allowedModes(
    prefix: string,
    parameters: string,
    on: boolean,
  ): string | undefined {
    const known = prefix === "?" ? privateModes : prefix === "" ? modes : [];
    const allowed = parameters.split(";").map(Number)
      .filter((mode) => known.includes(mode));
    for (const mode of allowed) {
      if (prefix === "" || unknown.includes(mode)) continue;
      const changed = on !== usuallyOn.includes(mode);
      this.#note(`?${mode}`, changed, `\x1b[?${mode}${on ? "l" : "h"}`);
    }
    return allowed.length > 0 ? allowed.join(";") : undefined;
  }

  /** Ends at ST, BEL, CAN and SUB; at what begins another sequence; "text" at LF. */
  #stepString(character: string, code: number): string {
    if (this.#state === "stringEscape") {
      if (character === "\\") return this.#endString();
      this.#begin("escape");
      return this.#step(character, code);
    }
    if (code === ESC) {
      this.#state = "stringEscape";
      return "";
    }
    if (code === BEL || code === 0x9c) return this.#endString();
    if (code === CAN || code === SUB) return this.#begin("ground");
    if (code === LF && this.#display === "text") {
      this.#begin("ground");
      return this.#control(character, code);
    }
    if (code >= 0x80 && code <= 0x9f) {
      this.#begin("ground");
      return this.#step(character, code);
    }
    // One character more than is passed on tells that it was too much.
    if (
      this.#isCommand && this.#collected.length <= maxString && code >= 0x20
    ) {
      this.#collected += character;
    }
    return "";
  }

  /** Links, and the cursor's colour; of ASCII alone: some end at a byte of others. */
  #endString(): string {
    const command = this.#collected;
    this.#begin("ground");
    if (!this.#isCommand || this.#display === "text") return "";
    if (command.length > maxString || !/^[ -~]*$/.test(command)) return "";
    if (/^8;[^;]*;/.test(command)) {
      this.#note("link", !command.endsWith(";"), "\x1b]8;;\x1b\\");
      return `\x1b]${command}\x1b\\`;
    }
    const colour = /^12;[#\w:/.,%-]+$/.test(command);
    if (!colour && !/^112;?$/.test(command)) return "";
    this.#note("colour", colour, "\x1b]112\x1b\\");
    return `\x1b]${command}\x1b\\`;
  }
}

/** A text of a worker's as lines among others at a terminal. */
export function displayed(text: string): string {
  const filter = new TerminalFilter("text");
  return filter.write(new TextEncoder().encode(text)) + filter.end();
}
