// The SDK's transport to a server's process, in place of StdioClientTransport: that one
// joins all it has read with each piece that comes, and 10 MB in small pieces keep it,
// and every other client of the gateway, waiting for seconds.

import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { homedir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import {
  getDefaultEnvironment,
} from "@modelcontextprotocol/sdk/client/stdio.js";
import {
  deserializeMessage,
  serializeMessage,
} from "@modelcontextprotocol/sdk/shared/stdio.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { isTooComplex } from "../std/json.ts";
import { killGroup, marked } from "./processes.ts";

/** Of one message; a process that says more without an end is ended. */
const maxLineBytes = 64 * 1024 * 1024;

/** Before each of the steps, from asking a process to end to ending it. */
const timeoutMs = 2000;

/** For what a process that has ended wrote before. */
const lastWordMs = 500;

export interface StdioOptions {
  /** Of the instance that the process belongs to. */
  home: string;
  command: string;
  args: string[];
  env: Record<string, string>;
  /** Hears what it writes to its stderr. */
  stderr: (chunk: Uint8Array) => void;
}

export class StdioTransport implements Transport {
  onmessage?: (message: JSONRPCMessage) => void;
  onclose?: () => void;
  onerror?: (error: Error) => void;
  readonly #options: StdioOptions;
  #process: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  #drained: Promise<unknown> | undefined;
  #end = "";
  /** The pieces of a line whose end has not come. */
  #pieces: Buffer[] = [];
  #bytes = 0;

  constructor(options: StdioOptions) {
    this.#options = options;
  }

  /** How it ended, where it has. */
  get end(): string {
    return this.#end;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Ends it at once; the reason stands for how it ended. */
  kill(reason: string): void {
    this.#end = reason;
    this.#kill("SIGKILL");
  }

  /** Throws where there is no such program. */
  async start(): Promise<void> {
    const { home, command, args, env, stderr } = this.#options;
    // A group of its own: what it starts is ended with it.
    const child = spawn(...marked(home, command, args), {
      env: { ...getDefaultEnvironment(), ...env },
      cwd: homedir(),
      detached: true,
    });
    child.on("error", () => {}); // that of the start is thrown by it
    // It has closed its end; its own end is told of by "close".
    child.stdin.on("error", () => {});
    child.stdout.on("data", (chunk: Buffer) => this.#read(chunk));
    child.stderr.on("data", stderr);
    child.on("exit", (code, signal) => {
      this.#end ||= signal ?? `exit code ${code}`;
      this.#kill("SIGKILL");
      // What left its group may hold its ends of the pipes for ever.
      setTimeout(() => {
        for (const pipe of child.stdio) pipe?.destroy();
      }, lastWordMs).unref();
    });
    try {
      await once(child, "spawn");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw new Error(`The MCP server cannot be started: ${code}`);
    }
    this.#process = child;
    this.#ended = once(child, "close").then(() => {
      this.#process = undefined;
      this.onclose?.();
    });
  }

  /** Waits where the process reads slower than it is written to. */
  async send(message: JSONRPCMessage): Promise<void> {
    const { stdin } = this.#process ?? {};
    if (!stdin) throw new Error("it has ended");
    if (stdin.write(serializeMessage(message))) return;
    this.#drained ??= once(stdin, "drain").catch(() => {}).finally(() => {
      this.#drained = undefined;
    });
    await Promise.race([this.#drained, this.#ended]);
  }

  /** Stops listening for a while, so that it has to wait at some time. */
  pause(isPaused: boolean): void {
    const { stdout } = this.#process ?? {};
    if (isPaused) stdout?.pause();
    else stdout?.resume();
  }

  async close(): Promise<void> {
    this.pause(false); // or its last words keep it open
    this.#process?.stdin?.end();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const late = new AbortController();
      await Promise.race([
        this.#ended,
        sleep(timeoutMs, undefined, { signal: late.signal }).catch(() => {}),
      ]);
      late.abort();
      if (!this.#process) return;
      this.#kill(signal);
    }
    await this.#ended;
  }

  /** It and all that it has started. */
  #kill(signal: NodeJS.Signals): void {
    const { pid } = this.#process ?? {};
    if (pid !== undefined) killGroup(pid, signal);
  }

  #read(chunk: Buffer): void {
    let from = 0;
    let end = chunk.indexOf("\n");
    for (; end >= 0; from = end + 1, end = chunk.indexOf("\n", from)) {
      this.#pieces.push(chunk.subarray(from, end));
      const line = Buffer.concat(this.#pieces).toString();
      this.#pieces = [];
      this.#bytes = 0;
      this.#hear(line);
    }
    if (from === chunk.length) return;
    this.#pieces.push(chunk.subarray(from));
    this.#bytes += chunk.length - from;
    if (this.#bytes <= maxLineBytes) return;
    this.#pieces = [];
    this.#bytes = 0;
    this.onerror?.(
      new Error(`it said more than ${maxLineBytes} bytes at once`),
    );
    this.#kill("SIGKILL");
  }

  #hear(line: string): void {
    let message: JSONRPCMessage;
    try {
      if (isTooComplex(line)) throw new Error("It is too much");
      message = deserializeMessage(line);
    } catch {
      // As some do who print to their stdout: no message, and no reason to end.
      return this.onerror?.(new Error("it wrote a line that is no message"));
    }
    this.onmessage?.(message);
  }
}
