import { instanceNames } from "../../lib/instance/labels.ts";
import {
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readSettings } from "../../lib/instance/config.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureDirectory, ownerOf } from "../../lib/std/owned.ts";
import { checkWorkerName } from "../../lib/worker/name.ts";
import { checkVariable, workerSpec } from "../../lib/worker/spec.ts";
import {
  ensureAccounts,
  prepareWorkerHome,
} from "../../lib/home/worker-home.ts";

const test = suite("worker");

const request = {
  prefix: "hal9000",
  home: "/h",
  user: { uid: 1000, gid: 1001 },
  project: "/home/dave/app",
  image: "repo:worker",
  network: "container:abc",
  seccomp: "{}",
  limits: { memoryBytes: 4 * 1024 ** 3, cpus: 1.5, pids: 100 },
  sources: {
    claudeHome: "/h/workers/discovery",
    claudeConfig: "/h/config/claude",
    credentials: "/h/run/credentials",
    plugins: "hal9000-plugins",
    accounts: "/h/run/accounts/1000-1001",
    netFiles: "/h/run/net",
  },
  env: [],
  mounts: [],
  caches: [],
  command: undefined,
  terminal: false,
  keep: false,
  relay: false,
};

test("workerSpec() refuses the uid of a service", () => {
  for (const uid of [65430, 65431]) {
    assert.throws(
      () => workerSpec({ ...request, user: { uid, gid: 1001 } }),
      /belongs to user 6543\d, which HAL-9000's services run as/,
    );
  }
});

test("workerSpec() runs as the project's owner in a hardened container", () => {
  const bind = (Source: string, Target: string, ReadOnly: boolean) => ({
    Type: "bind",
    Source,
    Target,
    ReadOnly,
  });
  assert.equal(workerSpec(request), {
    Image: "repo:worker",
    User: "1000:1001",
    WorkingDir: "/workspace",
    Env: ["HOME=/home/claude", "CLAUDE_CONFIG_DIR=/home/claude/.claude"],
    Entrypoint: ["sleep"],
    Cmd: ["infinity"],
    Tty: false,
    OpenStdin: false,
    StdinOnce: false,
    Labels: {
      "hal9000.instance": "hal9000",
      "hal9000.role": "worker",
      "hal9000.home": "/h",
      "hal9000.born": "cold",
      "hal9000.project": "/home/dave/app",
    },
    HostConfig: {
      Init: true,
      NetworkMode: "container:abc",
      Memory: 4294967296,
      MemorySwap: 4294967296,
      NanoCpus: 1500000000,
      PidsLimit: 100,
      Ulimits: [
        { Name: "sigpending", Soft: 4096, Hard: 4096 },
        { Name: "msgqueue", Soft: 0, Hard: 0 },
      ],
      CpuShares: 256,
      OomScoreAdj: 500,
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges", "seccomp={}"],
      LogConfig: {
        Type: "json-file",
        Config: { "max-size": "10m", "max-file": "3" },
      },
      Mounts: [
        bind("/home/dave/app", "/workspace", false),
        bind("/h/workers/discovery", "/home/claude/.claude", false),
        bind("/h/config/claude", "/config/claude", true),
        bind("/h/run/credentials", "/run/hal9000/credentials", true),
        {
          Type: "volume",
          Source: "hal9000-plugins",
          Target: "/run/hal9000/plugins",
          ReadOnly: true,
          VolumeOptions: {
            NoCopy: true,
            Labels: {},
            DriverConfig: { Name: "", Options: {} },
          },
        },
        bind("/h/run/accounts/1000-1001/passwd", "/etc/passwd", true),
        bind("/h/run/accounts/1000-1001/group", "/etc/group", true),
        bind("/h/run/net/hosts", "/etc/hosts", true),
        bind("/h/run/net/resolv.conf", "/etc/resolv.conf", true),
        bind("/h/run/net/hostname", "/etc/hostname", true),
      ],
    },
  });
});

test("workerSpec() omits limits that are not set", () => {
  const { HostConfig } = workerSpec({ ...request, limits: null });
  for (const key of ["Memory", "MemorySwap", "NanoCpus", "PidsLimit"]) {
    assert.not.ok(key in (HostConfig ?? {}), key);
  }
  assert.equal(HostConfig?.CapDrop, ["ALL"]);
});

test("workerSpec() uses the engine's seccomp profile and files by default", () => {
  const { netFiles: _, ...sources } = request.sources;
  const { HostConfig } = workerSpec({
    ...request,
    sources,
    seccomp: undefined,
  });
  assert.equal(HostConfig?.SecurityOpt, ["no-new-privileges"]);
  assert.not(
    HostConfig?.Mounts?.some(({ Target }) => Target === "/etc/hosts"),
  );
});

test("with the relay, an isolated worker resolves the API to its own localhost", () => {
  const { netFiles: _, ...sources } = request.sources;
  const spec = workerSpec({
    ...request,
    sources,
    network: "none",
    relay: true,
  });
  assert.equal(spec.HostConfig?.ExtraHosts, ["api.anthropic.com:127.0.0.1"]);
  // Other programs than the session's Claude reach it by the egress proxy.
  assert.ok(spec.Env?.includes("NO_PROXY=localhost,127.0.0.1,::1,[::1]"));
  assert.is(spec.Labels?.["hal9000.relay"], "true");
});

test("with the relay, a worker of the shared network has a hosts file for it", () => {
  const hosts = (relay: boolean) =>
    workerSpec({ ...request, relay }).HostConfig?.Mounts
      ?.find(({ Target }) => Target === "/etc/hosts")?.Source;
  assert.is(hosts(true), "/h/run/net/hosts.relay");
  assert.is(hosts(false), "/h/run/net/hosts");
  const spec = workerSpec({ ...request, relay: true });
  assert.is(spec.HostConfig?.ExtraHosts, undefined);
});

test("workerSpec() includes additional requested options", () => {
  const spec = workerSpec({
    ...request,
    env: ["A=b"],
    mounts: [{ source: "/data", target: "/data", readOnly: true }],
    sources: { ...request.sources, secrets: "/h/secrets/workers/x-1" },
    command: ["make", "test"],
    terminal: true,
    keep: true,
  });
  assert.ok(spec.Env?.includes("A=b"));
  assert.equal(spec.Cmd, ["make", "test"]);
  assert.is(spec.Tty, true);
  assert.is(spec.Labels?.["hal9000.keep"], "true");
  const targets = spec.HostConfig?.Mounts?.slice(-2)
    .map(({ Target, ReadOnly }) => [Target, ReadOnly]);
  assert.equal(targets, [["/run/secrets", true], ["/data", true]]);
});

const names = instanceNames("hal9000");

test("checkVariable() refuses variables that a worker depends on", () => {
  assert.is(checkVariable("A_1=x=y"), "A_1=x=y");
  assert.is(checkVariable("A="), "A=");
  for (const key of ["HOME", "PATH", "CLAUDE_CONFIG_DIR"]) {
    assert.throws(
      () => checkVariable(`${key}=x`),
      RegExp(`--env cannot set ${key}: the worker needs its own value`),
    );
  }
  for (const text of ["A", "1A=x", "=x", "A-B=x", ""]) {
    assert.throws(() => checkVariable(text), /--env must be KEY=VALUE/);
  }
});

test("checkWorkerName() refuses names reserved by the instance", () => {
  assert.throws(
    () => checkWorkerName("hal9000-net", names),
    /is reserved/,
  );
  assert.throws(
    () => checkWorkerName("hal9000-worker-0123abcd", names),
    /is reserved/,
  );
});

for (const name of ["ab", "my-worker", "A.b_c-9", "x".repeat(63)]) {
  test(`checkWorkerName() accepts ${name}`, () => {
    assert.is(checkWorkerName(name, names), name);
  });
}

for (
  const name of ["", "007", 7, "a b", "../x", "-x", "é", "x".repeat(64), true]
) {
  test(`checkWorkerName() refuses ${name}`, () => {
    assert.throws(
      () => checkWorkerName(name, names),
      /Invalid name/,
    );
  });
}

test("prepareWorkerHome() uses separate homes for the same name in other projects", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-worker-"));
  const owner = ownerOf(root);
  const home = homePaths(root);
  for (const path of [home.workers, home.run, join(home.run, "accounts")]) {
    ensureDirectory(path, 0o700, owner);
  }
  const hostHome = homePaths("/on/the/host");
  const settings = readSettings({ HAL9000_HOME: root });
  const instance = { home, hostHome, owner, names, settings };
  const prepare = (path: string) =>
    prepareWorkerHome(instance, { name: "x", user: owner }, {
      path,
      ...owner,
    });
  const one = prepare("/one");
  assert.is.not(one.home, prepare("/two").home);
  assert.is(one.home, prepare("/one").home);
  assert.is(one.sources.claudeHome, `/on/the/host/${one.home}`);
  const made = join(root, one.home);
  assert.is(statSync(made).mode & 0o777, 0o700);
  const state = JSON.parse(readFileSync(join(made, ".claude.json"), "utf8"));
  assert.is(state.projects["/workspace"].hasTrustDialogAccepted, false);
  rmSync(root, { recursive: true });
});

function homeFor(root: string) {
  const owner = ownerOf(root);
  const home = homePaths(root);
  for (const path of [home.workers, home.claude, home.run]) {
    ensureDirectory(path, 0o700, owner);
  }
  ensureDirectory(join(home.run, "accounts"), 0o700, owner);
  const settings = readSettings({ HAL9000_HOME: root });
  return { home, hostHome: home, owner, names, settings };
}

const trusted = (directory: string) =>
  JSON.parse(readFileSync(join(directory, ".claude.json"), "utf8"))
    .projects["/workspace"].hasTrustDialogAccepted;

test("prepareWorkerHome() skips first-run prompts, and keeps a session's state", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-worker-"));
  const instance = homeFor(root);
  const project = { path: "/one", ...instance.owner };
  const prepare = () =>
    prepareWorkerHome(
      instance,
      { name: "x", session: "talk", user: project },
      project,
    );
  const first = prepare();
  assert.is(first.home, "claude/talk");
  assert.is(first.made, true);
  const directory = join(root, first.home);
  assert.is(trusted(directory), true);
  writeFileSync(join(directory, ".claude.json"), '{"own":1}');
  assert.is(prepare().made, false);
  const kept = readFileSync(join(directory, ".claude.json"), "utf8");
  assert.is(kept, '{"own":1}');
  // Left empty by a crash, or replaced by a link by a worker.
  writeFileSync(join(directory, ".claude.json"), "");
  prepare();
  assert.is(trusted(directory), true);
  const outside = join(root, "outside");
  writeFileSync(outside, "mine");
  rmSync(join(directory, ".claude.json"));
  symlinkSync(outside, join(directory, ".claude.json"));
  prepare();
  assert.is(readFileSync(outside, "utf8"), "mine");
  assert.is(trusted(directory), true);
  rmSync(root, { recursive: true });
});

test("a worker's user has a name, and root is called root", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-worker-"));
  const instance = homeFor(root);
  const files = (uid: number, gid: number) => {
    const directory = ensureAccounts(instance, { uid, gid });
    return ["passwd", "group"].map((name) =>
      readFileSync(join(directory, name), "utf8").split("\n")
    );
  };
  assert.equal(files(1000, 1001), [
    [
      "root:x:0:0:root:/root:/bin/bash",
      "claude:x:1000:1001::/home/claude:/bin/bash",
      "nobody:x:65534:65534:nobody:/:/bin/false",
      "",
    ],
    ["root:x:0:", "claude:x:1001:", "nogroup:x:65534:", ""],
  ]);
  assert.equal(files(0, 0), [
    [
      "root:x:0:0::/home/claude:/bin/bash",
      "nobody:x:65534:65534:nobody:/:/bin/false",
      "",
    ],
    ["root:x:0:", "nogroup:x:65534:", ""],
  ]);
  const path = join(instance.home.accounts(0, 0), "passwd");
  assert.is(statSync(path).mode & 0o777, 0o644);
  rmSync(root, { recursive: true });
});

test.run();
