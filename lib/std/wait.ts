// The only loop that waits for a condition.

import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "./errors.ts";

export interface WaitOptions {
  /** Completes the message "Timed out after … s waiting for …". */
  for: string;
  timeoutMs: number;
  /** @default 25 */
  everyMs?: number;
  hint?: string;
}

/**
 * Calls `probe` until it returns something other than undefined, null or false, and
 * returns that. Throws a `failed` Failure after the timeout.
 */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  options: WaitOptions,
): Promise<Exclude<T, undefined | null | false>> {
  const deadline = Date.now() + options.timeoutMs;
  while (true) {
    const found = await probe();
    if (found !== undefined && found !== null && found !== false) {
      return found as Exclude<T, undefined | null | false>;
    }
    if (Date.now() >= deadline) {
      throw new Failure(
        "failed",
        `Timed out after ${
          options.timeoutMs / 1000
        } s waiting for ${options.for}`,
        { hint: options.hint },
      );
    }
    await sleep(options.everyMs ?? 25);
  }
}
