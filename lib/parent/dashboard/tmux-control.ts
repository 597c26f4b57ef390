// A tmux server, talked to over one connection: tmux -C, see CONTROL MODE in
// tmux(1). Its answers stand between %begin and %end; what happens meanwhile is
// told in lines of its own.

// Not by zx: tmux's control mode is a conversation over its stdin.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** What tmux refused. */
export class TmuxError extends Error {}

interface Pending {
  resolve(lines: string[]): void;
  reject(error: Error): void;
}

export class TmuxControl {
  readonly #process: ChildProcess;
  readonly #pending: Pending[] = [];
  /** Lines of the answer that is being read; undefined outside of one. */
  #answer: string[] | undefined;
  /** When the server, or the connection to it, has gone. */
  readonly ended: Promise<void>;

  /**
   * `command` is tmux with what leads to its server; `notice` is called with the
   * words of what happens, the first being its name, such as "layout-change".
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
      // Nobody looks through it: it has no size, and needs no output.
      "-f",
      "ignore-size,no-output",
    ], { stdio: ["pipe", "pipe", "ignore"] });
    // attach-session itself is answered first.
    this.#pending.push({ resolve: () => {}, reject: () => {} });
    const output = this.#process.stdout;
    if (!output) throw new Error("tmux has no output");
    createInterface({ input: output }).on(
      "line",
      (line) => this.#read(line, notice),
    );
    this.#process.stdin?.on("error", () => {}); // told by its end
    this.ended = once(this.#process, "exit").then(() => {
      const error = new TmuxError("tmux has ended");
      for (const { reject } of this.#pending.splice(0)) reject(error);
    }, () => {});
  }

  /** Runs a command of tmux; throws a TmuxError where it is refused. */
  async ask(...words: string[]): Promise<string[]> {
    const line = words.map(quoted).join(" ");
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

/** A word of tmux's command language, whatever is in it. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`).replaceAll("\n", " ")}'`;
}
