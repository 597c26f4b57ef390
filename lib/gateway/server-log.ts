// The stderr output of an MCP server's processes, in a log file of limited size.

import { Buffer } from "node:buffer";
import { closeSync, fstatSync, renameSync, statSync, writeSync } from "node:fs";
import { openForOutput, type Owner } from "../std/owned.ts";

/** Maximum size before the log is rotated; one rotated log is kept. */
const maxBytes = 4 * 1024 * 1024;

export class ServerLog {
  readonly #path: string;
  readonly #owner: Owner;
  #file: number | undefined;
  #bytes = 0;

  constructor(path: string, owner: Owner) {
    this.#path = path;
    this.#owner = owner;
  }

  /** Never throws: output that cannot be written is dropped. */
  write(text: Uint8Array | string): void {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    try {
      if (this.#bytes + bytes.length > maxBytes) this.#rotate();
      this.#file ??= this.#open();
      writeSync(this.#file, bytes);
      this.#bytes += bytes.length;
    } catch {
      this.close();
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    this.#bytes = 0;
  }

  #open(): number {
    const file = openForOutput(this.#path, "a", this.#owner);
    this.#bytes = fstatSync(file).size;
    return file;
  }

  #rotate(): void {
    this.close();
    renameSync(this.#path, `${this.#path}.1`);
  }
}

/** Rotates a log before a process opens it. */
export function rotateLog(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat && stat.size > maxBytes) renameSync(path, `${path}.1`);
}
