// Reads request bodies within limits: on size, on the bytes waiting per worker and
// in total, and on time.

import { isTooComplex } from "../std/json.ts";

/** Large enough for files that a tool writes. */
const maxBodyBytes = 32 * 1024 * 1024;

/** Bytes of requests to one server that its processes have not read yet. */
const maxWaitingBytes = 64 * 1024 * 1024;

/** The same per worker. */
const maxOfWorkerBytes = 40 * 1024 * 1024;

/** Extra for a worker's small requests, which are accepted beside a few large ones. */
const maxSmallBytes = 8 * 1024 * 1024;
const smallBytes = 64 * 1024;

/** A worker below this is never rejected because of what others send. */
const guaranteedBytes = 1024 * 1024;

const maxMs = 60_000;
const discardMs = 2000;

/** A rejected body, with its HTTP status. */
export class Refused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Taken {
  json: unknown;
  /** To be called when the request is no longer in use. */
  release(): void;
}

/** A request that is being read or processed. */
interface Held {
  worker: string;
  bytes: number;
  /** Rejects it while it is being read. */
  refuse?: ((reason: Refused) => void) | undefined;
}

/** The requests on their way to one server. */
export class Inlet {
  readonly #held = new Set<Held>();

  /**
   * Reads the body of a worker's request; throws Refused with the reason if it
   * cannot.
   */
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
    if (!reader) throw new Refused(400, "Parse error: the body is missing");
    const late = setTimeout(() => {
      reader.cancel(new Error("It took too long")).catch(() => {});
    }, maxMs);
    const { promise: refusal, reject } = Promise.withResolvers<never>();
    refusal.catch(() => {}); // avoid an unhandled rejection
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
      // The received bytes are discarded here.
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
      throw new Refused(
        413,
        `A request can have at most ${maxBodyBytes} bytes`,
      );
    }
    const extra = bytes > smallBytes ? 0 : maxSmallBytes;
    const own = this.#bytesOf(worker);
    if (own > maxOfWorkerBytes + extra) throw tooMuch();
    if (own <= guaranteedBytes || this.#bytesOf() <= maxWaitingBytes + extra) {
      return;
    }
    // Reject a request of the worker that has most waiting, possibly this one.
    const largest = [...this.#held].filter(({ refuse }) => refuse)
      .map((one) => ({ one, of: this.#bytesOf(one.worker) }))
      .sort((a, b) => b.of - a.of || b.one.bytes - a.one.bytes)[0];
    if (!largest || largest.of <= own) throw tooMuch();
    largest.one.refuse?.(tooMuch());
  }

  /** Bytes of one worker, or of all. */
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

/** Reads on for a while: a client sees the answer only after it has written. */
async function discard(
  reader: ReadableStreamDefaultReader<Uint8Array>,
): Promise<void> {
  const late = setTimeout(() => reader.cancel().catch(() => {}), discardMs);
  try {
    while (!(await reader.read()).done);
  } catch {
    // The client has left.
  } finally {
    clearTimeout(late);
  }
}

function parse(text: string): unknown {
  if (isTooComplex(text)) {
    throw new Refused(400, "Parse error: too deep or too many values");
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused(400, "Parse error: not JSON");
  }
}
