// The bodies that a client reads: what it leaves unread is kept for it, up to a limit
// that all its bodies have together.

/** What a client that does not read may make us keep. */
const mostUnreadBytes = 64 * 1024 * 1024;

/** A body is handed on by as much: only what the socket takes counts as read. */
const sliceBytes = 64 * 1024;

interface Body {
  /** Ends it, whether anybody reads on or not. */
  end(error?: Error): void;
}

export class Outlet {
  readonly #bodies = new Set<Body>();
  readonly #overflowed: () => void;
  #unreadBytes = 0;

  /** `overflowed` hears that more is unread than is kept. */
  constructor(overflowed: () => void) {
    this.#overflowed = overflowed;
  }

  get isOpen(): boolean {
    return this.#bodies.size > 0;
  }

  end(error: Error): void {
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
    const drop = () => {
      for (const { length } of kept.splice(0)) this.#unreadBytes -= length;
    };
    const leave = () => {
      if (!this.#bodies.delete(body)) return;
      drop();
      left();
    };
    const body: Body = { end: () => {} };
    const fill = async () => {
      while (this.#bodies.has(body)) {
        const { done, value } = await reader.read();
        if (done) break;
        kept.push(value);
        this.#unreadBytes += value.length;
        wake();
        if (this.#unreadBytes > mostUnreadBytes) this.#overflowed();
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
        this.#unreadBytes -= slice.length;
        controller.enqueue(slice);
      },
      cancel: async (reason) => {
        leave();
        over = true;
        wake();
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }
}
