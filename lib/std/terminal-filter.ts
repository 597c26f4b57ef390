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
const shiftOut = "\x0e";

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

/** Cursor, erasing, inserting, scrolling, colours; without a prefix. */
const plainFinals = "@ABCDEFGHIJKLMPSTXZ`abdefmrsu";

/** Of SM and RM: insert, and the cursor that does not blink. */
const modes = [4, 34];

/**
 * Of DECSET: keys, wrapping, cursor, margins, the other screen, mouse, focus, paste,
 * synchronous output. Not those that resize, or report by themselves, nor those whose
 * state before cannot be restored: it is not known, or the cursor would move.
 */
// deno-fmt-ignore
const privateModes = [
  1, 5, 7, 8, 9, 12, 25, 47, 66, 69,
  1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016,
  1047, 1048, 1049, 2004, 2026,
];

/** Those that a terminal has on, private or not. */
const usuallyOn = [7, 8, 25, 34];
/** That save the cursor, or have it blink: nothing to restore. */
const withoutUndo = [12, 1048];
const otherScreens = [47, 1047, 1049];

/** Cursor, keypad, index, lines that are drawn (G0 and G1, as tmux has them), reset. */
const escapes = /^(?:[6789=>DEMc]|#[34568]|[()][0B])$/;

/**
 * What restores the terminal. A reset is written once what it is for was passed on,
 * never taken back for what looks like the opposite: a stack of the terminal, or a
 * saved cursor, may bring it on again. So a terminal is sent resets of what it was sent
 * already. Not one DECSTR for all: neither tmux nor kitty has it.
 */
const reset = {
  colours: "\x1b[m",
  /** Of the Linux console, which SGR 0 leaves as they are. */
  font: "\x1b[10m",
  keypad: "\x1b>",
  letters: "\x0f\x1b(B\x1b)B",
  /** Both move the cursor; ESC 8 has it where it was. */
  margins: "\x1b7\x1b[?69l\x1b[r\x1b8",
  cursor: "\x1b[ q",
  modifiers: "\x1b[>4m",
  /** More than any terminal's stack holds. */
  keys: "\x1b[<99u\x1b[=0u",
  wrapping: "\x1b[?7h",
} as const;

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
  readonly #resets = new Set<string>();
  /** Modes of the alternate screen that are on. */
  readonly #screens = new Set<number>();
  /** What ends the link that is open, and the cursor's colour. */
  readonly #open = new Map<string, string>();

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
    return rest + (this.#carriage ? "\r\n" : "") + this.#restore();
  }

  /** Resets what each screen has of its own, leaves the other one, resets the rest. */
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
    // After what has the terminal take up a saved cursor, with its colours.
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
      if (character === shiftOut) this.#resets.add(reset.letters);
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

  /** The parameters of a control sequence that is passed on; else undefined. */
  #allowed(
    prefix: string,
    parameters: string,
    final: string,
  ): string | undefined {
    // No terminal is so wide; some would repeat a letter as often.
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
      case "!p": // soft reset, by which some no longer wrap
        this.#resets.add(reset.wrapping);
        return parameters;
      case "$x": // filling and erasing a rectangle
      case "$z":
      case "?J":
      case "?K":
        return parameters;
      case ">m": // what keys send: xterm's protocol, and kitty's
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
      case "T": // with more it is a mouse that waits for an answer
      case "u":
        return /^\d*$/.test(parameters) ? parameters : undefined;
      case "r":
      case "s": // margins at the sides, where mode 69 is on
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
      this.#note("link", !/^8;[^;]*;$/.test(command), "\x1b]8;;\x1b\\");
      return `\x1b]${command}\x1b\\`;
    }
    const colour = /^12;[#\w:/.,%-]+$/.test(command);
    if (!colour && !/^112;?$/.test(command)) return "";
    this.#note("colour", colour, "\x1b]112\x1b\\");
    return `\x1b]${command}\x1b\\`;
  }

  #note(what: string, isOpen: boolean, end: string): void {
    if (isOpen) this.#open.set(what, end);
    else this.#open.delete(what);
  }
}

/** A text of a worker's as lines among others at a terminal. */
export function displayed(text: string): string {
  const filter = new TerminalFilter("text");
  return filter.write(new TextEncoder().encode(text)) + filter.end();
}
