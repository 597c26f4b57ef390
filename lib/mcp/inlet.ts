// The body of a request, read within bounds: of its size, of what all of a server's
// clients have on their way to it, and of time.

import { isTooMuch } from "../json-bounds.ts";

/** A request is no larger: files that are written by a tool are. */
const mostBodyBytes = 32 * 1024 * 1024;

/** Of the requests to one server that its processes have not taken yet. */
const mostWaitingBytes = 64 * 1024 * 1024;

/** And of small requests, which are let in beside a few large ones. */
const mostSmallBytes = 8 * 1024 * 1024;
const smallBytes = 64 * 1024;

const mostMs = 60_000;
const discardMs = 2000;

/** What is wrong with a body, as HTTP has it. */
export class Refused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Taken {
  json: unknown;
  /** When nobody holds it any more. */
  release(): void;
}

/** What is on its way to one server. */
export class Inlet {
  #waitingBytes = 0;

  /** Reads a body; throws Refused with the reason where it is none. */
  async read(request: Request): Promise<Taken> {
    let held = 0;
    let open = true;
    const release = () => {
      if (!open) return;
      open = false;
      this.#waitingBytes -= held;
    };
    const hold = (bytes: number) => {
      held += bytes;
      this.#waitingBytes += bytes;
    };
    try {
      const text = await this.#text(request, hold);
      return { json: parse(text), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #text(
    request: Request,
    hold: (bytes: number) => void,
  ): Promise<string> {
    const reader = request.body?.getReader();
    if (!reader) throw new Refused(400, "Parse error: there is no body");
    const late = setTimeout(() => {
      reader.cancel(new Error("It took too long")).catch(() => {});
    }, mostMs);
    const decoder = new TextDecoder();
    const pieces: string[] = [];
    let bytes = 0;
    try {
      while (true) {
        const { done, value } = await reader.read();
        if (done) break;
        bytes += value.length;
        hold(value.length);
        this.#check(bytes);
        pieces.push(decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      await discard(reader);
      throw error;
    } finally {
      clearTimeout(late);
    }
    pieces.push(decoder.decode());
    return pieces.join("");
  }

  #check(bytes: number): void {
    if (bytes > mostBodyBytes) {
      throw new Refused(413, `A request has ${mostBodyBytes} bytes at most`);
    }
    const most = bytes > smallBytes
      ? mostWaitingBytes
      : mostWaitingBytes + mostSmallBytes;
    if (this.#waitingBytes > most) {
      throw new Refused(503, "The MCP server has too much to read already");
    }
  }
}

/** Reads on for a while: a client that still writes does not see the answer. */
async function discard(
  reader: ReadableStreamDefaultReader<Uint8Array>,
): Promise<void> {
  const late = setTimeout(() => reader.cancel().catch(() => {}), discardMs);
  try {
    while (!(await reader.read()).done);
  } catch {
    // It has gone.
  } finally {
    clearTimeout(late);
  }
}

function parse(text: string): unknown {
  if (isTooMuch(text)) throw new Refused(400, "Parse error: it is too much");
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused(400, "Parse error: it is no JSON");
  }
}
