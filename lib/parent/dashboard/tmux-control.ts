// A connection to a tmux server: tmux -C, see CONTROL MODE in tmux(1). Answers are
// between %begin and %end lines; notifications are lines of their own.

// Not zx: tmux's control mode is a conversation over its stdin.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { shellQuoted } from "../../std/text.ts";

/** A command that tmux rejected. */
export class TmuxError extends Error {}

interface Pending {
  resolve(lines: string[]): void;
  reject(error: Error): void;
}

export class TmuxControl {
  readonly #process: ChildProcess;
  readonly #pending: Pending[] = [];
  /** Lines of the current answer; undefined outside of one. */
  #answer: string[] | undefined;
  /** Resolves when the server or the connection has ended. */
  readonly ended: Promise<void>;

  /**
   * `command` is tmux with the options that select its server. `notice` is called
   * with the words of each notification; the first is its name, e.g.
   * "layout-change".
   */
  constructor(
    command: readonly [string, ...string[]],
    session: string,
    notice: (words: string[]) => void,
  ) {
    const [file, ...args] = command;
    this.#process = spawn(file, [
      ...args,
      "-C",
      "attach-session",
      "-t",
      `=${session}`,
      // This client needs neither a size nor output.
      "-f",
      "ignore-size,no-output",
    ], { stdio: ["pipe", "pipe", "ignore"] });
    // The first answer is that of attach-session itself.
    this.#pending.push({ resolve: () => {}, reject: () => {} });
    const output = this.#process.stdout;
    if (!output) throw new Error("tmux has no output");
    createInterface({ input: output }).on(
      "line",
      (line) => this.#read(line, notice),
    );
    this.#process.stdin?.on("error", () => {}); // reported by `ended`
    this.ended = once(this.#process, "exit").then(() => {
      const error = new TmuxError("tmux has ended");
      for (const { reject } of this.#pending.splice(0)) reject(error);
    }, () => {});
  }

  /** Runs a tmux command; throws a TmuxError if tmux rejects it. */
  async ask(...words: string[]): Promise<string[]> {
    const line = words.map((word) => shellQuoted(word.replaceAll("\n", " ")))
      .join(" ");
    return await new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#process.stdin?.write(`${line}\n`);
    });
  }

  close(): void {
    this.#process.stdin?.end();
  }

  #read(line: string, notice: (words: string[]) => void): void {
    if (this.#answer === undefined) {
      if (!line.startsWith("%")) return;
      const words = line.slice(1).split(" ");
      if (words[0] === "begin") this.#answer = [];
      else notice(words);
      return;
    }
    if (line.startsWith("%end ") || line.startsWith("%error ")) {
      const lines = this.#answer;
      this.#answer = undefined;
      const pending = this.#pending.shift();
      if (line.startsWith("%end ")) pending?.resolve(lines);
      else pending?.reject(new TmuxError(lines.join(" ")));
      return;
    }
    this.#answer.push(line);
  }
}
