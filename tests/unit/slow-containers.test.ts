// Waits for containers that are slow, and for those that hang.

import { PassThrough } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import { progressOf } from "../../lib/docker/progress.ts";
import { startWorker } from "../../lib/worker/worker.ts";
import { gatePassed } from "../../lib/worker/gate.ts";

const test = suite("slow containers");

/** An engine whose only container has used the CPU for so long, in ms, at each look. */
function engine(usedMs: number[], more: object = {}): Docker {
  const stats = () => {
    const total_usage = (usedMs.shift() ?? NaN) * 1e6;
    return Promise.resolve({ cpu_stats: { cpu_usage: { total_usage } } });
  };
  return { getContainer: () => ({ stats, ...more }) } as unknown as Docker;
}

test("a container progresses if it uses the CPU, in at most ten periods", async () => {
  const look = progressOf(engine([60, 110, 159, 160]), "x", 1000);
  const found = [await look(), await look(), await look(), await look()];
  assert.equal(found, [true, true, false, false]);
  const busy = progressOf(
    engine(Array.from({ length: 20 }, (_, i) => (i + 1) * 1000)),
    "x",
    1000,
  );
  for (let period = 1; period < 10; period++) assert.ok(await busy());
  assert.not(await busy());
});

test("there is no progress if the engine does not measure it", async () => {
  const mute = { stats: () => Promise.reject(new Error("no cgroups")) };
  assert.not(await progressOf(engine([], mute), "x", 1000)());
  const none = { stats: () => Promise.resolve({}) };
  assert.not(await progressOf(engine([], none), "x", 1000)());
});

test("a worker whose gate is slow is waited for, and one whose gate hangs is not", async () => {
  const { timeout } = AbortSignal;
  AbortSignal.timeout = () => AbortSignal.abort();
  try {
    const frame = (text: string) =>
      Uint8Array.from([
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        text.length,
        ...new TextEncoder().encode(text),
      ]);
    let looks = 0;
    const logs = ({ follow }: { follow: boolean }) => {
      if (!follow) {
        return Promise.resolve(frame(looks > 2 ? `${gatePassed}\n` : ""));
      }
      looks++;
      return Promise.resolve(new PassThrough().end());
    };
    const container = {
      logs,
      start: () => Promise.resolve(),
      remove: () => Promise.resolve(),
      inspect: () => Promise.resolve(),
    };
    await startWorker(engine([1000, 2000, 3000], container), "slow", "x", {
      announces: true,
    });
    assert.is(looks, 3);
    looks = -10;
    const failure = await startWorker(
      engine([1000, 1010], container),
      "hangs",
      "x",
      { announces: true },
    )
      .catch((error) => error);
    assert.is(
      failure.message,
      'Cannot start worker "hangs": no progress within 15 s',
    );
    assert.is(looks, -8);
  } finally {
    AbortSignal.timeout = timeout;
  }
});

test.run();
