// Shows the steps of longer work: each with its time and result when it has ended, and on a
// terminal a line with those that run.

import process from "node:process";
import type { Log, RunStep } from "../std/log.ts";
import type { Io } from "./io.ts";

const frames = [..."⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"];
const frameMs = 100;

/** Without a terminal, a step that takes longer is also reported when it begins. */
const longMs = 5000;

/** A step without a result that takes less time is not worth a line. */
const shortMs = 1000;

interface Running {
  startedAt: number;
  /** What the step does now. */
  now: string;
}

export class Steps {
  readonly #io: Io;
  readonly #running = new Map<string, Running>();
  #frame = 0;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(io: Io) {
    this.#io = io;
  }

  readonly run: RunStep = async (name, run, detail) => {
    const startedAt = performance.now();
    this.#running.set(name, { startedAt, now: "" });
    this.#animate();
    const begun = this.#io.showsProgress
      ? undefined
      : setTimeout(() => this.#io.log(`${name} ...`), longMs);
    const lines: string[] = [];
    try {
      const result = await run(this.#logOf(name, lines));
      this.#end(name);
      const text = detail?.(result) ?? "";
      if (text !== "" || performance.now() - startedAt >= shortMs) {
        this.ended(name, startedAt, text);
      }
      return result;
    } catch (error) {
      this.#end(name);
      for (const line of lines) this.#io.log(line);
      this.ended(name, startedAt, "failed", "✗");
      throw error;
    } finally {
      clearTimeout(begun);
    }
  };

  /** On a terminal, lines are shown while the step runs, and again if it fails. */
  #logOf(name: string, lines: string[]): Log {
    if (!this.#io.showsProgress) return this.#io.log;
    return (line) => {
      if (line.startsWith("warning:")) return this.#io.log(line);
      lines.push(line);
      const step = this.#running.get(name);
      if (step) step.now = line;
      this.#draw();
    };
  }

  /** Prints the line of a step that has ended. */
  ended(name: string, startedAt: number, text = "", mark = "✓"): void {
    const line = stepLine(name, performance.now() - startedAt, text);
    this.#io.log(this.#io.showsProgress ? `${mark} ${line}` : line);
  }

  #animate(): void {
    if (!this.#io.showsProgress) return;
    this.#draw();
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => {
      this.#frame = (this.#frame + 1) % frames.length;
      this.#draw();
    }, frameMs);
    // An interrupt ends the process without an error.
    process.on("exit", this.#clear);
  }

  readonly #clear = () => void this.#io.holdProgress();

  #end(name: string): void {
    this.#running.delete(name);
    if (this.#running.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      process.off("exit", this.#clear);
    }
    this.#draw();
  }

  /** The step that began last has the most to tell. */
  #draw(): void {
    const running = [...this.#running].reverse();
    const text = running.map(([name, { startedAt, now }]) => {
      const seconds = Math.floor((performance.now() - startedAt) / 1000);
      return `${name} ${seconds} s${now === "" ? "" : ` (${now})`}`;
    }).join(", ");
    this.#io.progress(text === "" ? "" : `${frames[this.#frame]} ${text}`);
  }
}

/** The line of a finished step: its name, time and result in columns. */
export function stepLine(name: string, tookMs: number, text: string): string {
  const seconds = `${(tookMs / 1000).toFixed(1)} s`;
  return `${name.padEnd(21)} ${seconds.padStart(8)}  ${text}`.trimEnd();
}
