// The client of the pool, with managers that are slow, hang, or have another version.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../lib/std/errors.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureDirectory, ownerOf } from "../../lib/std/owned.ts";
import { askPool, claim, poolStatus } from "../../lib/pool/client.ts";
import {
  type Handler,
  listen,
  type Listener,
} from "../../lib/std/socket-lines.ts";

interface Context {
  directory: string;
  listener?: Listener;
}

const test = suite<Context>("pool client");

test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), "hal9000-client-"));
});

test.after.each(async ({ directory, listener }) => {
  await listener?.close();
  rmSync(directory, { recursive: true });
});

async function serve(context: Context, handle: Handler) {
  const home = homePaths(context.directory);
  const owner = ownerOf(context.directory);
  for (const path of [home.run, home.pool, home.claims]) {
    ensureDirectory(path, 0o700, owner);
  }
  context.listener = await listen(home.poolSocket, handle);
  return home;
}

const request = {
  instance: "x",
  directory: "/p",
  image: "i",
  allowAnyPath: false,
  limits: { memoryBytes: 1, cpus: 1, pids: 1 },
};

const impatient = { idleTimeoutMs: 100, pingMs: 50 };
/** A late reply, as on a busy machine, still counts. */
const patient = { idleTimeoutMs: 100, pingMs: 10_000 };

const opOf = (request: unknown) => (request as { op: string }).op;

test("a claim waits for a slow manager", async (context) => {
  const home = await serve(context, async (request) => {
    if (opOf(request) === "ping") return {};
    await sleep(350);
    writeFileSync(home.loan("w"), "");
    const worker = { id: "w", name: "n", project: "/p", image: "i" };
    return { start: "warm", worker };
  });
  assert.is((await claim({ home }, request, patient)).start, "warm");
});

test("a claim times out if the manager hangs", async (context) => {
  const home = await serve(context, () => new Promise(() => {}));
  const startedAt = Date.now();
  assert.equal(await claim({ home }, request, impatient), {
    start: "cold",
    reason: "the pool does not answer",
  });
  assert.ok(Date.now() - startedAt < 30_000);
});

test("a command reports a manager that hangs", async (context) => {
  const home = await serve(context, () => new Promise(() => {}));
  try {
    await askPool({ home }, { op: "drain" }, 60_000, impatient);
    assert.unreachable();
  } catch (error) {
    assert.is((error as Failure).message, "The pool manager does not answer");
  }
});

test("reports a status of another version without a schema error", async (context) => {
  const home = await serve(context, () => Promise.resolve({ running: true }));
  try {
    await poolStatus({ home });
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Failure).message,
      /the daemon has another version/,
    );
    assert.is(
      (error as Failure).hint,
      "Restart the daemon: claudy daemon restart",
    );
  }
});

test("reports that a manager of another version refused the request", async (context) => {
  const home = await serve(context, () => {
    const what = "version: must be 2: client and pool have different versions";
    throw new Failure("usage", `The pool was sent: ${what}`);
  });
  try {
    await askPool({ home }, { op: "warm" });
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Failure).message,
      /the daemon has another version/,
    );
  }
  assert.equal(await claim({ home }, request, impatient), {
    start: "cold",
    reason: "the pool has another version",
  });
});

test.run();
