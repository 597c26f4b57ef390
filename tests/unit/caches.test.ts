// Package caches that workers share, on a fake engine.

import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  findLeftovers,
  type PruneOptions,
  removeLeftovers,
} from "../../lib/doctor/prune.ts";
import { readSettings } from "../../lib/instance/config.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import type { CacheKind } from "../../lib/instance/settings.ts";
import { storageStatus } from "../../lib/instance/storage.ts";
import { claimRequest } from "../../lib/pool/client.ts";
import { fit } from "../../lib/pool/fit.ts";
import { createWarm, warmRecipe } from "../../lib/pool/warm.ts";
import { readySession } from "../../lib/session/open.ts";
import { checkOpening, type OpenRequest } from "../../lib/session/opening.ts";
import { removeSession, stopSession } from "../../lib/session/session.ts";
import { readyCaches } from "../../lib/worker/caches.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("caches");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

function choose({ instance }: FakeInstance, ...kinds: CacheKind[]): void {
  Object.assign(instance.settings, { WORKER_CACHES: kinds });
}

async function open(
  { instance, project, log }: FakeInstance,
  change: Partial<OpenRequest> = {},
) {
  const request: OpenRequest = {
    directory: project("app"),
    cwd: "/",
    name: "mine",
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: [],
    approveConfig: () => Promise.resolve(false),
    env: {},
    ...change,
  };
  const opening = await checkOpening(instance, request, log);
  return await readySession(instance, opening, request, log);
}

/** Volumes and variables of a container that are of caches. */
function cachesOf({ engine }: FakeInstance, name: string) {
  const { HostConfig, Env = [] } = engine.find(name)?.spec ?? {};
  return {
    volumes: (HostConfig?.Mounts ?? [])
      .filter(({ Source }) => Source?.startsWith("fake-cache-"))
      .map(({ Source, Target }) => `${Source}:${Target}`),
    variables: Env.filter((text) => /^(npm_|PIP_|MAVEN_)/.test(text)),
  };
}

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string; hint?: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("WORKER_CACHES has names of package managers, or none", () => {
  const read = (text: string) =>
    readSettings({ HAL9000_HOME: "/none", WORKER_CACHES: text }, {})
      .WORKER_CACHES;
  assert.equal(read("none"), []);
  assert.equal(read("pip, npm npm"), ["npm", "pip"]);
  assert.throws(
    () => read("npm cargo"),
    /WORKER_CACHES must be none, or names of npm, pip, maven, got "npm cargo"/,
  );
});

test("workers share no cache by default, and nothing is made for one", async (fake) => {
  const { instance, engine } = fake;
  await open(fake);
  assert.equal(cachesOf(fake, "mine"), { volumes: [], variables: [] });
  const { caches, cache } = instance.home;
  assert.not(existsSync(cache("npm")));
  assert.ok(existsSync(caches));
  assert.not([...engine.volumes.keys()].some((name) => /cache/.test(name)));
});

test("workers get the chosen caches as volumes of the instance that their user owns", async (fake) => {
  const { instance, engine } = fake;
  const { home, hostHome, owner } = instance;
  choose(fake, "npm", "pip", "maven");
  await open(fake);
  assert.equal(cachesOf(fake, "mine"), {
    volumes: [
      "fake-cache-npm:/home/claude/_cacache",
      "fake-cache-pip:/home/claude/http-v2",
      "fake-cache-maven:/cache/maven",
    ],
    variables: [
      "npm_config_cache=/home/claude",
      "PIP_CACHE_DIR=/home/claude",
      "MAVEN_ARGS=-Dmaven.repo.local=/cache/maven " +
      "-Daether.syncContext.named.factory=file-lock " +
      "-Daether.syncContext.named.nameMapper=file-gav",
    ],
  });
  const volume = engine.volumes.get("fake-cache-npm") as {
    Labels: Record<string, string>;
    DriverOpts: object;
  };
  assert.is(volume.Labels["hal9000.instance"], "fake");
  const device = hostHome.cache("npm");
  assert.equal(volume.DriverOpts, { type: "none", o: "bind", device });
  const { uid, mode } = statSync(home.cache("npm"));
  assert.equal([uid, mode & 0o777], [owner.uid, 0o700]);
});

test("a worker of another user gets none, with a notice", async (fake) => {
  const { instance, told, log } = fake;
  const { uid, gid } = instance.owner;
  choose(fake, "npm");
  assert.equal(await readyCaches(instance, { uid: uid + 1, gid }, log), []);
  assert.match(told.join(), "Without package caches: the project belongs to");
  assert.not(existsSync(instance.home.cache("npm")));
});

test("a claim gets a warm worker with the same caches, and no other", async (fake) => {
  const { instance, project, log } = fake;
  const network = { mode: "container:fake-net", since: "now" };
  const recipeOf = async (...kinds: CacheKind[]) => {
    choose(fake, ...kinds);
    const recipe = await warmRecipe(instance, "repo:worker", network, log);
    return recipe ?? assert.unreachable() as never;
  };
  const requestOf = (...kinds: CacheKind[]) => {
    choose(fake, ...kinds);
    const request = { directory: project("app"), cwd: "/", name: "mine" };
    const id = "00000000-0000-0000-0000-000000000000";
    return {
      op: "claim" as const,
      id,
      ...claimRequest(instance.settings, request),
    };
  };
  const [none, npm] = [await recipeOf(), await recipeOf("npm")];
  assert.is.not(none.inputs, npm.inputs);
  const { name } = await createWarm(instance, npm);
  assert.equal(cachesOf(fake, name).volumes, [
    "fake-cache-npm:/home/claude/_cacache",
  ]);
  for (
    const [asked, recipe, fits] of [
      [[], none, true],
      [["npm"], npm, true],
      [["npm"], none, false],
      [[], npm, false],
      [["npm", "pip"], npm, false],
    ] as const
  ) {
    const tried = await fit(instance, requestOf(...asked), recipe)
      .catch((error) => error);
    assert.is(tried.message, fits ? undefined : "other package caches");
  }
});

test("a session keeps the caches that were chosen for it", async (fake) => {
  const { instance, log } = fake;
  choose(fake, "npm");
  await open(fake, { caches: [] });
  assert.equal(readSession(instance, "mine")?.caches, []);
  assert.equal(cachesOf(fake, "mine").volumes, []);
  await stopSession(instance, "mine", log);
  await open(fake);
  assert.equal(cachesOf(fake, "mine").volumes, []);
  // One that runs with others is not used.
  await open(fake, { name: "other" });
  const failure = await failureOf(open(fake, { name: "other", caches: [] }));
  assert.is(failure.message, '"other" shares package caches: npm');
  await open(fake, { name: "other", caches: ["npm", "pip"] });
  await removeSession(instance, "other", log);
});

test("prune shows the caches, and with --caches removes those that no container uses", async (fake) => {
  const { instance, engine, told, log } = fake;
  const { home } = instance;
  engine.images.clear();
  const options: PruneOptions = {
    olderThanMs: 0,
    sessions: false,
    caches: true,
    allInstances: false,
  };
  const find = async (caches: boolean) =>
    (await findLeftovers(instance, { ...options, caches }, log))
      .filter(({ kind }) => kind === "cache");
  choose(fake, "npm", "pip");
  engine.images.set("repo:worker", { Id: "id" });
  await open(fake);
  assert.equal(await find(true), []); // both are empty
  writeFileSync(join(home.cache("npm"), "package"), "x".repeat(2e6));
  mkdirSync(join(home.cache("pip"), "package"));
  assert.equal(await find(true), []);
  assert.match(
    told.join("\n"),
    /^Kept: the package cache of npm, 2\.0 MB: used by mine$/m,
  );
  assert.equal(
    (await storageStatus(instance)).volumes.map(({ name }) => name).slice(3),
    ["fake-cache-npm", "fake-cache-pip"],
  );
  await stopSession(instance, "mine", log);
  assert.equal(await find(false), []);
  assert.match(told.at(-2) ?? "", /of npm, 2\.0 MB: --caches removes it$/);
  const found = await find(true);
  assert.equal(found.map(({ name }) => name), ["npm", "pip"]);
  // The engine keeps a volume that has come into use.
  engine.refuses.set("rm volume fake-cache-pip", 409);
  const { removed, errors } = await removeLeftovers(
    instance,
    found,
    options,
    log,
  );
  assert.equal(removed.map(({ name }) => name), ["npm"]);
  assert.equal(errors, ["Cannot remove cache pip: refused"]);
  assert.not(existsSync(home.cache("npm")));
  assert.ok(existsSync(home.cache("pip")));
  assert.not(engine.volumes.has("fake-cache-npm"));
});

test.run();
