// The commands for credentials, secrets, the daemon, storage and settings, with an engine
// that they can reach.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import {
  type ParentState,
  writeParentState,
} from "../../lib/instance/parent-state.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as initVolumes } from "../../scripts/init-volumes.ts";
import { main as migrate } from "../../scripts/migrate.ts";
import { main as rollback } from "../../scripts/rollback.ts";
import type { FakeContainer } from "../helper/fake-engine.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

const test = suite<Served>("machine commands");

test.before.each(async (context) =>
  void Object.assign(context, await serveEngine())
);
test.after.each(({ close }) => close());

const table = (text: string) =>
  text.trimEnd().split("\n").map((line) => line.split(/ {2,}/));

test("login saves a key or a token from stdin, and tells which", async ({ run, instance: { home } }) => {
  const key = `sk-ant-api03-${"x".repeat(40)}`;
  const kept = await run(claudy, ["login", "--key"], { stdin: `${key}\n` });
  assert.equal([kept.code, kept.stdout], [0, ""]);
  assert.match(kept.stderr, "The key is saved. Sessions use it from");
  assert.is(readFileSync(home.anthropicKey, "utf8"), key);
  const stdin = `sk-ant-oat01-${"y".repeat(40)}\n`;
  const token = await run(claudy, ["login", "--token"], { stdin });
  assert.match(token.stderr, "The token is saved.");
  assert.is(readFileSync(home.claudeToken, "utf8"), stdin.trim());
});

test("login refuses what cannot be a key, and keeps the former one", async ({ run, instance: { home } }) => {
  writeFileSync(home.anthropicKey, "former-key");
  const refusals: [string, string, string][] = [
    [
      "--key",
      "1234567",
      "Invalid API key\nEnter one line of 8 characters or more",
    ],
    ["--token", "two words", "Invalid token\n"],
    ["--key", "x".repeat(4097), "Invalid API key"],
    [
      "--key",
      "sk-ant-oat01-xxxxxxxx",
      "This is a token, not an API key\nStore it as a token: claudy login --token",
    ],
  ];
  for (const [option, stdin, says] of refusals) {
    const ran = await run(claudy, ["login", option], { stdin });
    assert.is(ran.code, 2);
    assert.ok(ran.stderr.includes(says), ran.stderr);
  }
  assert.is(readFileSync(home.anthropicKey, "utf8"), "former-key");
  for (const stdin of ["12345678", "x".repeat(4096)]) {
    assert.is((await run(claudy, ["login", "--key"], { stdin })).code, 0);
  }
});

test("logging in with the CLI needs a terminal", async ({ run }) => {
  const ran = await run(claudy, ["login"]);
  assert.is(ran.code, 2);
  assert.match(ran.stderr, "stdin is not a terminal");
  assert.match(ran.stderr, "claudy login --key <FILE");
});

test("logout deletes the credentials and their copies only after consent", async ({ run, instance: { home } }) => {
  const copy = join(home.claude, "one", ".anthropic_key");
  mkdirSync(join(home.claude, "one"));
  for (const path of [home.anthropicKey, home.claudeToken, copy]) {
    writeFileSync(path, "a-long-secret");
  }
  const refused = await run(claudy, ["logout"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "Delete the saved credentials?");
  assert.ok(existsSync(home.anthropicKey));
  const done = await run(claudy, ["logout", "--yes"]);
  assert.match(
    done.stderr,
    "Logged out. Running sessions that do not use the relay keep",
  );
  for (const path of [home.anthropicKey, home.claudeToken, copy]) {
    assert.not.ok(existsSync(path), path);
  }
});

test("logout deletes settings files with credentials, but not those of running sessions", async ({ run, engine, labels, instance: { home } }) => {
  const settings = ["one", "two"].map((session) => {
    mkdirSync(join(home.claude, session));
    const path = join(home.claude, session, "hal9000-settings.json");
    writeFileSync(path, '{"env":{"ANTHROPIC_AUTH_TOKEN":"planted"}}');
    return path;
  });
  engine.add("two", { spec: { Labels: labels({ [label.session]: "two" }) } });
  assert.is((await run(claudy, ["logout", "--yes"])).code, 0);
  assert.equal(settings.map((path) => existsSync(path)), [false, true]);
});

test("secrets are saved, listed by name and removed", async ({ run, instance: { home } }) => {
  const set = (argv: string[], stdin: string) =>
    run(claudy, ["secret", "set", ...argv], { stdin });
  const saved = await set(["TOKEN_B", "--env"], "value\n");
  assert.match(saved.stderr, "TOKEN_B is saved. Sessions use it from");
  await set(["file_a"], "other");
  const { stdout } = await run(claudy, ["secret", "list"]);
  assert.equal(table(stdout), [
    ["NAME", "AS", "HOST"],
    ["TOKEN_B", "file and variable"],
    ["file_a", "file"],
  ]);
  const json = await run(claudy, ["secret", "list", "--json"]);
  assert.equal(JSON.parse(json.stdout), [
    { name: "TOKEN_B", variable: true },
    { name: "file_a", variable: false },
  ]);
  const path = join(home.namedSecrets, "TOKEN_B.env");
  assert.is(readFileSync(path, "utf8"), "value");
  // Without --env it is no longer a variable.
  await set(["TOKEN_B"], "value");
  assert.not.ok(existsSync(path));
  const asked = await run(claudy, ["secret", "rm", "TOKEN_B"]);
  assert.is(asked.code, 6);
  assert.match(asked.stderr, "Remove secret TOKEN_B?");
  assert.is((await run(claudy, ["secret", "rm", "TOKEN_B", "--yes"])).code, 0);
  const gone = await run(claudy, ["secret", "rm", "TOKEN_B", "--yes"]);
  assert.is(gone.code, 4);
  assert.match(
    gone.stderr,
    "There is no secret TOKEN_B\nList them: claudy secret list\n",
  );
  await set(["TOKEN_B"], "value");
  const rest = await run(claudy, ["secret", "rm", "NONE", "TOKEN_B", "--yes"]);
  assert.equal([rest.code, rest.stdout], [8, "TOKEN_B\n"]);
  assert.match(rest.stderr, "error: There is no secret NONE\n");
});

test("a secret for a host is saved with its host, and never printed", async ({ run, instance: { home } }) => {
  const set = (argv: string[], stdin = "real-value\n") =>
    run(claudy, ["secret", "set", ...argv], { stdin });
  const saved = await set(["A", "--env", "--host", "API.github.com."]);
  assert.is(saved.code, 0, saved.stderr);
  assert.not.match(saved.stderr, "warning");
  await set(["B"], "plain");
  const other = await set(["B", "--host", "git.example", "--user", "me"]);
  assert.match(
    other.stderr,
    "warning: Egress to git.example:443 is refused: no rule allows it",
  );
  const shown = await run(claudy, ["secret", "list"]);
  assert.equal(table(shown.stdout), [
    ["NAME", "AS", "HOST"],
    ["A", "file and variable", "api.github.com (Authorization)"],
    ["B", "file", "git.example (Authorization)"],
  ]);
  const json = await run(claudy, ["secret", "list", "--json"]);
  const header = "Authorization";
  assert.equal(JSON.parse(json.stdout), [
    {
      name: "A",
      variable: true,
      host: "api.github.com",
      header,
      format: "Bearer %s",
      user: null,
    },
    {
      name: "B",
      variable: false,
      host: "git.example",
      header,
      format: "Basic %s",
      user: "me",
    },
  ]);
  assert.equal(readdirSync(home.namedSecrets).sort(), ["A.host", "B.host"]);
  const path = join(home.namedSecrets, "A.host");
  assert.is(statSync(path).mode & 0o777, 0o600);
  const taken = await set(["C", "--host", "api.github.com"]);
  assert.is(taken.code, 5);
  assert.match(taken.stderr, "A is already sent to api.github.com as Auth");
  const refused: [string[], string][] = [
    [["--header", "X-Key"], "--header only applies with --host"],
    [["--host", "10.0.0.5"], 'Not the name of a host: "10.0.0.5"'],
    [["--host", "api.github.com:443"], "Not the name of a host"],
    [["--host", "*.github.com"], "Not the name of a host"],
    [["--host", "localhost"], "Not the name of a host"],
    [["--host", "api.anthropic.com"], "api.anthropic.com needs no named"],
    [["--host", "a.example", "--header", "Host"], "cannot be the header"],
    [["--host", "a.example", "--header", "a b"], "cannot be the header"],
    [["--host", "a.example", "--format", "Bearer"], 'Not a format: "Bearer"'],
    [["--host", "a.example", "--format", "%s\r\nX: %s"], "Not a format"],
    [["--host", "a.example", "--user", "a:b"], 'Not a user name: "a:b"'],
  ];
  for (const [argv, message] of refused) {
    const { code, stderr } = await set(["C", ...argv]);
    assert.is(code, 2, stderr);
    assert.match(stderr, message);
  }
  const lines = await set(["C", "--host", "a.example"], "real-value\nX: y");
  assert.is(lines.code, 2);
  for (const { stdout, stderr } of [saved, other, shown, json, taken, lines]) {
    assert.not.match(stdout + stderr, "real-value");
  }
  assert.is((await run(claudy, ["secret", "rm", "A", "B", "--yes"])).code, 0);
  assert.equal(readdirSync(home.namedSecrets), []);
});

test("a secret needs a value and a name that does not change how programs run", async ({ run }) => {
  const refusals: [string[], string, string][] = [
    [["A"], "", "Cannot save A: the value is empty"],
    [["1A"], "x", 'Invalid secret name "1A"\nUse letters, digits'],
    [["a/b"], "x", 'Invalid secret name "a/b"'],
    ...["HOME", "PATH", "LD_PRELOAD", "BASH_ENV", "CLAUDE_CONFIG_DIR"].map(
      (name): [string[], string, string] => [
        [name, "--env"],
        "x",
        `Cannot set ${name} from a secret: this variable changes how`,
      ],
    ),
  ];
  for (const [argv, stdin, says] of refusals) {
    const ran = await run(claudy, ["secret", "set", ...argv], { stdin });
    assert.is(ran.code, 2, argv.join());
    assert.ok(ran.stderr.includes(says), ran.stderr);
  }
  const file = await run(claudy, ["secret", "set", "PATH"], { stdin: "x" });
  assert.is(file.code, 0);
});

function parentSays(
  { instance, engine }: Served,
  change: Partial<ParentState>,
): FakeContainer {
  const parent = engine.find("fake-parent") as FakeContainer;
  writeParentState(instance, {
    version: 1,
    container: parent.id,
    build: "older",
    ready: true,
    readyMs: 1500,
    chromadbFault: null,
    phases: [{ name: "volumes", ms: 500 }, { name: "net", ms: 1000 }],
    children: [
      { name: "chromadb", pid: 12, restarts: 0 },
      { name: "pool", pid: null, restarts: 3 },
    ],
    ...change,
  });
  return parent;
}

test("daemon status shows what the parent reports about its services", async (served) => {
  const { run, engine, labels } = served;
  const parent = parentSays(served, {});
  parent.spec.Image = "repo:parent";
  parent.startedAt = new Date(Date.now() - 90_000).toISOString();
  engine.volumes.set("fake-plugins", { Name: "fake-plugins" });
  const net = engine.find("fake-net") as FakeContainer;
  net.spec.HostConfig = {
    PortBindings: { "3000/tcp": [{ HostIp: "127.0.0.1", HostPort: "3001" }] },
  };
  engine.add("w", { spec: { Labels: labels() } });
  engine.add("ended", { spec: { Labels: labels() }, state: "exited" });
  const status = async () =>
    Object.fromEntries(
      table((await run(claudy, ["daemon", "status"])).stdout),
    );
  const shown = await status();
  assert.is(shown["Parent"], "running");
  assert.is(shown["Image"], "repo:parent");
  assert.match(shown["Build"] ?? "", /^older \(this command: \w+\)$/);
  assert.match(shown["Uptime"] ?? "", /^9\d\.\d s$/);
  assert.is(shown["Ready after"], "1.5 s: volumes 500 ms, net 1.0 s");
  assert.is(shown["ChromaDB"], "answers");
  assert.is(shown["Child chromadb"], "pid 12, restarts: 0");
  assert.is(shown["Child pool"], "down, restarts: 3");
  assert.is(shown["Workers"], "1");
  assert.is(shown["Volumes"], "fake-plugins");
  assert.is(shown["Published"], "127.0.0.1:3001 -> 3000/tcp");
  parentSays(served, { chromadbFault: "it is starting", readyMs: null });
  const waiting = await status();
  assert.is(waiting["ChromaDB"], "does not answer: it is starting");
  assert.is(waiting["Ready after"], "not yet");
  parentSays(served, { container: "another" });
  assert.is((await status())["ChromaDB"], "unknown");
  parent.state = "paused";
  assert.is((await status())["Parent"], "paused");
  parent.state = "exited";
  const stopped = await status();
  assert.is(stopped["Parent"], "stopped");
  assert.is(stopped["Uptime"], "none");
  engine.containers.splice(0);
  const absent = await run(claudy, ["daemon", "status", "--json"]);
  assert.is(JSON.parse(absent.stdout).parent, "absent");
});

test("daemon start --network saves it, and restarts a parent of another network", async (served) => {
  const { run, engine, instance } = served;
  // As the parent does at its start.
  const starts: string[] = [];
  engine.started = ({ name, spec }) => {
    if (name !== "fake-parent") return;
    const env = spec.Env?.find((one) => one.startsWith("WORKER_NETWORK="));
    starts.push(env ?? "");
    const text = readFileSync(instance.home.conf, "utf8");
    const set = /^WORKER_NETWORK=(isolated|shared)$/m.exec(text)?.[1];
    parentSays(served, {
      network: (env?.split("=")[1] ?? set) as ParentState["network"],
    });
  };
  const start = (...network: string[]) =>
    run(claudy, ["daemon", "start", ...network, "--json"], {
      env: { WORKER_NETWORK: "shared" },
    });
  const first = await start();
  assert.is(first.code, 0, first.stderr);
  starts.splice(0);
  const isolated = await start("--network", "isolated");
  assert.is(isolated.code, 0, isolated.stderr);
  assert.match(isolated.stderr, "Restarting the parent: WORKER_NETWORK has");
  assert.match(isolated.stderr, "warning: WORKER_NETWORK=shared in your");
  assert.is(JSON.parse(isolated.stdout).network, "isolated");
  // The variable would override the file.
  assert.equal(starts, [""]);
  assert.match(
    readFileSync(instance.home.conf, "utf8"),
    /^WORKER_NETWORK=isolated$/m,
  );
  await start("--network", "isolated");
  assert.is(starts.length, 1, "the parent has it already");
  const status = table((await run(claudy, ["daemon", "status"])).stdout);
  assert.match(Object.fromEntries(status)["Network"], /^isolated, unless/);
  const wrong = await start("--network", "none");
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, '--network must be "shared" or "isolated"');
});

test("daemon stop removes the parent and leaves workers and their network", async (served) => {
  const { run, engine, labels } = served;
  engine.add("w", { spec: { Labels: labels() } });
  const ran = await run(claudy, ["daemon", "stop", "--json"]);
  assert.is(ran.code, 0, ran.stderr);
  assert.match(ran.stderr, "Parent stopped");
  assert.equal(engine.names(), ["fake-net", "w"]);
  assert.is(JSON.parse(ran.stdout).parent, "absent");
  const logs = await run(claudy, ["daemon", "logs"]);
  assert.is(logs.code, 4);
  assert.match(logs.stderr, 'There is no container "fake-parent"');
});

test("a command is refused for an instance of another home, and a view only warns", async (served) => {
  const { run, engine } = served;
  const parent = engine.find("fake-parent") as FakeContainer;
  parent.spec.Labels = { ...parent.spec.Labels, [label.home]: "/other/home" };
  const refused = await run(claudy, ["daemon", "stop"]);
  assert.is(refused.code, 5);
  assert.match(refused.stderr, 'error: Instance "fake" belongs to /other/home');
  assert.ok(engine.find("fake-parent"));
  const viewed = await run(claudy, ["daemon", "status"]);
  assert.is(viewed.code, 0);
  assert.match(viewed.stderr, 'warning: Instance "fake" belongs to');
});

test("ports open needs a running parent", async ({ run, engine }) => {
  (engine.find("fake-parent") as FakeContainer).state = "exited";
  const ran = await run(claudy, ["ports", "open", "3000"]);
  assert.is(ran.code, 4);
  assert.match(ran.stderr, "The parent is not running");
  assert.match(ran.stderr, "claudy daemon start");
});

test("ports lists listeners with their process, and the ranges of sessions", async (served) => {
  const { run, engine, labels } = served;
  const one = engine.add("one", { spec: { Labels: labels() } });
  const listening = [
    { port: 4000, address: "0.0.0.0", container: null, process: null },
    { port: 3000, address: "::", container: one.id, process: "node" },
  ].map((socket) => ({ ...socket, network: null }));
  const containers = [
    { id: one.id, uid: 1, inotify: 0, incomplete: true },
  ];
  let request = "";
  engine.print = (command) => {
    request = command.at(-1) ?? "";
    return JSON.stringify({ listening, containers, inotifyLimit: 0 });
  };
  const ran = await run(claudy, ["ports"]);
  assert.is(ran.code, 0, ran.stderr);
  const [ports = "", ranges = "", incomplete = ""] = ran.stdout.split("\n\n");
  assert.equal(table(ports), [
    ["PORT", "AT", "CONTAINER", "PROCESS"],
    ["3000", "::", "one", "node"],
    ["4000", "0.0.0.0", "unknown"],
  ]);
  assert.equal(table(ranges), [["RANGE", "SESSION"]]);
  assert.match(incomplete, /^one has too many open files/);
  const { netPid, containers: asked } = JSON.parse(request);
  assert.is(netPid, 4242);
  const parent = engine.find("fake-parent") as FakeContainer;
  const pid = 4242;
  const isolated = false;
  assert.equal(asked, [
    { id: parent.id, pid, isolated },
    { id: one.id, pid, isolated },
  ]);
  // The helper is gone.
  assert.equal(engine.names(), ["fake-net", "fake-parent", "one"]);
  const open = await run(claudy, ["ports", "open", "4000"]);
  assert.is(open.code, 6);
  assert.match(open.stderr, "Cannot determine which process listens");
  assert.match(open.stderr, "--allow-other");
});

test("doctor prints each check with its sign, and the fix of each fault", async ({ run, instance, engine }) => {
  engine.about.SystemTime = new Date().toISOString();
  for (const name of ["worker", "parent"]) {
    const Created = new Date(Date.now() - 3 * 86_400_000).toISOString();
    engine.images.set(`repo:${name}`, { Id: name, Created });
  }
  const ran = await run(claudy, ["doctor"]);
  assert.is(ran.code, 1);
  const lines = ran.stdout.trimEnd().split("\n");
  const rows = new Map(
    lines.map((line) => {
      const [, sign, name, says = ""] =
        /^(ok|warn|FAIL) +(\S+) +(.*)$/.exec(line) ?? [];
      return [name, [sign, says] as const];
    }),
  );
  const signOf = (name: string) => rows.get(name)?.[0];
  for (
    const name of [
      ...["engine", "owner", "home", "move", "memory", "clock", "images"],
      ...["network", "parent", "chromadb", "pool", "nsenter", "mcp"],
      ...["records", "leftovers", "inotify", "mounts"],
    ]
  ) {
    assert.is(signOf(name), "ok", `${name}: ${rows.get(name)?.[1]}`);
  }
  assert.match(rows.get("engine")?.[1] ?? "", /^28\.0\.0, API 1\.48, cgroups/);
  assert.match(rows.get("images")?.[1] ?? "", "built 3 days ago");
  assert.is(signOf("seccomp"), "warn");
  assert.is(signOf("sockets"), "FAIL");
  assert.is(signOf("egress"), "FAIL");
  assert.ok(
    lines.includes("sockets, egress: claudy daemon restart"),
    ran.stdout,
  );
  assert.ok(lines.includes("credentials: claudy login"));
  const { names } = instance;
  // For a foreign instance, only the machine is checked.
  const parent = engine.find(names.parent) as FakeContainer;
  parent.spec.Labels = { ...parent.spec.Labels, [label.home]: "/other" };
  const foreign = await run(claudy, ["doctor", "--json"]);
  const checks = JSON.parse(foreign.stdout) as { name: string }[];
  assert.equal(checks.map(({ name }) => name), [
    ...["engine", "cli", "owner", "disk", "memory", "clock", "images"],
  ]);
});

test("doctor names a parent that does not run once, and skips its services", async ({ run, engine }) => {
  const names = async () => {
    const ran = await run(claudy, ["doctor", "--json"]);
    const checks = JSON.parse(ran.stdout) as { name: string; state: string }[];
    return checks.filter(({ name, state }) =>
      state === "fail" ||
      ["chromadb", "sockets", "egress", "pool", "nsenter", "dashboard"]
        .includes(name)
    ).map(({ name }) => name).join(" ");
  };
  assert.match(await names(), /chromadb sockets egress pool nsenter dashboard/);
  const parent = engine.find("fake-parent") as FakeContainer;
  parent.state = "exited";
  assert.is(await names(), "parent");
  engine.containers.length = 0;
  assert.is(await names(), "parent");
});

test("doctor without an engine checks only what needs none", async ({ run }) => {
  const env = { DOCKER_HOST: "unix:///nonexistent.sock" };
  const ran = await run(claudy, ["doctor", "--json"], { env });
  assert.is(ran.code, 1);
  const checks = JSON.parse(ran.stdout) as { name: string; state: string }[];
  assert.equal(checks.map(({ name }) => name), [
    ...["engine", "home", "move", "disk", "seccomp", "mcp", "credentials"],
    ...["projects", "mounts"],
  ]);
  assert.is(checks[0]?.state, "fail");
});

test("init-volumes shows directories and volumes with their users", async ({ run, engine, instance: { home } }) => {
  engine.volumes.set("fake-plugins", {
    Name: "fake-plugins",
    Mountpoint: "/var/lib/x",
    Labels: { [label.instance]: "fake" },
  });
  const Mounts = [{
    Type: "volume" as const,
    Source: "fake-plugins",
    Target: "/x",
  }];
  engine.add("user", { spec: { HostConfig: { Mounts } } });
  const { stdout } = await run(initVolumes, ["--status"]);
  const rows = table(stdout);
  assert.equal(rows[0], ["WHERE", "MODE", "SIZE", "USED BY"]);
  const row = (name: string) => rows.find(([at]) => at === name)?.slice(1);
  assert.equal(row(home.config), ["700", "0.0 MB"]);
  assert.equal(row("fake-plugins"), ["volume", "0.0 MB", "user"]);
  assert.equal(row("fake-chromadb"), ["absent", "0.0 MB"]);
  assert.not.ok(engine.asked.some((what) => what.startsWith("create")));
});

test("init-volumes --clean deletes data only after consent, and not of another instance", async ({ run, engine, instance: { home } }) => {
  engine.containers.splice(0);
  writeFileSync(home.instance, "fake\n");
  const plugins = {
    Name: "fake-plugins",
    Mountpoint: "/x",
    Labels: { [label.instance]: "other" } as Record<string, string>,
  };
  engine.volumes.set("fake-plugins", plugins);
  writeFileSync(join(home.claude, "file"), "x");
  writeFileSync(join(home.backups, "kept"), "x");
  const foreign = await run(initVolumes, ["--clean", "--yes"]);
  assert.is(foreign.code, 5);
  assert.match(foreign.stderr, '"fake-plugins" is not this instance\'s');
  plugins.Labels[label.instance] = "fake";
  const refused = await run(initVolumes, ["--clean"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "This will be deleted:");
  assert.match(refused.stderr, `  ${home.claude}  0.0 MB`);
  assert.match(refused.stderr, "  volume fake-plugins  0.0 MB");
  assert.match(refused.stderr, "Delete all of this?");
  assert.ok(existsSync(join(home.claude, "file")));
  const done = await run(initVolumes, ["--clean", "--yes"]);
  assert.is(done.code, 0, done.stderr);
  assert.not.ok(existsSync(join(home.claude, "file")));
  assert.ok(existsSync(join(home.backups, "kept")));
  assert.ok(engine.asked.includes("rm volume fake-plugins"));
});

test("prune shows old leftovers with their size, and removes them only after consent", async ({ run, engine, instance: { home } }) => {
  for (const name of [...engine.images.keys()]) engine.images.delete(name);
  const old = home.log("old-worker");
  writeFileSync(old, "x".repeat(2_000_000));
  const monthAgo = Date.now() / 1000 - 31 * 86_400;
  utimesSync(old, monthAgo, monthAgo);
  writeFileSync(home.log("new-worker"), "x");
  const shown = await run(claudy, ["prune", "--dry-run"]);
  assert.equal(table(shown.stdout), [
    ["log", "2.0 MB", old],
    ["1, 2.0 MB together"],
  ]);
  const older = await run(claudy, ["prune", "--older-than", "32"]);
  assert.is(older.stdout, "Nothing to remove\n");
  const refused = await run(claudy, ["prune"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "Remove these 1?");
  assert.ok(existsSync(old));
  const done = await run(claudy, ["prune", "--yes"]);
  assert.is(done.stdout, "Removed 1, 2.0 MB together\n");
  assert.not.ok(existsSync(old));
});

test("prune exits with 8 if some leftovers cannot be removed", async ({ run, engine, instance: { home } }) => {
  for (const name of [...engine.images.keys()]) engine.images.delete(name);
  const Created = Date.now() / 1000 - 90 * 60;
  engine.images.set("old", { Id: "old", Created, Size: 7 });
  engine.refuses.set("rmi old", 409);
  const prune = () => run(claudy, ["prune", "--yes", "--older-than", "0"]);
  const none = await prune();
  assert.is(none.code, 1);
  assert.match(none.stderr, /error: Cannot remove image old: .*refused/);
  writeFileSync(home.log("old-worker"), "x");
  const some = await prune();
  assert.is(some.code, 8);
  assert.match(some.stdout, "Removed 1,");
  assert.match(some.stderr, /error: Cannot remove image old: .*refused/);
});

test("profiles are listed with the size of their image, and only real ones are built", async ({ run, engine }) => {
  engine.images.set("repo:worker", { Id: "w", Size: 3_000_000 });
  const { stdout } = await run(claudy, ["profile", "list"]);
  const rows = table(stdout);
  assert.equal(rows[0]?.slice(0, 2), ["PROFILE", "SIZE"]);
  assert.equal(rows[1], ["base", "3.0 MB", "kept warm", "repo:worker"]);
  assert.equal(rows[2], ["python", "not built", "repo:worker-python"]);
  const detected = await run(claudy, ["profile", "build", "auto"]);
  assert.is(detected.code, 2);
  assert.match(detected.stderr, 'Profile "auto" has no image');
  assert.is((await run(claudy, ["profile", "build", "nod"])).code, 4);
});

const idleMoves: [typeof migrate, string, number, string, string][] = [
  [migrate, "--abort", 4, "There is no interrupted migration", ""],
  [
    migrate,
    "--remove-source",
    4,
    "No finished migration found",
    "the source is the only copy",
  ],
  [
    migrate,
    "--dry-run",
    4,
    "No data of version 0.5",
    "directories claude, chromadb, membank and plugins",
  ],
  [
    rollback,
    "--yes",
    4,
    "No volumes to roll back from",
    "rollback --list-backups",
  ],
];

for (const [main, option, code, says, hint] of idleMoves) {
  test(`without data to move, ${main === migrate ? "migrate" : "rollback"} ${option} says: ${says}`, async ({ run, engine }) => {
    const ran = await run(main, [option]);
    assert.is(ran.code, code);
    assert.match(ran.stderr, `error: ${says}`);
    assert.match(ran.stderr, hint);
    assert.equal(engine.asked, []);
  });
}

test.run();
