// Doctor's checks of the parent and its services, on a fake engine.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  examineChromadb,
  examineDashboard,
  examineNetwork,
  examineNsenter,
  examineParent,
  examinePool,
  examineSockets,
} from "../../lib/doctor/daemon.ts";
import { examineRelay } from "../../lib/doctor/relay.ts";
import { gitIdentity } from "../../lib/home/git-identity.ts";
import { serveParent } from "../../lib/instance/parent-socket.ts";
import {
  type ParentState,
  writeParentState,
} from "../../lib/instance/parent-state.ts";
import type { PoolStatus } from "../../lib/pool/protocol.ts";
import { writeDesired } from "../../lib/pool/desired.ts";
import { listen } from "../../lib/std/socket-lines.ts";
import { waitFor } from "../../lib/std/wait.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("examined");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

const parentOf = ({ engine }: FakeInstance) =>
  engine.find("fake-parent") as FakeContainer;

function says(fake: FakeInstance, change: Partial<ParentState> = {}): void {
  writeParentState(fake.instance, {
    version: 1,
    container: parentOf(fake).id,
    build: "digest",
    ready: true,
    readyMs: 1,
    chromadbFault: null,
    phases: [],
    children: [],
    ...change,
  });
}

test("reports a healthy parent as ok, and any other state with a fix", async (fake) => {
  const look = () => examineParent(fake.instance, {}, "digest");
  says(fake);
  assert.is((await look()).state, "ok");
  says(fake, { build: "older" });
  const other = await look();
  assert.equal([other.state, other.mend], [
    "warn",
    "claudy upgrade",
  ]);
  says(fake, { children: [{ name: "chromadb", pid: null, restarts: 3 }] });
  assert.is((await look()).says, "down: chromadb");
  parentOf(fake).state = "paused";
  assert.is((await look()).says, "paused");
  parentOf(fake).state = "exited";
  const stopped = await look();
  assert.equal([stopped.state, stopped.says, stopped.mend], [
    "fail",
    "stopped",
    "claudy daemon start",
  ]);
});

test("reports a stopped net, and workers without a network", async (fake) => {
  const { instance, engine, labels } = fake;
  const HostConfig = { NetworkMode: "container:fake-net" };
  engine.add("w", { spec: { Labels: labels(), HostConfig } });
  assert.is((await examineNetwork(instance)).says, "1 workers in it");
  assert.is(
    (await examineNsenter(instance)).says,
    "opens 0 ports to workers; the pool is off",
  );
  engine.add("i", {
    spec: {
      Labels: { ...labels(), "hal9000.network": "isolated" },
      HostConfig: { NetworkMode: "none" },
    },
  });
  assert.is(
    (await examineNetwork(instance)).says,
    "1 workers in it, isolated: 1",
  );
  assert.is(
    (await examineNsenter(instance)).says,
    "opens 0 ports to workers; the pool is off",
  );
  const net = engine.find("fake-net") as FakeContainer;
  net.startedAt = new Date(Date.now() + 60_000).toISOString();
  const lost = await examineNetwork(instance);
  assert.equal([lost.state, lost.mend], ["warn", "claudy stop w"]);
  net.state = "paused";
  assert.is((await examineNetwork(instance)).says, "paused");
  net.state = "exited";
  const down = await examineNetwork(instance);
  assert.is(down.state, "fail");
  assert.is(
    down.says,
    "fake-net is exited; workers without a network: w",
  );
});

test("reports ChromaDB's state from the parent's check", async (fake) => {
  const { instance, engine } = fake;
  assert.is(
    (await examineChromadb(instance)).says,
    "answers on localhost:8000",
  );
  engine.run = () => ({ exitCode: 1, output: "x\nerror: it is down\n" });
  assert.is((await examineChromadb(instance)).says, "it is down");
  parentOf(fake).state = "exited";
  assert.is((await examineChromadb(instance)).mend, "claudy daemon start");
});

test("reports sockets that are missing or do not answer", async (fake) => {
  const { instance } = fake;
  const { home } = instance;
  const missing = await examineSockets(instance);
  assert.is(missing.state, "fail");
  assert.match(missing.says, `missing: ${home.parentSocket}`);
  assert.is(missing.mend, "claudy daemon restart");
  const stop = new AbortController();
  const serving = serveParent(instance, stop.signal);
  await waitFor(() => existsSync(home.parentSocket), {
    for: "the socket",
    timeoutMs: 2000,
  });
  const one = await examineSockets(instance);
  assert.not.match(one.says, home.parentSocket);
  assert.match(one.says, `missing: ${home.connectSocket}`);
  stop.abort();
  await serving;
});

const status = {
  running: true,
  unavailable: null,
  warm: [{ name: "w", id: "w", ageSeconds: 1 }],
  creating: 0,
  busy: [],
  minWarm: 1,
  maxWarm: 1,
  idleTimeout: 1,
  checkInterval: 1,
  network: "shared",
  profiles: [{ name: "base", image: "repo:worker", present: true, warm: 1 }],
  limits: { memoryBytes: 1, cpus: 1, pids: 1 },
  metrics: {
    claims: { warm: 0, cold: {} },
    latencyMs: { p50: null, p95: null, p99: null },
    creations: 0,
    failures: 0,
    lastFailure: null,
  },
} satisfies PoolStatus;

test("reports a pool as off, not answering, incomplete or ok", async (fake) => {
  const { instance } = fake;
  assert.is((await examinePool(instance)).says, "off");
  assert.is(
    (await examineNsenter(instance)).says,
    "opens 0 ports to workers; the pool is off",
  );
  writeDesired(instance, true);
  assert.is((await examinePool(instance)).state, "fail");
  assert.is((await examineNsenter(instance)).state, "fail");
  let answer: PoolStatus = status;
  const listener = await listen(
    instance.home.poolSocket,
    () => Promise.resolve(answer),
  );
  assert.is((await examinePool(instance)).says, "1 warm, 0 claimed");
  assert.is((await examineNsenter(instance)).state, "ok");
  const profile = { name: "java", image: "j", present: false, warm: 0 };
  answer = { ...status, unavailable: "no rights", profiles: [profile] };
  const missing = await examinePool(instance);
  assert.equal([missing.says, missing.mend], [
    "not built: j",
    "claudy profile build java",
  ]);
  assert.is((await examineNsenter(instance)).says, "no warm claims: no rights");
  await listener.close();
});

test("the dashboard requires a recent tmux", async (fake) => {
  const { instance, engine } = fake;
  engine.run = () => ({ exitCode: 0, output: "tmux 3.4\n" });
  assert.is((await examineDashboard(instance)).says, "tmux 3.4");
  engine.run = () => ({ exitCode: 0, output: "tmux 3.1c\n" });
  assert.is((await examineDashboard(instance)).mend, "claudy up");
  engine.run = () => ({ exitCode: 127 });
  assert.is((await examineDashboard(instance)).says, "no tmux in the parent");
  writeFileSync(instance.home.noDashboard, "");
  assert.is((await examineDashboard(instance)).says, "off");
});

function gitHost(root: string) {
  const env: NodeJS.ProcessEnv = {
    HOME: join(root, "user"),
    PATH: process.env["PATH"],
  };
  const directory = join(root, "work", "app");
  mkdirSync(join(root, "user"));
  mkdirSync(directory, { recursive: true });
  const git = (...args: string[]) =>
    spawnSync("git", args, { env, cwd: directory, encoding: "utf8" });
  git("init", "--quiet");
  const laid = join(root, "laid");
  return {
    env,
    directory,
    set: (key: string, value: string) => git("config", "--global", key, value),
    git,
    identity: (sshAgent = false) => {
      const { text = "", left } = gitIdentity({ env, directory, sshAgent });
      writeFileSync(laid, text);
      return { text, left };
    },
    /** A setting of the session. */
    get: (key: string) =>
      git("config", "--file", laid, "--get", key).stdout.trimEnd(),
  };
}

test("sessions commit as the host's git user, with any characters in the name", ({ root }) => {
  const { set, identity, get } = gitHost(root);
  assert.equal(identity(), { text: "", left: [] });
  const name = 'Dave "HAL" \\ Bowman';
  set("user.name", name);
  set("user.email", "dave@example.org");
  set("core.pager", "evil");
  const { text, left } = identity();
  assert.not.match(text, /evil/);
  assert.equal(left, []);
  assert.is(get("user.name"), name);
  assert.is(get("user.email"), "dave@example.org");
});

test("the git user is that of the project's directory", ({ root }) => {
  const { env, set, identity, get } = gitHost(root);
  set("user.email", "private@example.org");
  set(`includeIf.gitdir:${root}/work/.path`, join(root, "work.conf"));
  writeFileSync(join(root, "work.conf"), "[user]\nemail = work@example.org\n");
  identity();
  assert.is(get("user.email"), "work@example.org");
  // As in a git hook, which runs claudy for another project.
  env["GIT_DIR"] = join(root, "elsewhere");
  identity();
  assert.is(get("user.email"), "work@example.org");
});

test("commits are signed with an SSH key of the agent, or reported as unsigned", ({ root }) => {
  const { set, git, identity, get } = gitHost(root);
  set("user.name", "Dave");
  const unsigned = (sshAgent: boolean, why: RegExp) => {
    const { left } = identity(sshAgent);
    assert.is(left.length, 1);
    assert.match(left[0] ?? "", /^commit\.gpgsign: commits .* not signed/);
    assert.match(left[0] ?? "", why);
    assert.is(get("commit.gpgsign"), "");
  };
  // The project's setting is enough: it fails in the worker.
  git("config", "commit.gpgsign", "true");
  unsigned(true, /gpg\.format=ssh/);
  set("gpg.format", "ssh");
  unsigned(false, /--ssh-agent/);
  unsigned(true, /user\.signingkey is not/);
  const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA dave@example.org";
  const file = join(root, "user", "id");
  writeFileSync(file, "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n");
  set("user.signingkey", "~/id");
  unsigned(true, /user\.signingkey is not/);
  // The project's own settings name no file of the host.
  writeFileSync(`${file}.pub`, `${key}\nmore\n`);
  set("user.signingkey", "x");
  git("config", "user.signingkey", file);
  unsigned(true, /user\.signingkey is not/);
  set("user.signingkey", "~/id");
  for (const setting of ["~/id", "~/id.pub", `key::${key}`, key]) {
    set("user.signingkey", setting);
    assert.equal(identity(true).left, [], setting);
    assert.is(get("user.signingkey"), `key::${key}`);
    assert.is(get("commit.gpgsign"), "true");
    assert.is(get("gpg.format"), "ssh");
  }
  git("config", "commit.gpgsign", "false");
  assert.equal(identity(true).left, []);
  assert.is(get("commit.gpgsign"), "");
});

test("reports a relay that workers cannot reach", async (fake) => {
  const look = () => examineRelay(fake.instance);
  for (
    const [open, taken, state, text] of [
      [[], [], "warn", /no service is open/],
      [[8000], [], "fail", /started without it/],
      [[8000], [443], "warn", /port 443 .* is occupied/],
      [[8000, 443], [], "fail", /does not answer/],
    ] as const
  ) {
    says(fake, { shared: { open: [...open], taken: [...taken] } });
    const finding = await look();
    assert.is(finding.state, state);
    assert.match(finding.says, text);
  }
  Object.assign(fake.instance.settings, { HAL9000_RELAY: "off" });
  assert.is((await look()).state, "ok");
});

test.run();
