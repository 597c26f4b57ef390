// Work that goes on when a part of it fails, such as while the disk is full.

import type { Readable } from "node:stream";
import { messageOf } from "../std/errors.ts";
import { linesOf } from "../std/lines.ts";
import type { Log } from "../std/log.ts";

/** Does one thing, and returns whether it could. The same failure is logged only once. */
export type Attempt = (act: () => void | Promise<void>) => Promise<boolean>;

export function attempts(what: string, log: Log): Attempt {
  let told = "";
  return async (act) => {
    try {
      await act();
      return true;
    } catch (error) {
      const message = messageOf(error);
      // Messages may contain the random names of temporary files.
      const kind = (error as NodeJS.ErrnoException).code ?? message;
      if (kind !== told) log(`warning: ${what}: ${message}`);
      told = kind;
      return false;
    }
  };
}

/** Keeps each line of a child's output; an error that is not caught here would end it. */
export async function keepLines(
  output: Readable,
  maxBytes: number,
  attempt: Attempt,
  keep: (line: string) => void,
): Promise<void> {
  for await (const line of linesOf(output, maxBytes)) {
    await attempt(() => keep(line));
  }
}
