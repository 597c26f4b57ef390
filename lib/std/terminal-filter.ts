// Filters what a worker writes to the user's terminal. Sequences that only affect the
// display are passed on in a canonical form. Everything else is dropped: clipboard,
// titles, device control strings, queries whose replies would arrive as input, and window
// sizes. See ECMA-48 and https://invisible-island.net/xterm/ctlseqs/.

import { printable } from "./text.ts";

/**
 * "screen" is for a program that uses the whole terminal, such as tmux. "text" is for
 * lines among other output; only text and colours are passed on.
 */
export type Display = "screen" | "text";

const CAN = 0x18;
const SUB = 0x1a;
const ESC = 0x1b;
const BEL = 0x07;
const LF = 0x0a;
const CR = 0x0d;
const DEL = 0x7f;
const shiftOut = "\x0e";

/** Longer sequences are dropped; allowed ones are shorter. */
const maxControl = 256;
const maxString = 4096;

/**
 * Text, and controls that ring the bell or move the cursor. Not ENQ, which makes the
 * terminal reply.
 */
// deno-lint-ignore no-control-regex
const screenRun = /[^\x00-\x06\x0a\x10-\x1f\x7f-\x9f]+/y;

/**
 * Index: one line down in the same column. Full-screen programs mean this by LF, but the
 * raw mode of Node and Deno would add a CR.
 */
const index = "\x1bD";

/** Text without characters that change its direction. */
const textRun =
  // deno-lint-ignore no-control-regex
  /[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+/y;

/** A complete control sequence; most arrive in one piece. */
// deno-lint-ignore no-control-regex
const wholeControl = /\x1b\[([0-?]*[ -/]*)([@-~])/y;

/** Final characters without a prefix: cursor, erase, insert, scroll, colours. */
const plainFinals = "@ABCDEFGHIJKLMPSTXZ`abdefmrsu";

/** Modes of SM and RM: insert, and the steady cursor. */
const modes = [4, 34];

/**
 * Modes of DECSET: keys, wrapping, cursor, margins, alternate screen, mouse, focus,
 * paste, synchronized output. Not modes that resize the window, that make the terminal
 * report by itself, or that cannot be restored because their former state is unknown or
 * the cursor would move.
 */
// deno-fmt-ignore
const privateModes = [
  1, 5, 7, 8, 9, 12, 25, 47, 66, 69,
  1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016,
  1047, 1048, 1049, 2004, 2026,
];

/** Modes, private or not, that are on by default. */
const usuallyOn = [7, 8, 25, 34];
/** Modes that save the cursor or make it blink: nothing to restore. */
const withoutUndo = [12, 1048];
const otherScreens = [47, 1047, 1049];

/** Cursor, keypad, index, line drawing characters (G0 and G1, as in tmux), reset. */
const escapes = /^(?:[6789=>DEMc]|#[34568]|[()][0B])$/;

/**
 * Sequences that restore the terminal at the end. A reset is recorded once its sequence
 * was passed on, and a later opposite sequence does not remove it: a stack in the
 * terminal or a saved cursor may restore the state. A single DECSTR is not enough:
 * tmux and kitty do not support it.
 */
const reset = {
  colours: "\x1b[m",
  /** For the Linux console: SGR 0 does not reset its fonts. */
  font: "\x1b[10m",
  keypad: "\x1b>",
  letters: "\x0f\x1b(B\x1b)B",
  /** Both sequences move the cursor; ESC 8 restores its position. */
  margins: "\x1b7\x1b[?69l\x1b[r\x1b8",
  cursor: "\x1b[ q",
  modifiers: "\x1b[>4m",
  /** More levels than any terminal's stack has. */
  keys: "\x1b[<99u\x1b[=0u",
  wrapping: "\x1b[?7h",
} as const;

type State = "ground" | "escape" | "control" | "string" | "stringEscape";

export class TerminalFilter {
  readonly #display: Display;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #state: State = "ground";
  /** The sequence so far, without ESC and the character that introduces it. */
  #collected = "";
  /** Whether the current string is an OSC; others are never passed on. */
  #isCommand = false;
  /** Whether a CR is held back until the next character is known. */
  #pendingReturn = false;
  readonly #resets = new Set<string>();
  /** The modes of the alternate screen that are on. */
  readonly #screens = new Set<number>();
  /** Sequences that end the open link and reset the cursor's colour. */
  readonly #open = new Map<string, string>();

  constructor(display: Display) {
    this.#display = display;
  }

  /** Filters the next bytes of the stream. */
  write(bytes: Uint8Array): string {
    return this.#filter(this.#decoder.decode(bytes, { stream: true }));
  }

  /** The pending output, and the sequences that restore the terminal. */
  end(): string {
    const rest = this.#filter(this.#decoder.decode());
    return rest + (this.#pendingReturn ? "\r\n" : "") + this.#restore();
  }

  /** Resets the state of each screen, leaves the alternate screen, resets the rest. */
  #restore(): string {
    let out = "";
    if (this.#resets.has(reset.keys)) {
      if (this.#screens.size === 0) out += this.#screen(1049, true);
      out += reset.keys;
    }
    const margins = this.#resets.delete(reset.margins);
    if (margins && this.#screens.size > 0) out += "\x1b[r";
    for (const mode of this.#screens) out += this.#screen(mode, false);
    if (margins) out += reset.margins;
    // Last: leaving the alternate screen restores a saved cursor with its colours.
    out += [...this.#resets, ...this.#open.values()].join("");
    this.#resets.clear();
    this.#open.clear();
    return out;
  }

  #screen(mode: number, on: boolean): string {
    if (on) this.#screens.add(mode);
    else this.#screens.delete(mode);
    return `\x1b[?${mode}${on ? "h" : "l"}`;
  }

  #filter(text: string): string {
    const run = this.#display === "screen" ? screenRun : textRun;
    let out = "";
    for (let at = 0; at < text.length;) {
      if (this.#state === "ground") {
        run.lastIndex = at;
        const plain = run.exec(text)?.[0];
        if (plain !== undefined) {
          if (plain.includes(shiftOut)) this.#resets.add(reset.letters);
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
    // A C1 control is the same as ESC and a letter.
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

  /** Executes a C0 control immediately, also inside a sequence, as terminals do. */
  #control(character: string, code: number): string {
    if (this.#display === "screen") {
      if (code === LF) return index;
      if (character === shiftOut) this.#resets.add(reset.letters);
      return code >= BEL && code <= 0x0f ? character : "";
    }
    if (code === CR) {
      this.#pendingReturn = true;
      return "";
    }
    if (code === LF) {
      // An unterminated sequence hides at most one line.
      this.#begin("ground");
      const before = this.#pendingReturn ? "\r" : "";
      this.#pendingReturn = false;
      return `${before}\n`;
    }
    return code === 0x09 ? this.#afterCarriage() + character : "";
  }

  /** A CR without LF would let the line be overwritten. */
  #afterCarriage(): string {
    if (!this.#pendingReturn) return "";
    this.#pendingReturn = false;
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
    // After an intermediate character, more characters follow.
    if (/[ -/]$/.test(this.#collected) && this.#collected.length < 4) return "";
    const sequence = this.#collected;
    this.#begin("ground");
    if (this.#display === "text" || !escapes.test(sequence)) return "";
    if (sequence === "=") this.#resets.add(reset.keypad);
    if (/^[()]0/.test(sequence)) this.#resets.add(reset.letters);
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

  /** The parameters to pass on; undefined if the control sequence is dropped. */
  #allowed(
    prefix: string,
    parameters: string,
    final: string,
  ): string | undefined {
    // No terminal is this wide, and some would repeat a character this often.
    if (/\d{6}/.test(parameters)) return undefined;
    if (prefix === "" && final === "m") {
      if (!/^0*$/.test(parameters)) this.#resets.add(reset.colours);
      else if (this.#display === "text") this.#resets.delete(reset.colours);
      if (/(^|;)1[12](;|$)/.test(parameters)) this.#resets.add(reset.font);
      return parameters;
    }
    if (this.#display === "text") return undefined;
    if (final === "h" || final === "l") {
      return this.#allowedModes(prefix, parameters, final === "h");
    }
    switch (prefix + final) {
      case " q": // the cursor's shape
        this.#resets.add(reset.cursor);
        return parameters;
      case "!p": // soft reset; some terminals then no longer wrap
        this.#resets.add(reset.wrapping);
        return parameters;
      case "$x": // fill and erase a rectangle
      case "$z":
      case "?J":
      case "?K":
        return parameters;
      case ">m": // keyboard protocols of xterm and kitty
      case ">n":
        if (!/^4(;|$)/.test(parameters)) return undefined;
        this.#resets.add(reset.modifiers);
        return parameters;
      case ">u":
      case "=u":
        this.#resets.add(reset.keys);
        return parameters;
      case "<u":
        return parameters;
      case "T": // with more parameters, mouse tracking that expects a reply
      case "u":
        return /^\d*$/.test(parameters) ? parameters : undefined;
      case "r":
      case "s": // left and right margins if mode 69 is on
        if (final === "r" || parameters) this.#resets.add(reset.margins);
        return parameters;
      default:
        return prefix === "" && plainFinals.includes(final)
          ? parameters
          : undefined;
    }
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
      if (withoutUndo.includes(mode)) continue;
      if (otherScreens.includes(mode)) this.#screen(mode, on);
      else if (mode === 69) this.#resets.add(reset.margins);
      else if (on !== usuallyOn.includes(mode)) {
        this.#resets.add(`\x1b[${prefix}${mode}${on ? "l" : "h"}`);
      }
    }
    return allowed.length > 0 ? allowed.join(";") : undefined;
  }

  /** A string ends at ST, BEL, CAN, SUB, or a new sequence; in "text" also at LF. */
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
    // One character more than the maximum marks the string as too long.
    if (
      this.#isCommand && this.#collected.length <= maxString && code >= 0x20
    ) {
      this.#collected += character;
    }
    return "";
  }

  /**
   * Passes on links and the cursor's colour, only in ASCII: in some terminals a byte of
   * another character would end the string.
   */
  #endString(): string {
    const command = this.#collected;
    this.#begin("ground");
    if (!this.#isCommand || this.#display === "text") return "";
    if (command.length > maxString || !/^[ -~]*$/.test(command)) return "";
    if (/^8;[^;]*;/.test(command)) {
      this.#track("link", !/^8;[^;]*;$/.test(command), "\x1b]8;;\x1b\\");
      return `\x1b]${command}\x1b\\`;
    }
    const colour = /^12;[#\w:/.,%-]+$/.test(command);
    if (!colour && !/^112;?$/.test(command)) return "";
    this.#track("colour", colour, "\x1b]112\x1b\\");
    return `\x1b]${command}\x1b\\`;
  }

  #track(what: string, isOpen: boolean, end: string): void {
    if (isOpen) this.#open.set(what, end);
    else this.#open.delete(what);
  }
}

/** Filters a worker's text for display among other lines on a terminal. */
export function filterText(text: string): string {
  const filter = new TerminalFilter("text");
  return filter.write(new TextEncoder().encode(text)) + filter.end();
}
