// What the program in a helper container and the command that started it exchange while it
// works: messages on stderr, a line each, and an answer on stdin.

import * as v from "valibot";
import type { Log } from "../../std/log.ts";

export const messageSchema = v.union([
  v.object({ log: v.string() }),
  /** Replaces what was shown before. */
  v.object({ progress: v.string() }),
  /** The worker is to stand still; answered by `frozen`. */
  v.object({ freeze: v.literal(true) }),
  v.object({ thaw: v.literal(true) }),
]);

type Message = v.InferOutput<typeof messageSchema>;

export const frozenAnswer = "frozen";

/** The command that started the program. */
export interface Host {
  log: Log;
  /** Runs `act` while nothing changes what is copied. */
  whileFrozen<T>(act: () => Promise<T>): Promise<T>;
}

export function hostOf(
  send: (message: Message) => void,
  nextLine: () => Promise<string>,
): Host {
  return {
    log: Object.assign((line: string) => send({ log: line }), {
      progress: (text: string) => send({ progress: text }),
    }),
    whileFrozen: async (act) => {
      send({ freeze: true });
      const line = await nextLine();
      if (line !== frozenAnswer) throw new Error(`Unexpected answer: ${line}`);
      const result = await act();
      send({ thaw: true });
      return result;
    },
  };
}

/** One whose files nothing changes, or may change. */
export const hostWithoutFreeze = (log: Log): Host => ({
  log,
  whileFrozen: (act) => act(),
});
