// The commands of the pool, with a manager that only answers what a test tells it.

import { writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { serveParent } from "../../lib/instance/parent-socket.ts";
import { readDesired, writeDesired } from "../../lib/pool/desired.ts";
import type { PoolStatus } from "../../lib/pool/protocol.ts";
import { listen, type Listener } from "../../lib/std/socket-lines.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as poolManager } from "../../scripts/pool-manager.ts";
import { main as spawnWorker } from "../../scripts/spawn-worker.ts";
import type { FakeContainer } from "../helper/fake-engine.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

interface Context extends Served {
  pool?: Listener | undefined;
}

const test = suite<Context>("pool commands");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  context.pool = undefined;
});
test.after.each(async ({ pool, close }) => {
  await pool?.close();
  await close();
});

const status: PoolStatus = {
  running: true,
  unavailable: null,
  warm: [{ name: "fake-warm-1", id: "1", ageSeconds: 12 }],
  creating: 1,
  busy: [{ name: "mine", project: "/p/app" }],
  minWarm: 3,
  maxWarm: 6,
  idleTimeout: 200,
  checkInterval: 20,
  network: "shared",
  profiles: [
    { name: "base", image: "repo:worker", present: true, warm: 1 },
    { name: "node", image: "repo:worker-node", present: false, warm: 0 },
  ],
  limits: { memoryBytes: 2 * 1024 ** 3, cpus: 1.5, pids: 50 },
  metrics: {
    claims: { warm: 4, cold: { "further mounts": 2, "no limits": 1 } },
    latencyMs: { p50: 20, p95: 40, p99: 60 },
    creations: 9,
    failures: 2,
    lastFailure: "no space",
  },
};

interface Asked {
  op: string;
  [field: string]: unknown;
}

/** Serves a manager; returns the requests that it gets. */
async function serve(
  context: Context,
  answer: (request: Asked) => unknown,
): Promise<Asked[]> {
  const asked: Asked[] = [];
  const { home } = context.instance;
  context.pool = await listen(home.poolSocket, (request) => {
    asked.push(request as Asked);
    return Promise.resolve(answer(request as Asked));
  });
  return asked;
}

/** Rows of a table, with their values by their names. */
const rowsOf = (text: string) =>
  new Map(
    text.split("\n").flatMap((line) => {
      const [, name = "", value] = /^ +(.+?): +(.+)$/.exec(line) ?? [];
      return value === undefined ? [] : [[name, value] as const];
    }),
  );

test("the status of a pool shows its workers, sizes, limits and claims", async (context) => {
  await serve(context, () => status);
  const { code, stdout } = await context.run(poolManager, ["status"]);
  assert.is(code, 0);
  const rows = rowsOf(stdout);
  assert.equal(Object.fromEntries(rows), {
    State: "running",
    "Warm (ready)": "1",
    "Busy (in use)": "1",
    Creating: "1",
    "Min warm": "3",
    "Max warm": "6",
    "Idle timeout": "200s",
    "Check interval": "20s",
    "Warm claims": "possible",
    base: "1 warm",
    node: "repo:worker-node is not built",
    Memory: "2 GiB",
    CPUs: "1.5",
    PIDs: "50",
    Warm: "4",
    Cold: "2 (further mounts), 1 (no limits)",
    Latency: "p50 20 ms, p95 40 ms, p99 60 ms",
    Created: "9",
    Failures: "2, the last: no space",
    "- fake-warm-1 (idle": "12s)",
  });
  const lines = stdout.split("\n");
  const titles = lines.filter((line) => line && !line.startsWith(" "));
  assert.equal(titles, [
    "Worker Pool Status",
    ...["Profiles", "Resource Limits", "Claims"],
    ...["Warm workers", "Busy workers"],
  ]);
  assert.ok(lines.includes("  - mine (/p/app)"));
  const json = await context.run(claudy, ["pool", "status", "--json"]);
  assert.equal(JSON.parse(json.stdout), status);
});

test("the status of an idle pool omits empty lists, and says why claims are impossible", async (context) => {
  const [base] = status.profiles;
  await serve(context, () => ({
    ...status,
    unavailable: "no nsenter",
    warm: [],
    busy: [],
    profiles: base ? [base] : [],
    metrics: {
      claims: { warm: 0, cold: {} },
      latencyMs: { p50: null, p95: null, p99: null },
      creations: 0,
      failures: 0,
      lastFailure: null,
    },
  }));
  const { stdout } = await context.run(poolManager, ["status"]);
  const rows = rowsOf(stdout);
  assert.is(rows.get("Warm claims"), "not possible: no nsenter");
  assert.is(rows.get("Cold"), "0");
  assert.is(rows.get("Latency"), "none yet");
  assert.is(rows.get("Failures"), "0");
  for (const title of ["Profiles", "Warm workers", "Busy workers"]) {
    assert.not.ok(stdout.includes(title), title);
  }
});

test("the status of a stopped pool shows the sizes it would have", async (context) => {
  const { instance, run } = context;
  writeDesired(instance, false, { minWarm: 1, maxWarm: 7 });
  const json = await run(poolManager, ["status", "--json"]);
  const stopped = JSON.parse(json.stdout) as PoolStatus;
  assert.is(stopped.running, false);
  assert.equal([stopped.minWarm, stopped.maxWarm], [1, 7]);
  assert.is(stopped.unavailable, null);
  const rows = rowsOf((await run(poolManager, ["status"])).stdout);
  assert.is(rows.get("State"), "stopped");
  assert.is(rows.get("Warm claims"), "none");
});

test("a status of another instance's home is shown with a warning, and not changed", async (context) => {
  const { instance, run } = context;
  writeFileSync(instance.home.instance, "other\n");
  const shown = await run(poolManager, ["status"]);
  assert.is(shown.code, 0);
  assert.match(shown.stderr, /^warning: .* belongs to instance "other"/);
  const refused = await run(poolManager, ["drain"]);
  assert.is(refused.code, 5);
  assert.match(refused.stderr, 'belongs to instance "other"');
});

test("scale sends the number, and tells if it exceeds the maximum", async (context) => {
  const asked = await serve(context, ({ warm }) => ({
    capped: Number(warm) > 5,
    minWarm: Math.min(Number(warm), 5),
  }));
  const fits = await context.run(poolManager, ["scale", "5"]);
  assert.equal([fits.stdout, fits.stderr], ["Min warm: 5\n", ""]);
  const capped = await context.run(poolManager, ["scale", "6"]);
  assert.is(capped.stdout, "Min warm: 5\n");
  assert.match(capped.stderr, "6 exceeds max: keeping 5");
  assert.match(capped.stderr, "--max-warm");
  const json = await context.run(poolManager, ["scale", "0", "--json"]);
  assert.equal(JSON.parse(json.stdout), { capped: false, minWarm: 0 });
  assert.equal(asked.map(({ op, warm }) => [op, warm]), [
    ["scale", 5],
    ["scale", 6],
    ["scale", 0],
  ]);
});

test("cleanup and drain tell how many workers were removed; warm shows the pool", async (context) => {
  const asked = await serve(
    context,
    ({ op }) => op === "warm" ? status : { removed: 4 },
  );
  for (const op of ["cleanup", "drain"]) {
    const ran = await context.run(poolManager, [op]);
    assert.is(ran.stdout, "Warm workers removed: 4\n");
    const json = await context.run(poolManager, [op, "--json"]);
    assert.equal(JSON.parse(json.stdout), { removed: 4 });
  }
  const warm = await context.run(poolManager, ["warm"]);
  assert.match(warm.stdout, "Worker Pool Status");
  assert.equal(asked.map(({ op }) => op), [
    ...["cleanup", "cleanup", "drain", "drain", "warm"],
  ]);
});

test("stop waits until the manager has ended", async (context) => {
  const asked = await serve(context, ({ op }) => {
    if (op !== "stop") return status;
    setTimeout(() => context.pool?.close(), 50);
    return { removed: 2 };
  });
  const { stdout } = await context.run(poolManager, ["stop"]);
  assert.is(stdout, "Pool stopped; warm workers removed: 2\n");
  assert.ok(asked.some(({ op }) => op === "status"));
});

test("start saves the sizes and sends them to the manager", async (context) => {
  const { run, instance, engine } = context;
  const asked = await serve(context, () => status);
  const argv = ["start", "--min-warm", "1", "--max-warm", "9"];
  const { code, stdout, stderr } = await run(poolManager, [
    ...argv,
    ...["--idle-timeout", "60", "--check-interval", "5"],
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, "Worker Pool Status");
  const sizes = { minWarm: 1, maxWarm: 9, idleTimeout: 60, checkInterval: 5 };
  const network = "shared";
  assert.equal(readDesired(instance), { enabled: true, sizes, network });
  assert.equal(asked.map(({ op, sizes }) => [op, sizes]), [["resize", sizes]]);
  (engine.find("fake-parent") as FakeContainer).state = "exited";
  const refused = await run(poolManager, ["start"]);
  assert.is(refused.code, 4);
  assert.match(refused.stderr, "the parent is not running");
  assert.match(refused.stderr, "claudy daemon start");
});

test("start saves the network of the warm workers only if it is given", async (context) => {
  const { run, instance } = context;
  const asked = await serve(
    context,
    () => ({ ...status, network: "isolated" }),
  );
  const given = await run(claudy, ["pool", "start", "--network", "isolated"]);
  assert.is(given.code, 0, given.stderr);
  assert.is(rowsOf(given.stdout).get("Network"), "isolated");
  assert.is(asked.at(-1)?.["network"], "isolated");
  await run(claudy, ["pool", "start"], { env: { WORKER_NETWORK: "shared" } });
  assert.is(asked.at(-1)?.["network"], undefined);
  assert.is(readDesired(instance).network, "isolated");
  const wrong = await run(claudy, ["pool", "start", "--network", "none"]);
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, '--network must be "shared" or "isolated"');
});

test("start takes sizes without an option from the environment", async (context) => {
  const { run, instance } = context;
  await serve(context, () => status);
  const env = { MIN_WARM_WORKERS: "3", MAX_WARM_WORKERS: "7" };
  const started = await run(poolManager, ["start", "--min-warm", "4"], { env });
  assert.is(started.code, 0, started.stderr);
  const { minWarm, maxWarm, idleTimeout } = readDesired(instance).sizes;
  assert.equal([minWarm, maxWarm, idleTimeout], [4, 7, 300]);
  const refused = await run(poolManager, ["start"], {
    env: { IDLE_TIMEOUT: "soon" },
  });
  assert.is(refused.code, 2);
  assert.match(refused.stderr, "IDLE_TIMEOUT must be a whole number");
});

test("start refuses sizes outside of their bounds, and saves nothing", async (context) => {
  const { run, instance } = context;
  const before = readDesired(instance);
  const refusals = {
    "--min-warm 101": "--min-warm must be from 0 to 100, got 101",
    "--max-warm 101": "--max-warm must be from 0 to 100, got 101",
    "--idle-timeout 0": "--idle-timeout must be at least 1, got 0",
    "--check-interval 0": "--check-interval must be at least 1, got 0",
    "--min-warm 1.5": "--min-warm must be a whole number",
    "--min-warm 9 --max-warm 8": "9 warm workers exceeds the maximum of 8",
  };
  for (const [words, says] of Object.entries(refusals)) {
    const ran = await run(poolManager, ["start", ...words.split(" ")]);
    assert.is(ran.code, 2, ran.stderr);
    assert.match(ran.stderr, says);
  }
  assert.equal(readDesired(instance), before);
});

test("a request waits for a pool that the parent is starting", async (context) => {
  const { run, instance } = context;
  writeDesired(instance, true);
  const absent = await run(poolManager, ["drain"]);
  assert.match(absent.stderr, "The pool is not running");
  const stop = new AbortController();
  const parent = serveParent(instance, stop.signal);
  setTimeout(() => void serve(context, () => ({ removed: 0 })), 150);
  const ran = await run(poolManager, ["drain"]);
  assert.is(ran.stdout, "Warm workers removed: 0\n", ran.stderr);
  stop.abort();
  await parent;
});

test("claim prints the worker's name, or why there is none", async (context) => {
  const { run, instance: { home }, project } = context;
  const worker = { id: "w1", name: "mine", project: "/p", image: "i" };
  let cold = false;
  const asked = await serve(context, () => {
    if (cold) return { start: "cold", reason: "all are in use" };
    writeFileSync(home.loan("w1"), "");
    return { start: "warm", worker };
  });
  const argv = ["claim", project("app"), "--name", "mine"];
  assert.is((await run(poolManager, argv)).stdout, "mine\n");
  const json = await run(poolManager, [...argv, "--json"]);
  assert.equal(JSON.parse(json.stdout), worker);
  assert.equal(asked.map(({ directory, name }) => [directory, name]), [
    [project("app"), "mine"],
    [project("app"), "mine"],
  ]);
  cold = true;
  const none = await run(poolManager, argv);
  assert.is(none.stdout, "");
  assert.match(none.stderr, "There is nothing to claim: all are in use");
  assert.match(none.stderr, "start a cold worker: hal9000-spawn-worker -d");
});

test("spawn-worker prints the id of a claimed worker, its notices and warnings", async (context) => {
  const { run, instance: { home }, project } = context;
  const worker = { id: "w1", name: "mine", project: "/p", image: "i" };
  await serve(context, () => {
    writeFileSync(home.loan("w1"), "");
    return { start: "warm", worker, notices: ["no hooks here"] };
  });
  const argv = ["--detach", project("app")];
  const ran = await run(spawnWorker, argv);
  assert.equal([ran.stdout, ran.stderr], ["w1\n", "no hooks here\n"]);
  const json = await run(spawnWorker, [...argv, "--json"]);
  assert.equal(JSON.parse(json.stdout), { ...worker, start: "warm" });
});

test("spawn-worker tells how to pass certificates that only sessions get", async (context) => {
  const { run, instance: { home }, project, root } = context;
  const worker = { id: "w1", name: "mine", project: "/p", image: "i" };
  await serve(context, () => {
    writeFileSync(home.loan("w1"), "");
    return { start: "warm", worker };
  });
  const file = `${root}/ca.pem`;
  writeFileSync(file, "certificate");
  const told = async (env: NodeJS.ProcessEnv) =>
    (await run(spawnWorker, ["--detach", project("app")], { env })).stderr;
  const both = await told({
    CURL_CA_BUNDLE: file,
    HTTPS_PROXY: "http://proxy:3128",
  });
  assert.match(
    both,
    "Not passed to a worker without a session: CURL_CA_BUNDLE, HTTPS_PROXY.",
  );
  assert.match(both, "--secret ca=FILE --env CURL_CA_BUNDLE=/run/secrets/ca");
  const proxy = await told({ HTTPS_PROXY: "http://proxy:3128" });
  assert.not.match(proxy, "/run/secrets");
});

const coldReasons: Record<string, string> = {
  "--standalone": "a network of its own",
  "--no-limits": "no limits",
  "--no-rm": "the container is kept after its exit",
  "--mount /tmp:/x": "further mounts",
  "--env A=1": "variables",
  "--secret A": "secrets",
};

for (const [words, reason] of Object.entries(coldReasons)) {
  test(`a warm worker is not claimed with ${words}, and the pool hears of it`, async (context) => {
    const { run, project } = context;
    const asked = await serve(context, () => ({}));
    const argv = ["-d", "--warm-only", ...words.split(" "), project("app")];
    const ran = await run(spawnWorker, argv, { env: { A: "1" } });
    assert.is.not(ran.code, 0);
    assert.match(ran.stderr, `No warm worker to claim: ${reason}`);
    assert.equal(asked.map(({ op, reason }) => [op, reason]), [
      ["cold", reason],
    ]);
  });
}

test.run();
