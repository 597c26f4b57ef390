// Claiming warm workers, on a fake engine.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readRecord, writeRecord } from "../../lib/instance/record.ts";
import {
  claimWorker,
  expireClaim,
  ownHosts,
  readClaim,
  readClaims,
} from "../../lib/pool/claim.ts";
import { fit, Unfit } from "../../lib/pool/fit.ts";
import type { AttachRequest } from "../../lib/nsenter/privileged/attach.ts";
import { Nsenter, NsenterLost } from "../../lib/nsenter/container.ts";
import { listen } from "../../lib/std/socket-lines.ts";
import { claimRequest } from "../../lib/pool/client.ts";
import type { ClaimRequest } from "../../lib/pool/protocol.ts";
import { createWarm, findWarm, warmRecipe } from "../../lib/pool/warm.ts";
import { listWarm, listWorkers } from "../../lib/worker/workers.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("claiming");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

function requestFor(
  { instance, project }: FakeInstance,
  change: Partial<ClaimRequest> = {},
): ClaimRequest {
  const directory = project("app");
  const request = claimRequest(instance.settings, {
    directory,
    cwd: "/",
    name: "mine",
  });
  const id = "00000000-0000-0000-0000-000000000000";
  return { op: "claim", id, once: true, ...request, ...change };
}

async function warm({ instance, log }: FakeInstance) {
  const network = { mode: `container:${instance.names.net}`, since: "now" };
  const recipe = await warmRecipe(instance, "repo:worker", network, log);
  assert.ok(recipe);
  return { recipe, worker: await createWarm(instance, recipe) };
}

const recipe = {
  network: "container:fake-net",
  limits: { memoryBytes: 1, cpus: 1, pids: 321 },
  lacksLfs: false,
  relay: false,
  caches: [],
};

/** What an engine without cgroups reports. */
const noCgroups = {
  CgroupDriver: "none",
  MemoryLimit: false,
  CpuCfsQuota: false,
  PidsLimit: false,
};

function nsenter(attach: (request: AttachRequest) => Promise<void>): Nsenter {
  return { attach } as unknown as Nsenter;
}

async function claimed(
  fake: FakeInstance,
  change: Partial<ClaimRequest> = {},
  attach: (request: AttachRequest) => Promise<void> = () => Promise.resolve(),
) {
  const { recipe, worker } = await warm(fake);
  const request = requestFor(fake, change);
  const fitting = await fit(fake.instance, request, recipe);
  const claim = await claimWorker(
    fake.instance,
    nsenter(attach),
    { recipe, worker, request, fitting },
  );
  return { claim, worker, fitting };
}

const failureOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("a warm worker has no project or session, and is listed separately", async (fake) => {
  const { instance, engine } = fake;
  const { worker, recipe } = await warm(fake);
  const spec = engine.find(worker.id)?.spec;
  const targets = spec?.HostConfig?.Mounts?.map(({ Target }) => Target) ?? [];
  assert.not(targets.includes("/workspace"));
  assert.not(targets.includes("/home/claude/.claude"));
  assert.is(spec?.Labels?.["hal9000.born"], "warm");
  assert.is(worker.inputs, recipe.inputs);
  assert.equal((await listWarm(instance)).map(({ id }) => id), [worker.id]);
  assert.equal(await listWorkers(instance), []);
});

test("workers without a mark, or with another's, are not handed out", async (fake) => {
  const { instance, engine } = fake;
  const { worker } = await warm(fake);
  const { worker: other } = await warm(fake);
  assert.is.not(worker.mark, other.mark);
  const { spec } = engine.find(other.id) ?? assert.unreachable() as never;
  spec.Env = spec.Env?.filter((variable) => variable !== other.mark);
  const { ready, dead } = await findWarm(instance);
  assert.equal(ready.map(({ id, mark }) => ({ id, mark })), [
    { id: worker.id, mark: worker.mark },
  ]);
  assert.equal(dead.map(({ id }) => id), [other.id]);
});

test("a claim attaches project and home, renames the worker and records it", async (fake) => {
  const { instance, engine, project } = fake;
  let attached: AttachRequest | undefined;
  const { claim, worker } = await claimed(fake, {}, (request) => {
    attached = request;
    return Promise.resolve();
  });
  assert.is(engine.find(worker.id)?.name, "mine");
  const { owner, home } = instance;
  assert.equal(attached?.attachments, [
    {
      source: project("app"),
      target: "/workspace",
      readOnly: false,
      ...owner,
    },
    {
      source: join(home.home, claim.record.home),
      target: "/home/claude/.claude",
      readOnly: false,
      ...owner,
    },
    ...ownHosts(instance, { unrelayed: true }, "container:fake-net"),
  ]);
  assert.is(attached?.pid, worker.pid);
  assert.is(attached?.mark, worker.mark);
  assert.ok(engine.find(worker.id)?.spec.Env?.includes(worker.mark));
  assert.equal(readRecord(instance, "mine"), claim.record);
  assert.equal(readClaims(instance), [claim]);
  const [listed] = await listWorkers(instance);
  assert.is(listed?.project, project("app"));
});

test("a claim sets the requested limits", async (fake) => {
  const limits = { memoryBytes: 2 ** 30, cpus: 0.5, pids: 7 };
  const { worker } = await claimed(fake, { limits });
  const host = fake.engine.find(worker.id)?.spec.HostConfig;
  assert.is(host?.Memory, 2 ** 30);
  assert.is(host?.NanoCpus, 5e8);
  assert.is(host?.PidsLimit, 7);
});

test("a claim fails if the engine does not change the CPUs", async (fake) => {
  fake.engine.updatesCpus = false;
  const limits = { memoryBytes: 2 ** 30, cpus: 0.5, pids: 7 };
  const failure = await failureOf(claimed(fake, { limits }));
  assert.instance(failure, Unfit);
  assert.is(failure.message, "the engine cannot change the CPUs of a worker");
});

test("a claim without a process limit keeps that of the pool's worker", async (fake) => {
  const limits = { memoryBytes: 2 ** 30, cpus: 0.5 };
  const request = requestFor(fake, { limits });
  const fitting = await fit(fake.instance, request, recipe);
  assert.equal(fitting.limits, { ...limits, pids: 321 });
  assert.is(requestFor(fake).limits.pids, undefined);
});

test("a claim gets a worker of the network that it asks for, and no other", async (fake) => {
  const isolated = { ...recipe, network: "none" };
  for (
    const [asked, of, fits] of [
      [{ network: "isolated" }, isolated, true],
      [{ network: "isolated" }, recipe, false],
      [{ network: "shared" }, isolated, false],
      [{ network: "shared" }, recipe, true],
      [{ network: undefined }, recipe, true],
    ] as const
  ) {
    const request = requestFor(fake, asked);
    const tried = await fit(fake.instance, request, of).catch((error) => error);
    assert.is(tried.message, fits ? undefined : "another network");
  }
});

test("a claim gets a worker with the relay only if it asks for it", async (fake) => {
  const relayed = { ...recipe, relay: true };
  for (
    const [relay, of, fits] of [
      ["on", relayed, true],
      ["on", recipe, false],
      ["off", relayed, false],
      ["any", relayed, true],
      ["any", recipe, true],
      [undefined, recipe, true],
    ] as const
  ) {
    const request = requestFor(fake, { relay });
    const tried = await fit(fake.instance, request, of).catch((error) => error);
    assert.is(tried.message, fits ? undefined : "another relay setting");
  }
});

test("a worker that was made for the relay and does not use it gets the network's own hosts file", async (fake) => {
  const { hostHome, owner } = fake.instance;
  const hosts = {
    source: join(hostHome.netFiles, "hosts"),
    target: "/etc/hosts",
    readOnly: true,
    ...owner,
  };
  const session = "talk";
  for (
    const [name, asked, attaches] of [
      ["one", {}, true],
      ["two", { session, relay: "any" }, true],
      ["three", { session, relay: "on" }, false],
    ] as const
  ) {
    let attached: AttachRequest | undefined;
    const { claim } = await claimed(fake, { name, ...asked }, (request) => {
      attached = request;
      return Promise.resolve();
    });
    assert.equal(attached?.attachments.slice(2), attaches ? [hosts] : []);
    assert.is(claim.record.unrelayed, attaches || undefined);
  }
  assert.equal(ownHosts(fake.instance, { unrelayed: true }, "none"), []);
});

test("a claim gets no more memory than the engine has", async (fake) => {
  const limits = { memoryBytes: 2 ** 50, cpus: 1 };
  const request = requestFor(fake, { limits });
  const fitting = await fit(fake.instance, request, recipe);
  assert.is(fitting.limits.memoryBytes, fake.engine.about.MemTotal);
});

test("a claim tells of limits that the engine cannot enforce", async (fake) => {
  Object.assign(fake.engine.about, noCgroups);
  const { fitting, claim } = await claimed(fake, {
    limits: { memoryBytes: 2 ** 30, cpus: 0.5, pids: 7 },
  });
  assert.match(fitting.notices.join(), /^warning: .*cannot limit memory, CPUs/);
  // Nothing is changed in the container: this engine refuses an update with CPUs.
  const { asked } = fake.engine;
  assert.not(asked.some((what) => what.startsWith("update")));
  assert.is(claim.record.memoryBytes, 0);
});

test("claims nothing without limits that are required", async (fake) => {
  Object.assign(fake.engine.about, noCgroups);
  const { instance } = fake;
  const settings = { ...instance.settings, REQUIRE_LIMITS: true };
  const request = claimRequest(settings, { directory: "/", cwd: "/" });
  assert.is(request.requireLimits, true);
  for (
    const [of, asked] of [
      [instance, requestFor(fake, { requireLimits: true })],
      [{ ...instance, settings }, requestFor(fake)],
    ] as const
  ) {
    const failure = await failureOf(fit(of, asked, recipe));
    assert.instance(failure, Unfit);
    assert.match(failure.message, "The engine cannot limit memory, CPUs");
  }
});

test("does not update the container if the limits are the pool's", async (fake) => {
  await claimed(fake);
  assert.not(fake.engine.asked.some((what) => what.startsWith("update")));
});

test("a session's claim uses the session's home, and keeps it afterwards", async (fake) => {
  const { instance } = fake;
  const { claim } = await claimed(fake, { session: "talk", name: undefined });
  assert.is(claim.record.home, "claude/talk");
  assert.is(claim.record.session, "talk");
  assert.is(claim.record.ephemeral, true);
  assert.ok(existsSync(join(instance.home.home, "claude/talk")));
});

test("removes the worker of a claim that expires, with its record and claim file", async (fake) => {
  const { instance, engine } = fake;
  const { claim, worker } = await claimed(fake);
  assert.is(await expireClaim(instance, claim), true);
  assert.not(engine.find(worker.id));
  assert.is(readRecord(instance, "mine"), undefined);
  assert.equal(readClaims(instance), []);
  assert.is(await expireClaim(instance, claim), false);
});

test("an expired claim keeps the record of another worker with the same name", async (fake) => {
  const { instance } = fake;
  const { claim } = await claimed(fake);
  const other = { ...claim.record, container: "another" };
  writeRecord(instance, other);
  await expireClaim(instance, claim);
  assert.equal(readRecord(instance, "mine"), other);
});

test("an expired claim leaves a damaged record to reconciliation", async (fake) => {
  const { instance } = fake;
  const { claim } = await claimed(fake);
  const path = instance.home.record("mine");
  writeFileSync(path, "{");
  assert.is(await expireClaim(instance, claim), true);
  assert.ok(existsSync(path));
});

test("a claim with an unreadable record still expires", async (fake) => {
  const { instance, engine } = fake;
  const { claim, worker } = await claimed(fake);
  const { sessions } = instance.home;
  rmSync(sessions, { recursive: true });
  writeFileSync(sessions, "");
  assert.is(await expireClaim(instance, claim), true);
  assert.not(engine.find(worker.id));
});

test("a claim that cannot attach leaves nothing behind", async (fake) => {
  const { instance, engine, project } = fake;
  const home = readdirSync(instance.home.workers);
  const failure = await failureOf(
    claimed(fake, { name: undefined }, () => Promise.reject(new Error("no"))),
  );
  assert.instance(failure, Unfit);
  assert.is(failure.message, "the claim failed: no");
  assert.equal(readdirSync(instance.home.claims), []);
  assert.equal(readdirSync(instance.home.workers), home);
  assert.equal(engine.names(), [instance.names.net, instance.names.parent]);
  assert.ok(existsSync(project("app")));
});

test("distinguishes a lost nsenter from an unsuitable project", async (fake) => {
  const failure = await failureOf(
    claimed(fake, {}, () => Promise.reject(new NsenterLost("lost"))),
  );
  assert.instance(failure, NsenterLost);
});

test("spawns cold without an error if a container has the name meanwhile", async (fake) => {
  const { engine } = fake;
  engine.add("mine");
  for (const status of [409, 500]) {
    engine.takenStatus = status; // Docker's, Podman's
    const failure = await failureOf(claimed(fake));
    assert.instance(failure, Unfit);
    assert.is(failure.message, "name is taken");
    assert.ok(engine.find("mine"));
  }
});

test("fit() generates a name if none is given", async (fake) => {
  const request = requestFor(fake, { name: undefined });
  const { name } = await fit(fake.instance, request, recipe);
  assert.match(name, /^fake-worker-[0-9a-f]{8}$/);
});

const unfit: [string, (fake: FakeInstance) => Partial<ClaimRequest>, string][] =
  [
    ["another instance", () => ({ instance: "other" }), "another instance"],
    [
      "a missing directory",
      ({ root }) => ({ directory: join(root, "gone") }),
      "the project cannot be looked at",
    ],
    [
      "a file",
      ({ root }) => {
        writeFileSync(join(root, "file"), "");
        return { directory: join(root, "file") };
      },
      "no project for a worker",
    ],
    [
      "the instance's home",
      ({ instance }) => ({ directory: instance.home.home }),
      "no project for a worker",
    ],
    [
      "a name with a record",
      (fake) => {
        writeFileSync(fake.instance.home.record("mine"), "{}");
        return {};
      },
      "name is taken",
    ],
  ];
for (const [what, change, reason] of unfit) {
  test(`fit() refuses ${what}: ${reason}`, async (fake) => {
    const failure = await failureOf(
      fit(fake.instance, requestFor(fake, change(fake)), recipe),
    );
    assert.instance(failure, Unfit);
    assert.is(failure.message, reason);
  });
}

test("fit() refuses a project with another owner", async (fake) => {
  const { uid, gid } = fake.instance.owner;
  for (const owner of [{ uid: uid + 1, gid }, { uid, gid: gid + 1 }]) {
    const failure = await failureOf(
      fit({ ...fake.instance, owner }, requestFor(fake), recipe),
    );
    assert.is(failure.message, "the project has another owner");
  }
});

test("fit() accepts refused paths with --allow-any-path", async (fake) => {
  const directory = join(fake.instance.home.home, "app");
  mkdirSync(directory);
  const request = requestFor(fake, { directory, allowAnyPath: true });
  const { project } = await fit(fake.instance, request, recipe);
  assert.is(project.path, directory);
});

test("readClaim() ignores invalid claims", ({ instance }) => {
  const path = instance.home.loan("x");
  assert.is(readClaim(path), undefined);
  for (const text of ["", "{", "[]", '{"id":"x"}']) {
    writeFileSync(path, text);
    assert.is(readClaim(path), undefined);
  }
  assert.equal(readClaims(instance), []);
});

test("findWarm() separates claimable warm workers from unusable ones", async (fake) => {
  const { instance, engine } = fake;
  const { worker: ready } = await warm(fake);
  const { worker: paused } = await warm(fake);
  const { worker: ended } = await warm(fake);
  Object.assign(engine.find(paused.id) ?? {}, { state: "paused" });
  Object.assign(engine.find(ended.id) ?? {}, { state: "exited" });
  const found = await findWarm(instance);
  assert.equal(found.ready.map(({ id }) => id), [ready.id]);
  assert.equal(found.ready[0]?.inputs, ready.inputs);
  assert.equal(
    found.dead.map(({ id }) => id).sort(),
    [paused.id, ended.id].sort(),
  );
});

test("a recipe changes with the image, network or limits", async (fake) => {
  const { instance, engine, log } = fake;
  const network = { mode: "container:net", since: "now" };
  const inputs = async (since = "now", memory = 1) => {
    const settings = { ...instance.settings, WORKER_MEMORY: memory };
    const at = { ...network, since };
    const changed = { ...instance, settings };
    return (await warmRecipe(changed, "repo:worker", at, log))?.inputs;
  };
  const first = await inputs();
  assert.is(await inputs(), first);
  assert.is.not(await inputs("later"), first);
  assert.is.not(await inputs("now", 2), first);
  engine.images.set("repo:worker", { Id: "sha256:newer" });
  assert.is.not(await inputs(), first);
  engine.images.delete("repo:worker");
  assert.is(await inputs(), undefined);
});

test("replaces an nsenter container that was started with other project roots", async (fake) => {
  const { engine, instance } = fake;
  const { names, home } = instance;
  mkdirSync(home.nsenter, { recursive: true });
  const server = await listen(
    join(home.nsenter, "nsenter.sock"),
    () => Promise.resolve({}),
  );
  const nsenterWith = (roots: string[]) =>
    new Nsenter({
      ...instance,
      host: { ...instance.host, roots },
      self: { ImageID: "repo:parent" } as typeof instance.self,
    });
  engine.images.clear(); // an image is its name
  engine.images.set("repo:parent", { Id: "repo:parent" });
  try {
    await nsenterWith(["/one"]).ensure("mounts");
    const { id } = engine.find(names.nsenter) ?? {};
    await nsenterWith(["/one"]).ensure("mounts");
    assert.is(engine.find(names.nsenter)?.id, id);
    assert.match(
      await nsenterWith([]).ensure("mounts") ?? "",
      "-v DIR:/host/DIR:ro",
    );
    await nsenterWith(["/two"]).ensure("mounts");
    assert.is.not(engine.find(names.nsenter)?.id, id);
  } finally {
    await server.close();
  }
});

test.run();
