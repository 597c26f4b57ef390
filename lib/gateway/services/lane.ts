// Slots for concurrent work, with a queue.

import type { EventEmitter } from "node:events";

export interface Slots {
  served: number;
  waiting: number;
}

/** A limited number of slots; others wait in order of arrival. */
export class Lane {
  #free: number;
  readonly #maxWaiting: number;
  readonly #waiting: (() => void)[] = [];

  constructor({ served, waiting }: Slots) {
    this.#free = served;
    this.#maxWaiting = waiting;
  }

  /**
   * Returns a function that frees the slot. Rejects if too many wait, the wait
   * takes too long, or the client has left.
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
      return Promise.reject(new Error("The queue is full"));
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
        reject(new Error("No free slot in time"));
      };
      const timer = setTimeout(giveUp, waitMs);
      client.on("close", giveUp);
      this.#waiting.push(enter);
    });
  }
}
