// A command's environment, terminal and output streams. Tests pass their own.

import process from "node:process";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { filterText } from "../std/terminal-filter.ts";
import { printable, printableLines } from "../std/text.ts";

interface Streams {
  env: NodeJS.ProcessEnv;
  stdin: NodeJS.ReadStream;
  stdout: Pick<NodeJS.WriteStream, "write" | "isTTY"> & { columns?: number };
  stderr: Pick<NodeJS.WriteStream, "write" | "isTTY"> & { columns?: number };
}

export class Io {
  readonly env: NodeJS.ProcessEnv;
  readonly stderr: Streams["stderr"];
  readonly #stdin: Streams["stdin"];
  readonly #stdout: Streams["stdout"];

  /** What is drawn at the end of the terminal until other output replaces it. */
  #progress = "";
  /** Why nothing may be drawn: a question is asked, or the command ends. */
  #isHeld = false;

  constructor({ env, stdin, stdout, stderr }: Streams = process) {
    this.env = env;
    this.stderr = stderr;
    this.#stdin = stdin;
    this.#stdout = stdout;
  }

  /** Prints a progress line, which is not part of the result. */
  readonly log: Log = Object.assign(
    (line: string) => {
      const text = `${printableLines(line)}\n`;
      this.stderr.write(this.#progress === "" ? text : `${eraseLine}${text}`);
      this.#draw();
    },
    { progress: (text: string) => this.progress(text) },
  );

  /** Whether a line of progress can be drawn. */
  get showsProgress(): boolean {
    return this.stderr.isTTY === true && this.env["TERM"] !== "dumb";
  }

  /** Replaces the line of progress; "" removes it. Draws nothing without a terminal. */
  progress(line: string): void {
    if (!this.showsProgress || line === this.#progress) return;
    if (this.#progress !== "" && !this.#isHeld) this.stderr.write(eraseLine);
    // A longer line would wrap, and only its last part would be erased.
    this.#progress = printable(line).slice(0, (this.stderr.columns ?? 80) - 1);
    this.#draw();
  }

  /** Erases the line of progress, and draws none until the result is called. */
  holdProgress(): () => void {
    if (this.#progress !== "" && !this.#isHeld) this.stderr.write(eraseLine);
    this.#isHeld = true;
    return () => {
      this.#isHeld = false;
      this.#draw();
    };
  }

  #draw(): void {
    if (!this.#isHeld) this.stderr.write(this.#progress);
  }

  cwd(): string {
    return process.cwd();
  }

  /** Whether the user can be prompted. */
  get isInteractive(): boolean {
    return this.#stdin.isTTY === true;
  }

  /** Whether the result is printed on a terminal. */
  get showsOutput(): boolean {
    return this.#stdout.isTTY === true;
  }

  /** Columns of the terminal that shows the result; undefined if it is no terminal. */
  get width(): number | undefined {
    return this.#stdout.isTTY ? this.#stdout.columns : undefined;
  }

  /**
   * Prints the result on stdout, as JSON or text. On a terminal all control sequences but
   * colours are filtered; other output is unchanged.
   */
  answer(value: unknown, text: string, json = false): void {
    const line = json ? this.#json(value, 2) : text;
    if (line !== "") this.#print(line);
  }

  /** Prints one of several results, each on its own line. */
  answerLine(value: unknown, text: string, json = false): void {
    this.#print(json ? this.#json(value) : text);
  }

  /** Serializes a value; for a terminal, control characters are escaped. */
  #json(value: unknown, indent?: number): string {
    const text = JSON.stringify(value, null, indent) ?? "";
    if (!this.#stdout.isTTY) return text;
    return text.replace(
      /[\x7f-\x9f\p{Cf}\u2028\u2029]/gu,
      (character) =>
        [...Array(character.length).keys()].map((at) =>
          `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`
        ).join(""),
    );
  }

  #print(line: string): void {
    this.#stdout.write(`${this.#stdout.isTTY ? filterText(line) : line}\n`);
  }

  /** Reads a line without echo, or all of stdin if that is not a terminal. */
  async askHidden(question: string): Promise<string> {
    if (!this.isInteractive) return (await this.readInput()).trim();
    const stdin = this.#stdin;
    stdin.setEncoding("utf8");
    let text = "";
    const resume = this.holdProgress();
    // Before the prompt, so that early input is not echoed either.
    stdin.setRawMode(true);
    try {
      this.stderr.write(`${question} (hidden): `);
      for await (const chunk of stdin) {
        for (const character of chunk as string) {
          if (character === "\r" || character === "\n") return text.trim();
          if (character === "\x03" || character === "\x04") throw cancelled();
          text = character === "\x7f" ? text.slice(0, -1) : text + character;
        }
      }
      return text.trim();
    } finally {
      stdin.setRawMode(false);
      this.stderr.write("\n");
      resume();
    }
  }

  /** All of stdin; "" if that is a terminal. */
  async readInput(): Promise<string> {
    if (this.isInteractive) return "";
    const stdin = this.#stdin;
    stdin.setEncoding("utf8");
    let text = "";
    for await (const chunk of stdin) text += chunk;
    return text;
  }

  /** Asks for confirmation; throws an `unsafe` Failure if the user does not confirm. */
  async confirm(question: string, yes = false): Promise<void> {
    if (yes) return;
    if (!this.isInteractive) {
      throw new Failure(
        "unsafe",
        `Not a terminal, so cannot ask: ${question}`,
        { hint: "Pass --yes to confirm." },
      );
    }
    if (!await this.isConfirmed(question)) throw cancelled();
  }

  /** Asks a yes/no question at the terminal; Enter means `byDefault`. */
  async isConfirmed(
    question: string,
    { byDefault = false } = {},
  ): Promise<boolean> {
    const choices = byDefault ? "[Y/n]" : "[y/N]";
    const reply = await this.#ask(`${question} ${choices} `);
    return reply === "" ? byDefault : /^y(es)?$/i.test(reply);
  }

  /** Lets the user choose at the terminal; returns the index of the choice. */
  async choose(question: string, choices: string[]): Promise<number> {
    this.log(question);
    choices.forEach((choice, index) => this.log(`  ${index + 1}  ${choice}`));
    const reply = await this.#ask(
      `1 to ${choices.length}, or Enter to cancel: `,
    );
    const chosen = /^\d$/.test(reply) ? Number(reply) - 1 : -1;
    if (chosen in choices) return chosen;
    throw cancelled();
  }

  /**
   * Drops what was typed before a question: it was meant for something else. Only raw mode
   * also gives what is still being edited.
   */
  async #dropTypedAhead(): Promise<void> {
    const stdin = this.#stdin;
    if (!stdin.isTTY || !stdin.setRawMode) return;
    let typed = "";
    const collect = (bytes: Uint8Array | string) => {
      typed += bytes.toString();
    };
    stdin.setRawMode(true);
    stdin.on("data", collect);
    await new Promise((resolve) => setTimeout(resolve, typedAheadMs));
    stdin.off("data", collect);
    stdin.pause();
    stdin.setRawMode(false);
    if (typed.includes("\x03")) throw cancelled();
  }

  async #ask(question: string): Promise<string> {
    const resume = this.holdProgress();
    await this.#dropTypedAhead();
    const { createInterface } = await import("node:readline/promises");
    const terminal = createInterface({
      input: this.#stdin,
      output: this.stderr as NodeJS.WriteStream,
    });
    try {
      const left = new Promise<never>((_, reject) => {
        // readline handles Ctrl-C and Ctrl-D itself.
        const leave = () => {
          this.stderr.write("\n");
          reject(cancelled());
        };
        terminal.on("SIGINT", leave).on("close", leave);
      });
      return (await Promise.race([
        terminal.question(printableLines(question)),
        left,
      ])).trim();
    } finally {
      terminal.close();
      resume();
    }
  }
}

/** Returns to the first column and erases the rest of the line. */
const eraseLine = "\r\x1b[K";

/** Enough to read what the terminal holds. */
const typedAheadMs = 30;

function cancelled(): Failure {
  return new Failure("unsafe", "Cancelled");
}
