// A transport to a server's process that replaces the SDK's StdioClientTransport.
// That one copies its whole buffer for each chunk: 10 MB in small chunks block it,
// and every other client of the gateway, for seconds.

import { Buffer } from "node:buffer";
// Not zx: MCP over stdin and stdout is a conversation.
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

/** Maximum size of a message; a process that exceeds it is killed. */
const maxLineBytes = 64 * 1024 * 1024;

/** Time between the steps of ending a process: close stdin, SIGTERM, SIGKILL. */
const timeoutMs = 2000;

/** Time to read the remaining output of a process that has ended. */
const drainMs = 500;

export interface StdioOptions {
  /** Home directory of the instance. */
  home: string;
  command: string;
  args: string[];
  env: Record<string, string>;
  /** Receives its stderr output. */
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
  /** Chunks of an incomplete line. */
  #pieces: Buffer[] = [];
  #bytes = 0;

  constructor(options: StdioOptions) {
    this.#options = options;
  }

  /** How the process ended, "" while it runs. */
  get end(): string {
    return this.#end;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Kills the process; `reason` is reported as how it ended. */
  kill(reason: string): void {
    this.#end = reason;
    this.#kill("SIGKILL");
  }

  /** Throws if the program cannot be started. */
  async start(): Promise<void> {
    const { home, command, args, env, stderr } = this.#options;
    // In its own process group, so that its children are ended with it.
    const child = spawn(...marked(home, command, args), {
      env: { ...getDefaultEnvironment(), ...env },
      cwd: homedir(),
      detached: true,
    });
    child.on("error", () => {}); // start() throws this error
    // The process may have closed its stdin; "close" reports its end.
    child.stdin.on("error", () => {});
    child.stdout.on("data", (chunk: Buffer) => this.#read(chunk));
    child.stderr.on("data", stderr);
    child.on("exit", (code, signal) => {
      this.#end ||= signal ?? `exit code ${code}`;
      this.#kill("SIGKILL");
      // A process that left the group may hold the pipes open forever.
      setTimeout(() => {
        for (const pipe of child.stdio) pipe?.destroy();
      }, drainMs).unref();
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

  /** Waits while the process's input buffer is full. */
  async send(message: JSONRPCMessage): Promise<void> {
    const { stdin } = this.#process ?? {};
    if (!stdin) throw new Error("The MCP server has ended");
    if (stdin.write(serializeMessage(message))) return;
    this.#drained ??= once(stdin, "drain").catch(() => {}).finally(() => {
      this.#drained = undefined;
    });
    await Promise.race([this.#drained, this.#ended]);
  }

  /** Stops reading, so that the process blocks when the pipe is full. */
  pause(isPaused: boolean): void {
    const { stdout } = this.#process ?? {};
    if (isPaused) stdout?.pause();
    else stdout?.resume();
  }

  async close(): Promise<void> {
    this.pause(false); // or unread output keeps it open
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

  /** Signals the process and its children. */
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
      this.#parse(line);
    }
    if (from === chunk.length) return;
    this.#pieces.push(chunk.subarray(from));
    this.#bytes += chunk.length - from;
    if (this.#bytes <= maxLineBytes) return;
    this.#pieces = [];
    this.#bytes = 0;
    this.onerror?.(
      new Error(`it wrote a line of more than ${maxLineBytes} bytes`),
    );
    this.#kill("SIGKILL");
  }

  #parse(line: string): void {
    let message: JSONRPCMessage;
    try {
      if (isTooComplex(line)) throw new Error("too deep or too many values");
      message = deserializeMessage(line);
    } catch {
      // Some programs print to stdout. That is not a message, and no reason to
      // stop.
      return this.onerror?.(new Error("it wrote a line that is not a message"));
    }
    this.onmessage?.(message);
  }
}
