// How much may come out of a copy, which may be hostile: a few objects can be billions of
// files, and an object of a kilobyte a terabyte. All limits follow from one size. See ADR 49.

import { Failure } from "../../std/errors.ts";
import { binarySize, shortSize } from "../../std/units.ts";

export const defaultMaxBytes = 2 * 1024 ** 3;

export class Limits {
  /** Of the objects that come, and of the files that they are beyond those of before. */
  readonly bytes: number;

  constructor(bytes = defaultMaxBytes) {
    this.bytes = bytes;
  }

  /** Each takes memory and a part of an index, however small it is. */
  get objects(): number {
    return Math.floor(this.bytes / 1024);
  }

  /** 10,000 by default. */
  get branches(): number {
    return Math.ceil(this.bytes / (200 * 1024));
  }

  /** Of the names of files that are not committed: half a million by default. */
  get listBytes(): number {
    return Math.floor(this.bytes / 32);
  }

  /** A step that reads a copy: 9 minutes by default. */
  get timeoutMs(): number {
    const minutes = 5 + 2 * this.bytes / 1024 ** 3;
    return Math.min(minutes * 60_000, maxTimerMs);
  }

  /** What is refused, with the option that allows it. */
  exceeded(what: string): Failure {
    return new Failure("unsafe", what, {
      hint:
        `${binarySize(this.bytes)} is the most. If you trust the session: ` +
        `--max-size ${shortSize(2 * this.bytes).toLowerCase()}`,
    });
  }
}

/** A longer timer fires at once. */
const maxTimerMs = 2 ** 31 - 1;

/** A file takes at least a block of the disk. */
export const minFileBytes = 4096;
