// The body of a request, read within bounds: of its size, of what its worker and all
// others have on their way to a server, and of time.

import { isTooComplex } from "../std/json.ts";

/** A request is no larger: files that are written by a tool are. */
const maxBodyBytes = 32 * 1024 * 1024;

/** Of the requests to one server that its processes have not taken yet. */
const maxWaitingBytes = 64 * 1024 * 1024;

/** Of those of one worker. */
const maxOfWorkerBytes = 40 * 1024 * 1024;

/** And of its small requests, which are let in beside a few large ones. */
const maxSmallBytes = 8 * 1024 * 1024;
const smallBytes = 64 * 1024;

/** A worker that has no more than this is never refused for what others have. */
const ownBytes = 1024 * 1024;

const maxMs = 60_000;
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

/** A request that somebody holds. */
interface Held {
  worker: string;
  bytes: number;
  /** Refuses it while it is being read. */
  refuse?: ((reason: Refused) => void) | undefined;
}

/** What is on its way to one server. */
export class Inlet {
  readonly #held = new Set<Held>();

  /** Reads a worker's body; throws Refused with the reason where it is none. */
  async read(request: Request, worker: string): Promise<Taken> {
    const held: Held = { worker, bytes: 0 };
    const release = () => void this.#held.delete(held);
    this.#held.add(held);
    try {
      const text = await this.#text(request, held);
      return { json: parse(text), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #text(request: Request, held: Held): Promise<string> {
    const reader = request.body?.getReader();
    if (!reader) throw new Refused(400, "Parse error: there is no body");
    const late = setTimeout(() => {
      reader.cancel(new Error("It took too long")).catch(() => {});
    }, maxMs);
    const { promise: refusal, reject } = Promise.withResolvers<never>();
    refusal.catch(() => {}); // where it comes when nobody waits
    held.refuse = reject;
    const decoder = new TextDecoder();
    const pieces: string[] = [];
    try {
      while (true) {
        const { done, value } = await Promise.race([reader.read(), refusal]);
        if (done) break;
        held.bytes += value.length;
        this.#check(held);
        pieces.push(decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      // What has come of it is dropped here.
      held.bytes = 0;
      await discard(reader);
      throw error;
    } finally {
      held.refuse = undefined;
      clearTimeout(late);
    }
    pieces.push(decoder.decode());
    return pieces.join("");
  }

  #check({ worker, bytes }: Held): void {
    if (bytes > maxBodyBytes) {
      throw new Refused(413, `A request has ${maxBodyBytes} bytes at most`);
    }
    const extra = bytes > smallBytes ? 0 : maxSmallBytes;
    const own = this.#bytesOf(worker);
    if (own > maxOfWorkerBytes + extra) throw tooMuch();
    if (own <= ownBytes || this.#bytesOf() <= maxWaitingBytes + extra) return;
    // The worker that has most has to wait, which may be this one.
    const largest = [...this.#held].filter(({ refuse }) => refuse)
      .map((one) => ({ one, of: this.#bytesOf(one.worker) }))
      .sort((a, b) => b.of - a.of || b.one.bytes - a.one.bytes)[0];
    if (!largest || largest.of <= own) throw tooMuch();
    largest.one.refuse?.(tooMuch());
  }

  /** Held by one worker, or by all. */
  #bytesOf(worker?: string): number {
    let sum = 0;
    for (const held of this.#held) {
      if (worker === undefined || held.worker === worker) sum += held.bytes;
    }
    return sum;
  }
}

function tooMuch(): Refused {
  return new Refused(503, "The MCP server has too much to read already");
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
  if (isTooComplex(text)) throw new Refused(400, "Parse error: it is too much");
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused(400, "Parse error: it is no JSON");
  }
}
