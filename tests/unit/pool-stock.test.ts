// The stock of warm workers, with an engine that fails.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { instanceNames } from "../../lib/instance/labels.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { Metrics } from "../../lib/pool/metrics.ts";
import { creationsAtOnce, type DesiredPool } from "../../lib/pool/plan.ts";
import type { WarmWorker } from "../../lib/pool/warm.ts";
import { Stock } from "../../lib/pool/stock.ts";
import type { Settings } from "../../lib/instance/settings.ts";
import { waitFor } from "../../lib/std/wait.ts";

interface Context {
  root: string;
  said: string[];
  wanted: DesiredPool;
  engine: { creations: number; net: string | undefined; removed: string[] };
  stock: Stock;
  /** Creates a worker; fails by default. */
  make?: (() => Promise<WarmWorker>) | undefined;
}

const test = suite<Context>("stock");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-stock-"));
  context.said = [];
  context.make = undefined;
  context.wanted = { minWarm: 1, maxWarm: 2, idleTimeoutMs: 1000 };
  context.engine = { creations: 0, net: "2026-01-26T11:00:00Z", removed: [] };
  const home = homePaths(context.root);
  const owner = ownerOf(context.root);
  const instance = {
    docker: refusing(context.engine),
    prefix: "x",
    names: instanceNames("x"),
    owner,
    home,
    hostHome: home,
    settings: {
      WARM_PROFILES: ["base"],
      HAL9000_IMAGE_REPO: "repo",
      WORKER_MEMORY: 1,
      WORKER_CPUS: 1,
      WORKER_PIDS_LIMIT: 1,
      WORKER_SECCOMP: "engine",
      WORKER_CACHES: [],
    } as unknown as Settings,
  } as unknown as Instance;
  context.stock = new Stock(
    instance,
    new Metrics(),
    () => ({ ...context.wanted, network: "shared" }),
    (line) => context.said.push(line),
    () => {
      context.engine.creations++;
      if (context.make) return context.make();
      // Without a pause this would loop forever.
      return context.engine.creations > 20
        ? new Promise(() => {})
        : Promise.reject(new Error("refused"));
    },
  );
});

test.after.each((context) => {
  // A pending retry finds nothing to do.
  context.wanted = { ...context.wanted, minWarm: 0, maxWarm: 0 };
  rmSync(context.root, { recursive: true });
});

/** An engine with one image and a net that cannot create or remove containers. */
function refusing(engine: Context["engine"]): Docker {
  const refuse = (status: number) =>
    Promise.reject(Object.assign(new Error("refused"), { statusCode: status }));
  return {
    info: () => Promise.resolve({ NCPU: 1, MemTotal: 1 }),
    getImage: () => ({ inspect: () => Promise.resolve({ Id: "image" }) }),
    getContainer: (id: string) => ({
      inspect: () =>
        id === "x-net" && engine.net !== undefined
          ? Promise.resolve({ State: { Running: true, StartedAt: engine.net } })
          : refuse(404),
      remove: () => {
        engine.removed.push(id);
        return id === "stubborn" ? refuse(500) : Promise.resolve();
      },
    }),
  } as unknown as Docker;
}

const worker = (id: string, inputs: string) => ({
  id,
  name: id,
  pid: 1,
  mark: "",
  since: Date.now(),
  image: "repo:worker",
  inputs,
});

test("retries a failing engine after one second, then after two", async ({ stock, engine, said }) => {
  await stock.plan();
  await waitFor(() => said.length >= 1, { for: "a refusal", timeoutMs: 5000 });
  await sleep(300);
  await stock.plan();
  assert.is(engine.creations, 1);
  assert.match(said[0] ?? "", /refused; retrying in 1000 ms$/);
  await waitFor(() => said.length >= 2, { for: "another", timeoutMs: 5000 });
  assert.is(engine.creations, 2);
  assert.match(said[1] ?? "", /refused; retrying in 2000 ms$/);
});

test("fills a large pool in batches without waiting for the next check", async (context) => {
  const { stock, engine } = context;
  context.wanted = { minWarm: 6, maxWarm: 6, idleTimeoutMs: 1000 };
  let now = 0;
  let most = 0;
  context.make = async () => {
    const name = `w${engine.creations}`;
    most = Math.max(most, ++now);
    await sleep(10);
    now--;
    return worker(name, stock.recipe?.inputs ?? "");
  };
  await stock.plan();
  await waitFor(() => stock.all.length === 6, { for: "six", timeoutMs: 3000 });
  assert.is(engine.creations, 6);
  assert.is(most, creationsAtOnce);
});

test("logs a worker that cannot be removed, and continues", async ({ stock, said }) => {
  await stock.discard("stubborn");
  assert.equal(said, ["Cannot remove a warm worker that ended: refused"]);
});

test("a restarted net makes existing warm workers stale", async (context) => {
  const { stock, engine } = context;
  context.wanted = { ...context.wanted, minWarm: 0 };
  await stock.plan();
  const before = stock.recipeOf("repo:worker");
  assert.ok(before);
  stock.add(worker("w", before.inputs));
  await stock.plan();
  assert.equal(engine.removed, []);
  engine.net = "2026-01-26T12:00:00Z";
  await stock.plan();
  assert.equal(engine.removed, ["w"]);
  assert.is.not(stock.recipeOf("repo:worker")?.inputs, before.inputs);
});

test("hands out no workers while the net is down", async (context) => {
  const { stock, engine } = context;
  context.wanted = { ...context.wanted, minWarm: 0 };
  await stock.plan();
  stock.add(worker("w", stock.recipeOf("repo:worker")?.inputs ?? ""));
  stock.loseNetwork();
  assert.ok(stock.networkDown);
  engine.net = undefined;
  await stock.plan();
  assert.ok(stock.networkDown);
  assert.equal(engine.removed, ["w"]);
  engine.net = "2026-01-26T12:00:00Z";
  await stock.plan();
  assert.not(stock.networkDown);
});

test.run();
