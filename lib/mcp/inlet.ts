// The body of a request, read within bounds: of its size, of what all of a server's
// clients have on their way to it, and of time.

import { isTooDeep } from "../json-depth.ts";

/** A request is no larger: files that are written by a tool are. */
const mostBodyBytes = 32 * 1024 * 1024;

/** Of the requests to one server that its processes have not taken yet. */
const mostWaitingBytes = 64 * 1024 * 1024;

/** A request that is smaller is let in beside any others. */
const smallBytes = 64 * 1024;

const mostMs = 60_000;

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
    } finally {
      clearTimeout(late);
      reader.cancel().catch(() => {});
    }
    pieces.push(decoder.decode());
    return pieces.join("");
  }

  #check(bytes: number): void {
    if (bytes > mostBodyBytes) {
      throw new Refused(413, `A request has ${mostBodyBytes} bytes at most`);
    }
    if (bytes > smallBytes && this.#waitingBytes > mostWaitingBytes) {
      throw new Refused(503, "The MCP server has too much to read already");
    }
  }
}

function parse(text: string): unknown {
  if (isTooDeep(text)) throw new Refused(400, "Parse error: it is too deep");
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused(400, "Parse error: it is no JSON");
  }
}
