// The response bodies that a client reads. Unread data is buffered. If there is
// much, the process is paused; a client that reads nothing is disconnected.

/** Per client, before its process is paused. */
const fullBytes = 16 * 1024 * 1024;

/** Per client of a shared process, which cannot be paused. */
const maxBytes = 64 * 1024 * 1024;

/** For all clients of a gateway, and for those of one worker. */
const maxOfAllBytes = 512 * 1024 * 1024;
const maxOfWorkerBytes = 256 * 1024 * 1024;

/** A client above its limit must read something within this time. */
const timeoutMs = 5000;

/** Bodies are passed on in slices: only what the socket accepts counts as read. */
const sliceBytes = 64 * 1024;

interface Body {
  unreadBytes: number;
  takenAt: number;
  /** Ends the body, whether or not anybody reads it. */
  end(error?: Error): void;
}

export interface OutletOptions {
  /** The worker that the client belongs to. */
  worker: string;
  /** Called when the client is to be disconnected. */
  overflowed: () => void;
  /** Called when the buffer becomes full, or has room again. */
  full: (isFull: boolean) => void;
}

/** Unread data of all clients of one gateway. */
export class Unread {
  readonly #outlets = new Set<Outlet>();

  add(outlet: Outlet): void {
    this.#outlets.add(outlet);
  }

  /**
   * If there is too much, disconnects the client with most unread data, of the
   * worker with most.
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

  /** Wraps `source` in a buffer; `left` is called when it ends. */
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

  /** While there is too much, checks periodically whether the client reads at all. */
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
