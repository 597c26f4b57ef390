// Places for what is done at the same time, and a queue for them.

import type { EventEmitter } from "node:events";

export interface Places {
  served: number;
  waiting: number;
}

/** So many at a time; the others wait, the first that came first. */
export class Lane {
  #free: number;
  readonly #maxWaiting: number;
  readonly #waiting: (() => void)[] = [];

  constructor({ served, waiting }: Places) {
    this.#free = served;
    this.#maxWaiting = waiting;
  }

  /**
   * Gives what to call at the end; rejects where too many wait already, it takes too
   * long, or the client has gone.
   */
  enter(
    waitMs: number,
    client: Pick<EventEmitter, "on" | "off">,
  ): Promise<() => void> {
    const leave = () => {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    };
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve(leave);
    }
    if (this.#waiting.length >= this.#maxWaiting) {
      return Promise.reject(new Error("Too many wait"));
    }
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        client.off("close", giveUp);
      };
      const enter = () => {
        settle();
        resolve(leave);
      };
      const giveUp = () => {
        settle();
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(new Error("No turn in time"));
      };
      const timer = setTimeout(giveUp, waitMs);
      client.on("close", giveUp);
      this.#waiting.push(enter);
    });
  }
}
