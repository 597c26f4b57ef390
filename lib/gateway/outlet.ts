// The bodies that a client reads. What it has not read yet is kept for it; while that
// is much, whoever writes is told to wait, and a client that takes nothing is cut off.

/** Of one client, before its process is made to wait. */
const fullBytes = 16 * 1024 * 1024;

/** Of one client whose process cannot be made to wait, as others share it. */
const maxBytes = 64 * 1024 * 1024;

/** Of all clients of a gateway, and of those of one worker. */
const maxOfAllBytes = 512 * 1024 * 1024;
const maxOfWorkerBytes = 256 * 1024 * 1024;

/** With so much unread a client has to take something within this time. */
const timeoutMs = 5000;

/** A body is handed on by as much: only what the socket takes counts as read. */
const sliceBytes = 64 * 1024;

interface Body {
  unreadBytes: number;
  takenAt: number;
  /** Ends it, whether anybody reads on or not. */
  end(error?: Error): void;
}

export interface OutletOptions {
  /** Whose client it is. */
  worker: string;
  /** Hears that the client is to be cut off. */
  overflowed: () => void;
  /** Hears that it has much to read, or has read it. */
  full: (isFull: boolean) => void;
}

/** What the clients of one gateway have not read, together. */
export class Unread {
  readonly #outlets = new Set<Outlet>();

  add(outlet: Outlet): void {
    this.#outlets.add(outlet);
  }

  /**
   * Where it is too much, cuts off a client of the worker that has most: the one that has
   * most of that.
   */
  check(): void {
    const outlets = [...this.#outlets].filter(({ unreadBytes }) => unreadBytes);
    for (const outlet of this.#outlets) {
      if (!outlet.isOpen) this.#outlets.delete(outlet);
    }
    const sumOf = (some: Outlet[]) =>
      some.reduce((sum, { unreadBytes }) => sum + unreadBytes, 0);
    const byWorker = Map.groupBy(outlets, ({ worker }) => worker);
    const [most = []] = [...byWorker.values()]
      .sort((a, b) => sumOf(b) - sumOf(a));
    const isTooMuch = sumOf(most) > maxOfWorkerBytes ||
      sumOf(outlets) > maxOfAllBytes;
    if (!isTooMuch) return;
    most.sort((a, b) => b.unreadBytes - a.unreadBytes)[0]?.overflow();
  }
}

export class Outlet {
  readonly #bodies = new Set<Body>();
  readonly #options: OutletOptions;
  readonly #unread: Unread;
  #unreadBytes = 0;
  #isFull = false;
  #late: ReturnType<typeof setTimeout> | undefined;

  constructor(unread: Unread, options: OutletOptions) {
    this.#unread = unread;
    this.#options = options;
  }

  get worker(): string {
    return this.#options.worker;
  }

  get isOpen(): boolean {
    return this.#bodies.size > 0;
  }

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  overflow(): void {
    this.#options.overflowed();
  }

  end(error: Error): void {
    clearTimeout(this.#late);
    for (const body of this.#bodies) body.end(error);
  }

  /** What is to be read in the place of `source`; `left` hears of its end. */
  through(
    source: ReadableStream<Uint8Array>,
    left: () => void,
  ): ReadableStream<Uint8Array> {
    const reader = source.getReader();
    const kept: Uint8Array[] = [];
    let over = false;
    let wake = () => {};
    const leave = () => {
      if (!this.#bodies.delete(body)) return;
      this.#take(body, body.unreadBytes);
      kept.length = 0;
      left();
    };
    const body: Body = { unreadBytes: 0, takenAt: 0, end: () => {} };
    const fill = async () => {
      while (this.#bodies.has(body)) {
        const { done, value } = await reader.read();
        if (done) break;
        kept.push(value);
        wake();
        this.#keep(body, value.length);
      }
      over = true;
      wake();
    };
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        body.end = (error) => {
          leave();
          controller.error(error);
          reader.cancel().catch(() => {});
        };
        this.#bodies.add(body);
        this.#unread.add(this);
        fill().catch(body.end);
      },
      pull: async (controller) => {
        while (kept.length === 0 && !over) {
          await new Promise<void>((resolve) => wake = resolve);
        }
        const [first] = kept;
        if (!first) {
          leave();
          return controller.close();
        }
        const slice = first.subarray(0, sliceBytes);
        if (slice.length === first.length) kept.shift();
        else kept[0] = first.subarray(sliceBytes);
        controller.enqueue(slice);
        this.#take(body, slice.length);
      },
      cancel: async (reason) => {
        leave();
        over = true;
        wake();
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  #keep(body: Body, bytes: number): void {
    if (body.unreadBytes === 0) body.takenAt = Date.now();
    body.unreadBytes += bytes;
    this.#unreadBytes += bytes;
    if (this.#unreadBytes > fullBytes && !this.#isFull) {
      this.#isFull = true;
      this.#options.full(true);
    }
    if (this.#unreadBytes > maxBytes) this.#look();
    this.#unread.check();
  }

  #take(body: Body, bytes: number): void {
    body.unreadBytes -= bytes;
    body.takenAt = Date.now();
    this.#unreadBytes -= bytes;
    if (!this.#isFull || this.#unreadBytes > fullBytes / 2) return;
    this.#isFull = false;
    this.#options.full(false);
  }

  /** While there is too much, whether some of it is taken from time to time. */
  #look(): void {
    this.#late ??= setTimeout(() => {
      this.#late = undefined;
      if (this.#unreadBytes <= maxBytes) return;
      const isTaken = [...this.#bodies].some(({ unreadBytes, takenAt }) =>
        unreadBytes > 0 && Date.now() - takenAt < timeoutMs
      );
      if (isTaken) this.#look();
      else this.overflow();
    }, timeoutMs);
  }
}
