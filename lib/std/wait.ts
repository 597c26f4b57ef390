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
  /** Asked after each `timeoutMs`: whether to wait as long again. */
  isProgressing?: () => Promise<boolean>;
}

/**
 * Calls `probe` until it returns something other than undefined, null or false, and
 * returns that. Throws a `failed` Failure after the timeout, unless there is progress.
 */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  options: WaitOptions,
): Promise<Exclude<T, undefined | null | false>> {
  const startedAt = Date.now();
  let deadline = startedAt + options.timeoutMs;
  while (true) {
    const found = await probe();
    if (found !== undefined && found !== null && found !== false) {
      return found as Exclude<T, undefined | null | false>;
    }
    if (Date.now() >= deadline) {
      if (await options.isProgressing?.()) {
        deadline += options.timeoutMs;
        continue;
      }
      const waitedMs = deadline - startedAt;
      throw new Failure(
        "failed",
        `Timed out after ${waitedMs / 1000} s waiting for ${options.for}`,
        { hint: options.hint },
      );
    }
    await sleep(options.everyMs ?? 25);
  }
}
