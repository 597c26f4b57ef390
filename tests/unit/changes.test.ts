import { test } from "uvu";
import * as assert from "uvu/assert";
import { Changes } from "../../lib/std/changes.ts";

const soon = (ms: number) => performance.now() + ms;

test("a change ends all waits, and one that comes too late none", async () => {
  const changes = new Changes();
  const waits = [changes.next(soon(10_000)), changes.next(soon(10_000))];
  changes.tell();
  assert.equal(await Promise.all(waits), [true, true]);
  const late = changes.next(soon(20));
  assert.is(await late, false);
  assert.is(await changes.next(soon(0)), false);
  changes.tell();
});

test("waits that have ended are forgotten", async () => {
  const changes = new Changes();
  await Promise.all(Array.from({ length: 100 }, () => changes.next(soon(5))));
  assert.is(changes.waiting, 0);
  void changes.next(soon(10_000));
  assert.is(changes.waiting, 1);
  changes.tell();
  assert.is(changes.waiting, 0);
});

test.run();
