// The body of a worker's request: sent as it comes, and kept while it may have to be sent
// again.

import { Buffer } from "node:buffer";
import type { ClientRequest, IncomingMessage } from "node:http";
import type { Valve } from "../../std/tls-gate.ts";

/** Bytes that may be kept of all requests. A request for which there is no room is not kept. */
export class Room {
  #bytes: number;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  take(bytes: number): boolean {
    if (bytes > this.#bytes) return false;
    this.#bytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#bytes += bytes;
  }
}

export class RequestBody {
  readonly #request: IncomingMessage;
  /** Of the worker's connection. */
  readonly #gate: Valve;
  readonly #room: Room;
  /** Undefined if it is not kept. */
  #kept: Uint8Array[] | undefined;
  #keptBytes = 0;
  /** Undefined before the body is read. */
  #outgoing: ClientRequest | undefined;
  isWhole = false;
  bytes = 0;

  /** Nothing more is read from the worker until it is sent, or `resume` is called. */
  constructor(request: IncomingMessage, gate: Valve, room: Room) {
    this.#request = request;
    this.#gate = gate;
    this.#room = room;
    gate.hold();
  }

  resume(): void {
    this.#gate.release();
    this.#request.resume();
  }

  /** Keeps it, if it has at most that size. Call it before the body is sent. */
  keep(maxBytes: number): void {
    const { headers } = this.#request;
    const isSmall = headers["transfer-encoding"] === undefined &&
      Number(headers["content-length"] ?? 0) <= maxBytes;
    if (isSmall) this.#kept = [];
  }

  get isKept(): boolean {
    return this.#kept !== undefined;
  }

  forget(): void {
    this.#room.give(this.#keptBytes);
    [this.#kept, this.#keptBytes] = [undefined, 0];
  }

  /** Sends what was kept, and the rest as it comes. */
  sendTo(outgoing: ClientRequest): void {
    const isFirst = this.#outgoing === undefined;
    this.#outgoing = outgoing;
    if (this.isWhole) return void outgoing.end(Buffer.concat(this.#kept ?? []));
    for (const chunk of this.#kept ?? []) outgoing.write(chunk);
    outgoing.on("drain", () => this.resume());
    outgoing.on("close", () => this.resume());
    if (isFirst) this.#read();
  }

  /** One listener for all requests to the API, so that each byte is sent once. */
  #read(): void {
    this.#request.on("data", (chunk: Uint8Array) => {
      this.bytes += chunk.length;
      this.#keep(chunk);
      const outgoing = this.#outgoing;
      if (!outgoing || outgoing.destroyed) return;
      if (outgoing.write(chunk)) return;
      this.#request.pause();
      this.#gate.hold();
    });
    this.#request.on("end", () => {
      this.isWhole = true;
      this.#outgoing?.end();
    });
    this.#gate.release();
  }

  #keep(chunk: Uint8Array): void {
    if (!this.#kept) return;
    if (!this.#room.take(chunk.length)) return this.forget();
    this.#kept.push(chunk);
    this.#keptBytes += chunk.length;
  }
}
