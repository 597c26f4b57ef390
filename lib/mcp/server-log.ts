// What the processes of an MCP server write to their stderr, in a file that is kept
// within bounds.

import { Buffer } from "node:buffer";
import { closeSync, fstatSync, renameSync, writeSync } from "node:fs";
import { openForOutput, type Owner } from "../owned.ts";

/** Then it becomes the former one, which goes. */
const mostBytes = 4 * 1024 * 1024;

export class ServerLog {
  readonly #path: string;
  readonly #owner: Owner;
  #file: number;
  #bytes: number;

  constructor(path: string, owner: Owner) {
    this.#path = path;
    this.#owner = owner;
    this.#file = openForOutput(path, "a", owner);
    this.#bytes = fstatSync(this.#file).size;
  }

  write(text: Uint8Array | string): void {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    if (this.#bytes + bytes.length > mostBytes) this.#turn();
    this.#bytes += bytes.length;
    writeSync(this.#file, bytes);
  }

  close(): void {
    closeSync(this.#file);
  }

  #turn(): void {
    closeSync(this.#file);
    renameSync(this.#path, `${this.#path}.1`);
    this.#file = openForOutput(this.#path, "a", this.#owner);
    this.#bytes = 0;
  }
}
