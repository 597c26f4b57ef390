// Doctor's checks of the machine and of what an instance stores, on a fake engine.

import {
  chmodSync,
  chownSync,
  mkdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { examineNetwork } from "../../lib/doctor/daemon.ts";
import {
  examineCredentials,
  examineHome,
  examineLeftovers,
  examineMounts,
  examineMove,
  examineOwner,
  examineRecords,
} from "../../lib/doctor/kept.ts";
import { judgeInotify } from "../../lib/doctor/inotify.ts";
import {
  examineCli,
  examineClock,
  examineDisk,
  examineEngine,
  examineImages,
  examineMemory,
  examineSeccomp,
  judgeMemory,
} from "../../lib/doctor/machine.ts";
import { limitsHint } from "../../lib/docker/engine-info.ts";
import { examineMcp } from "../../lib/doctor/mcp.ts";
import { fixesOf } from "../../lib/commands/doctor.ts";
import type { Check } from "../../lib/doctor/doctor.ts";
import { fail, ok, warn } from "../../lib/doctor/findings.ts";
import type { Docker } from "../../lib/docker/docker.ts";
import { workerProfileText } from "../../lib/image/seccomp.ts";
import { label } from "../../lib/instance/labels.ts";
import { writeParentState } from "../../lib/instance/parent-state.ts";
import { Journal } from "../../lib/instance/migration-journal.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { writeMigrated } from "../../lib/migration/migrated.ts";
import { listen } from "../../lib/std/socket-lines.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("doctor");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

test("an engine is fine if its API is new enough and its cgroups limit workers", async ({ engine }) => {
  const look = () => examineEngine(engine);
  assert.equal(await look(), {
    state: "ok",
    says: "28.0.0, API 1.48, cgroups 1, BuildKit",
  });
  Object.assign(engine.about, {
    CgroupVersion: "2",
    SecurityOptions: ["name=seccomp,profile=builtin", "name=rootless"],
  });
  engine.builder = "1";
  const says = "28.0.0, API 1.48, rootless, cgroups 2, no BuildKit";
  assert.is((await look()).says, says);
  Object.assign(engine.about, { SecurityOptions: ["name=userns"] });
  assert.match((await look()).says, "API 1.48, maps users, cgroups 2");
  const limits = { MemoryLimit: "memory", PidsLimit: "processes" };
  for (const [limit, what] of Object.entries(limits)) {
    Object.assign(engine.about, { [limit]: false });
    assert.equal(await look(), {
      state: "warn",
      says: `28.0.0, API 1.48, maps users, cgroups 2, no BuildKit; ` +
        `it cannot limit ${what} of containers`,
      mend: limitsHint,
    });
    Object.assign(engine.about, { [limit]: true });
  }
  engine.version.ApiVersion = "1.40";
  assert.equal(await look(), {
    state: "fail",
    says: "Cannot use engine 28.0.0: its API 1.40 is older than 1.41",
    mend: "Install Docker 20.10 or later.",
  });
  const docker = {
    listContainers: () => Promise.reject(new Error("it is asleep")),
  } as unknown as Docker;
  assert.equal(await examineEngine({ docker }), {
    state: "fail",
    says: "no engine answers: it is asleep",
    mend: "claudy up",
  });
});

test("the docker command must have an API that the engine accepts", async ({ engine, root }) => {
  const bin = join(root, "bin");
  mkdirSync(bin);
  const look = (env = {}) => examineCli(engine, { PATH: bin, ...env });
  assert.is((await look()).mend, "apt-get install docker.io");
  const docker = join(bin, "docker");
  const has = (api: string) =>
    writeFileSync(docker, `#!/bin/sh\necho 20.10.24 ${api}`, { mode: 0o755 });
  has("1.41");
  assert.equal(await look(), {
    state: "ok",
    says: "docker 20.10.24, API 1.41",
  });
  Object.assign(engine.version, { MinAPIVersion: "1.44" });
  assert.equal(await look(), {
    state: "fail",
    says: "The docker command 20.10.24 has API 1.41, " +
      "and engine 28.0.0 accepts 1.44 to 1.48",
    mend: "Install a newer one: https://docs.docker.com/engine/install/",
  });
  has("1.60");
  const { mend } = await look({ DOCKER_API_VERSION: "1.60" });
  assert.match(mend ?? "", "unset DOCKER_API_VERSION");
});

const gib = 1024 ** 3;

test("a worker should not have more memory than the engine", () => {
  const none = { workers: 0, promisedBytes: 0, engineBytes: 4 * gib };
  assert.equal(judgeMemory(none, 4 * gib), {
    state: "ok",
    says: "4 GiB on the engine, 4 GiB at most for a worker",
  });
  const less = judgeMemory({ ...none, engineBytes: 4 * gib - 1 }, 4 * gib);
  assert.is(less.state, "warn");
  assert.match(less.mend ?? "", "WORKER_MEMORY in config/hal9000.conf");
});

test("no WORKER_MEMORY is suggested for an engine without limits", async ({ instance, engine }) => {
  engine.about.MemTotal = gib;
  assert.is((await examineMemory(instance)).state, "warn");
  const without = fakeInstance();
  without.engine.about.MemTotal = gib;
  Object.assign(without.engine.about, { CgroupDriver: "none" });
  assert.equal(await examineMemory(without.instance), {
    state: "ok",
    says: "1 GiB on the engine, without limits",
  });
  without.end();
});

test("workers' limits that add up to more than the engine has are reported", async ({ instance, engine, labels }) => {
  engine.containers.length = 0;
  engine.about.MemTotal = 10 * gib;
  const worker = (name: string, Memory: number, ended = false) =>
    engine.add(name, {
      spec: { Labels: labels({}), HostConfig: { Memory } },
      ...(ended ? { state: "exited" } : {}),
    });
  worker("a", 4 * gib);
  worker("b", 6 * gib);
  worker("ended", 6 * gib, true);
  assert.is((await examineMemory(instance)).state, "ok");
  worker("c", 0);
  const { state, says } = await examineMemory(instance);
  assert.is(state, "warn");
  assert.match(says, "3 workers may use 20 GiB of 10 GiB: if all is used up");
});

test("a clock that differs from the engine's is reported, ahead or behind", async ({ engine }) => {
  const at = (skewMs: number) => {
    engine.about.SystemTime = new Date(Date.now() + skewMs).toISOString();
    return examineClock(engine);
  };
  assert.equal(await at(0), { state: "ok", says: "same as the engine's" });
  for (const skewMs of [-90_000, 100_000]) {
    const wrong = await at(skewMs);
    assert.equal([wrong.state, wrong.mend], ["warn", "set the clock"]);
    assert.match(wrong.says, "1 min off the engine's");
  }
});

test("a worker that occupies all ports is reported", async ({ instance }) => {
  const { home, owner } = instance;
  const found = (portsLeft: boolean) => {
    writeParentState({ home, owner }, {
      version: 1,
      container: "c",
      ready: true,
      readyMs: 1,
      chromadbFault: null,
      portsLeft,
      phases: [],
      children: [],
    });
    return examineNetwork(instance);
  };
  const fine = await found(true);
  const full = await found(false);
  assert.equal(fine, { state: "ok", says: "0 workers in it" });
  assert.equal(full, {
    state: "fail",
    says: "a worker occupies all ports: no worker can open a connection",
    mend:
      "find that worker and stop it: hal9000-coordinator list; claudy stop NAME",
  });
});

test("missing images are named, and the age of present ones is shown", async ({ instance, engine }) => {
  const Created = new Date(Date.now() - 5 * 3600_000).toISOString();
  for (const name of ["worker", "parent"]) {
    engine.images.set(`repo:${name}`, { Id: name, Created });
  }
  const found = await examineImages(instance);
  assert.is(found.state, "ok");
  assert.match(found.says, /^2 of \d+ in use, built 5 h ago$/);
  for (const name of ["repo:parent", "repo:worker"]) {
    engine.images.delete(name);
    assert.equal(await examineImages(instance), {
      state: "fail",
      says: `${name} is missing`,
      mend: "claudy up",
    });
  }
});

test("the test of the seccomp profile is reported", ({ instance }) => {
  const { home } = instance;
  const ours = {
    ...instance,
    settings: { ...instance.settings, WORKER_SECCOMP: "hal9000" as const },
  };
  assert.equal(examineSeccomp(ours), {
    state: "ok",
    says: "not tested yet: the next worker start tests it",
  });
  const write = (fault: string | null) =>
    writeFileSync(
      home.seccompTrial,
      JSON.stringify({
        version: 1,
        profile: workerProfileText().digest,
        engine: "x",
        fault,
      }),
    );
  write(null);
  assert.equal(examineSeccomp(ours), {
    state: "ok",
    says: "workers cannot create set-uid files",
  });
  write("it has no effect");
  assert.equal(examineSeccomp(ours), {
    state: "warn",
    says: "workers use the engine's default profile (it has no effect)",
    mend: `rm ${home.seccompTrial} && claudy daemon start`,
  });
  assert.equal(examineSeccomp(instance), {
    state: "warn",
    says:
      "workers use the engine's default profile: they can create set-uid files",
    mend: "remove WORKER_SECCOMP=engine",
  });
});

test("free disk space is shown, of / if there is no home yet", ({ instance, root }) => {
  const { home } = instance;
  assert.match(examineDisk(instance).says, `free at ${home.home}`);
  const none = { ...home, home: join(root, "none") };
  assert.match(examineDisk({ home: none }).says, /free at \/$/);
});

test("a home is fine only for its owner", ({ instance, root }) => {
  const { home, owner } = instance;
  const look = () => examineHome(instance);
  chmodSync(home.home, 0o700);
  assert.equal(look(), {
    state: "ok",
    says: `${home.home}, only accessible to its owner`,
  });
  chmodSync(home.home, 0o710);
  assert.equal(look(), {
    state: "fail",
    says: `${home.home} is open to others: 710`,
    mend: `chmod 700 ${home.home}`,
  });
  chmodSync(home.home, 0o700);
  const at = (path: string) =>
    examineHome({ home: { ...home, home: path }, owner });
  const gone = join(root, "gone");
  assert.equal(at(gone), {
    state: "warn",
    says: `${gone} does not exist yet`,
    mend: "claudy up",
  });
  writeFileSync(gone, "");
  assert.equal(at(gone), {
    state: "fail",
    says: `${gone} is not a directory`,
    mend: `mv ${gone} elsewhere`,
  });
  if (process.getuid?.() !== 0) return; // only root can change owners
  chownSync(home.claude, 12345, 12345);
  chownSync(home.logs, 12345, 12345);
  assert.equal(look(), {
    state: "fail",
    says: "owned by other users: claude, logs",
    mend: `chown -R ${owner.uid}:${owner.gid} ${home.home}`,
  });
});

test("an instance of another home is reported, with a hint that does not harm it", async ({ instance, engine }) => {
  assert.equal(await examineOwner(instance), {
    state: "ok",
    says: `instance "fake" uses ${instance.home.home}`,
  });
  const parent = engine.find("fake-parent") as FakeContainer;
  parent.spec.Labels = { ...parent.spec.Labels, [label.home]: "/other" };
  const foreign = await examineOwner(instance);
  assert.is(foreign.state, "fail");
  assert.match(foreign.says, 'Instance "fake" belongs to /other');
  assert.match(foreign.mend ?? "", "export HAL9000_PREFIX=");
  writeFileSync(instance.home.instance, "another");
  const home = await examineOwner(instance);
  assert.match(home.says, 'belongs to instance "another"');
});

test("an unfinished move, and data that was never moved, are reported", ({ instance }) => {
  const { home } = instance;
  const look = () => examineMove(instance);
  assert.equal(look(), { state: "ok", says: "no data is being moved" });
  mkdirSync(join(home.home, "plugins"));
  mkdirSync(join(home.home, "membank"));
  assert.is(look().state, "ok");
  writeFileSync(join(home.home, "membank", "x"), "");
  assert.equal(look(), {
    state: "warn",
    says: "data of version 0.5 is not in use: membank",
    mend: "hal9000-migrate --dry-run",
  });
  const shared = join(home.claude, ".shared-config");
  mkdirSync(shared);
  writeFileSync(join(shared, ".initialized"), "");
  assert.match(look().says, /membank, claude\/\.shared-config$/);
  rmSync(shared, { recursive: true });
  writeMigrated(instance, { stamp: "s", backup: null });
  assert.is(look().state, "ok");
  const journal = new Journal(instance, {
    version: 1,
    kind: "migrate",
    stamp: "20260102T030405Z",
    parts: [],
    skipBackup: false,
    keepVolumes: false,
    backup: null,
    made: [],
    steps: {},
  });
  journal.note({});
  assert.equal(look(), {
    state: "fail",
    says: "unfinished migration",
    mend: "hal9000-migrate, or hal9000-migrate --abort",
  });
  journal.note({ kind: "rollback" });
  assert.equal(look(), {
    state: "fail",
    says: "unfinished rollback",
    mend: "hal9000-rollback",
  });
});

test("the credential that a session would use is named, by precedence", ({ instance }) => {
  const { home } = instance;
  const look = (env: NodeJS.ProcessEnv = {}) =>
    examineCredentials(instance, env);
  assert.equal(look(), {
    state: "warn",
    says: "none: each session has to log in by itself",
    mend: "claudy login",
  });
  const logIn = (expiresAt: number) => {
    mkdirSync(home.login, { recursive: true });
    const claudeAiOauth = { accessToken: "a", refreshToken: "r", expiresAt };
    writeFileSync(
      join(home.login, ".credentials.json"),
      JSON.stringify({ claudeAiOauth }),
    );
  };
  logIn(Date.now() + 2 * 3600_000 + 30_000);
  assert.equal(look(), {
    state: "ok",
    says: "the instance is logged in, refreshed within 2 h",
  });
  logIn(Date.now() - 1000);
  assert.equal(look(), {
    state: "warn",
    says: "the instance is logged in, but it has expired",
    mend: "claudy daemon start, else claudy login",
  });
  writeFileSync(home.claudeToken, "token");
  assert.equal(look(), { state: "ok", says: "a token is kept" });
  const env = { ANTHROPIC_API_KEY: "key" };
  assert.equal(look(env), {
    state: "ok",
    says: "ANTHROPIC_API_KEY of the environment",
  });
  writeFileSync(home.anthropicKey, "");
  assert.is(look().says, "a token is kept");
  writeFileSync(home.anthropicKey, "key");
  assert.equal(look(env), { state: "ok", says: "a key is kept" });
});

function keep({ instance }: FakeInstance, worker: string, container: string) {
  writeRecord(instance, {
    version: 1,
    worker,
    container,
    session: null,
    project: { path: "/p", uid: 1, gid: 1 },
    image: "i",
    born: "cold",
    home: `workers/${worker}`,
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: "2026-01-02T03:04:05.000Z",
  });
}

test("records without a worker, and damaged ones, are reported", async (fake) => {
  const { instance, engine, labels } = fake;
  const worker = engine.add("here", { spec: { Labels: labels() } });
  keep(fake, "here", worker.id);
  assert.equal(await examineRecords(instance), {
    state: "ok",
    says: "1 of 1 workers",
  });
  keep(fake, "gone", "another");
  assert.equal(await examineRecords(instance), {
    state: "warn",
    says: "without a worker: gone",
    mend: "claudy daemon restart",
  });
  writeFileSync(instance.home.record("bad"), "{");
  const damaged = await examineRecords(instance);
  assert.equal([damaged.state, damaged.mend], [
    "warn",
    "none: they were moved aside",
  ]);
  assert.match(damaged.says, "bad.json is damaged");
});

test("old helpers, and workers that should be gone, are leftovers", async (fake) => {
  const { instance, engine, labels } = fake;
  const look = () => examineLeftovers(instance);
  const worker = engine.add("here", { spec: { Labels: labels() } });
  keep(fake, "here", worker.id);
  assert.equal(await look(), { state: "ok", says: "none" });
  const kept = engine.add("kept", {
    state: "exited",
    spec: { Labels: labels({ [label.keep]: "true" }) },
  });
  keep(fake, "kept", kept.id);
  assert.is((await look()).state, "ok");
  worker.state = "exited";
  engine.add("strange", { spec: { Labels: labels() } });
  assert.equal(await look(), {
    state: "warn",
    says: "workers that have ended or have no record: strange, here",
    mend: "claudy stop strange here",
  });
  const helper = (minutes: number) =>
    engine.add(`helper-${minutes}`, {
      spec: { Labels: { ...labels(), [label.role]: "helper" } },
      createdAt: new Date(Date.now() - minutes * 60_000).toISOString(),
    }).id.slice(0, 12);
  helper(59);
  assert.match((await look()).says, "no record");
  const old = helper(61);
  assert.equal(await look(), {
    state: "warn",
    says: `helpers that should have ended: ${old}`,
    mend: `docker rm --force ${old}`,
  });
});

test("nothing should be mounted below the home, as seen on the host", ({ instance }) => {
  assert.equal(examineMounts(instance), {
    state: "ok",
    says: `none below ${instance.home.home}`,
  });
  const self = {} as NonNullable<typeof instance.self>;
  assert.is(
    examineMounts({ ...instance, self }).says,
    "not seen from inside the parent",
  );
  // A terminal's file system is always mounted.
  const above = examineMounts({
    ...instance,
    home: { ...instance.home, home: "/dev" },
  });
  assert.is(above.state, "warn");
  assert.match(above.says, /^mounted: .*\/dev\/pts/);
  assert.match(above.mend ?? "", /^umount .*\/dev\/pts/);
});

test("the gateway's servers that fail are reported", async ({ instance }) => {
  const { home } = instance;
  assert.equal(await examineMcp(instance), { state: "ok", says: "off" });
  writeFileSync(home.mcpConfig, '{"mcpServers":{}}');
  assert.equal(await examineMcp(instance), {
    state: "warn",
    says: "the gateway is not running",
    mend: "claudy mcp start",
  });
  const server = (name: string, state: string, lastError: string | null) => ({
    name,
    state,
    port: 1,
    isolation: "session",
    sessions: 0,
    processes: 0,
    calls: 0,
    errors: 0,
    latencyMs: { p50: null, p99: null },
    lastError,
  });
  let servers = [server("a", "ready", null), server("b", "starting", null)];
  const gateway = await listen(
    home.mcpControl,
    () => Promise.resolve({ pid: 1, tunnels: null, servers }),
  );
  const fine = await examineMcp(instance);
  servers = [
    ...servers,
    server("c", "failing", "it exited"),
    server("d", "missing", "no program"),
  ];
  const down = await examineMcp(instance);
  await gateway.close();
  assert.equal(fine, { state: "ok", says: "2 servers of the host" });
  assert.equal(down, {
    state: "warn",
    says: "c: it exited; d: no program",
    mend: "claudy mcp doctor",
  });
  rmSync(home.mcpConfig);
});

test("the worker with most of a user's inotify instances is named from half of the limit", () => {
  const held = (id: string, uid: number | null, inotify: number) => ({
    id,
    uid,
    inotify,
    incomplete: false,
  });
  const names = new Map([["1", "one"], ["2", "two"]]);
  const judge = (...containers: ReturnType<typeof held>[]) =>
    judgeInotify({ containers, inotifyLimit: 100 }, names);
  assert.equal(judge(held("1", 5, 20), held("2", 5, 29)), {
    state: "ok",
    says: "workers hold 49 of 100 for one user",
  });
  assert.is(judge(held("1", 5, 40), held("2", 6, 40)).state, "ok");
  assert.is(
    judge(held("1", null, 100)).says,
    "workers hold 0 of 100 for one user",
  );
  const full = judge(held("1", 5, 20), held("2", 5, 30));
  assert.equal(full, {
    state: "warn",
    says: "workers hold 50 of the 100 inotify instances of uid 5, 30 of them " +
      '"two"',
    mend: "claudy stop two, or sudo sysctl fs.inotify.max_user_instances=800",
  });
  const unknown = judgeInotify(
    { containers: [held("9", 5, 9)], inotifyLimit: 0 },
    names,
  );
  assert.is(unknown.state, "ok");
});

test("each fix is named once, after all checks that need it", () => {
  const checks: Check[] = [
    { name: "home", ...warn("does not exist yet", "claudy up") },
    { name: "disk", ...ok("40 GiB free") },
    { name: "images", ...fail("missing", "claudy up") },
    { name: "credentials", ...warn("none", "claudy login") },
  ];
  assert.equal(fixesOf(checks), [
    "home, images: claudy up",
    "credentials: claudy login",
  ]);
});

test.run();
