// Unexpected files, created by a worker or by accident, in directories that are read: they
// are skipped within limits, and the other files are read.

import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  notedFile,
  ownFiles,
  readCliState,
} from "../../lib/session/activity.ts";
import {
  hasConversation,
  lastSaidAt,
  TooMany,
} from "../../lib/session/conversations.ts";
import { inDirectory } from "../../lib/std/directory.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { ensureDirectory, isStaged, ownerOf } from "../../lib/std/owned.ts";
import { homeDirectories, homePaths } from "../../lib/instance/paths.ts";
import {
  clearPath,
  NotPlain,
  readPlainFile,
} from "../../lib/std/plain-file.ts";
import { reservePorts } from "../../lib/instance/port-range.ts";
import { readClaims } from "../../lib/pool/claim.ts";
import { dropStaged } from "../../lib/parent/reconcile.ts";
import { readRecords, writeRecord } from "../../lib/instance/record.ts";
import { measureTrees, removeTree } from "../../lib/std/remove-tree.ts";
import { listSessions } from "../../lib/session/list.ts";
import {
  readSessions,
  writeSession,
} from "../../lib/instance/session-record.ts";

type Home = Parameters<typeof writeRecord>[0];
const test = suite<{ root: string; instance: Home }>("laid files");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-laid-"));
  const owner = ownerOf(context.root);
  context.instance = { home: homePaths(join(context.root, "home")), owner };
  for (const directory of homeDirectories(context.instance.home)) {
    ensureDirectory(directory, 0o700, owner);
  }
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

/** A sparse file: no disk space, but all memory if it were read. */
function sparse(path: string): void {
  const file = openSync(path, "w");
  ftruncateSync(file, 3 * 1024 ** 3);
  closeSync(file);
}

/** Kinds of files that have broken commands, with functions that create them. */
const odd: Record<string, (path: string) => void> = {
  "a directory": (path) => mkdirSync(path),
  "a link to itself": (path) => symlinkSync(path, path),
  "a link to a file": (path) => symlinkSync("/etc/passwd", path),
  "a pipe": (path) => void spawnSync("mkfifo", [path]),
  "3 GB without content": sparse,
};

const record = {
  version: 1 as const,
  worker: "x",
  container: "id",
  session: null,
  project: { path: "/p", uid: 1, gid: 1 },
  image: "repo:worker",
  born: "cold" as const,
  home: "workers/x-0123",
  ephemeral: false,
  secrets: null,
  memoryBytes: null,
  oomKilledAt: null,
  createdAt: "2026-01-26T00:00:00.000Z",
};

const session = {
  version: 1 as const,
  name: "one",
  project: "/p",
  createdAt: "2026-01-01T00:00:00.000Z",
  usedAt: "2026-02-01T00:00:00.000Z",
};

for (const [what, lay] of Object.entries(odd)) {
  test(`readPlainFile() refuses ${what}`, ({ root }) => {
    lay(join(root, "odd"));
    const read = () => readPlainFile(join(root, "odd"), { maxBytes: 1e6 });
    assert.throws(read, (error: unknown) => error instanceof NotPlain);
  });

  test(`moves ${what} below sessions/ away once, and reads the records`, ({ instance }) => {
    writeRecord(instance, record);
    writeSession(instance, session);
    lay(instance.home.record("odd"));
    lay(instance.home.session("odd"));
    // Without a log, it is left for a later caller.
    assert.equal(readRecords(instance), [record]);
    assert.is(readdirSync(instance.home.sessions).includes("odd.json"), true);
    const told: string[] = [];
    const log = (line: string) => told.push(line);
    assert.equal(readRecords(instance, log), [record]);
    assert.equal(readSessions(instance, log), [session]);
    assert.is(told.length, 2);
    assert.match(told[0] ?? "", /odd\.json is .*; it was moved to/);
    assert.equal(readRecords(instance, log), [record]);
    assert.equal(readSessions(instance, log), [session]);
    assert.is(told.length, 2);
    assert.is(readdirSync(instance.home.damaged).length, 2);
  });

  test(`${what} does not block claims or port ranges`, ({ instance }) => {
    lay(instance.home.claim("odd"));
    assert.equal(readClaims(instance), []);
    const base = reservePorts(instance, "one");
    rmSync(join(instance.home.ports, String(base)));
    lay(join(instance.home.ports, String(base)));
    assert.is(reservePorts(instance, "one"), base);
  });

  test(`ignores ${what} in a Claude home as state and conversation`, ({ instance }) => {
    const claudeHome = join(instance.home.claude, "one");
    const projects = join(claudeHome, "projects", "-workspace");
    mkdirSync(projects, { recursive: true });
    lay(join(claudeHome, notedFile));
    mkdirSync(join(claudeHome, ownFiles));
    lay(join(claudeHome, ownFiles, "1.json"));
    writeFileSync(join(claudeHome, ownFiles, "2.json"), '{"status":"idle"}');
    assert.is(readCliState(claudeHome)?.activity, "idle");
    if (lay !== sparse) {
      lay(join(projects, "odd.jsonl"));
      assert.is(hasConversation(instance, "one"), false);
    }
    rmSync(projects, { recursive: true });
    symlinkSync(instance.home.claude, projects);
    writeFileSync(join(instance.home.claude, "x.jsonl"), "{}");
    assert.is(hasConversation(instance, "one"), false);
  });
}

test("hasConversation() and lastSaidAt() find a conversation among many empty files", ({ instance }) => {
  const directory = join(instance.home.claude, "one/projects/-workspace");
  mkdirSync(directory, { recursive: true });
  for (let id = 0; id < 1500; id++) {
    writeFileSync(join(directory, `${id}.jsonl`), "");
  }
  assert.is(hasConversation(instance, "one"), false);
  const said = join(directory, "said.jsonl");
  writeFileSync(said, "{}");
  utimesSync(said, 1_700_000_000, 1_700_000_000);
  assert.is(hasConversation(instance, "one"), true);
  const soon = Date.now() + 60_000;
  assert.is(lastSaidAt(instance, "one", soon), 1_700_000_000_000);
  const late = () => lastSaidAt(instance, "one", 0);
  assert.throws(late, (error: unknown) => error instanceof TooMany);
  for (let id = 1500; id < 5001; id++) {
    writeFileSync(join(directory, `${id}.jsonl`), "");
  }
  const many = () => lastSaidAt(instance, "one", soon);
  assert.throws(many, (error: unknown) => error instanceof TooMany);
});

test("Directory clamps times to between 1970 and now", ({ root }) => {
  for (const [name, seconds] of [["old", -1000], ["new", 4e9]] as const) {
    spawnSync("touch", ["-d", `@${seconds}`, join(root, name)]);
    const time = inDirectory(root, (opened) => opened.stat(name)?.mtimeMs) ??
      -1;
    assert.ok(time >= 0 && time <= Date.now(), `${name}: ${time}`);
  }
});

/** Lists the sessions of an instance without workers. */
async function listed(instance: Home) {
  const docker = { listContainers: () => Promise.resolve([]) };
  const warnings: string[] = [];
  const sessions = await listSessions(
    {
      ...instance,
      docker,
      prefix: "x",
      settings: { WORKER_NETWORK: "shared" },
    } as unknown as Instance,
    {},
    (line) => warnings.push(line),
  );
  return { times: sessions.map(({ activeAt }) => activeAt), warnings };
}

test("listSessions() lists a session with a conversation from the future", async ({ instance }) => {
  writeSession(instance, session);
  const directory = join(instance.home.claude, "one/projects/-workspace");
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "a.jsonl"), "said");
  // The year 287,166 on tmpfs, which a Date cannot represent; 2446 on ext4.
  spawnSync("touch", ["-d", "@8999999999999", join(directory, "a.jsonl")]);
  const { times, warnings } = await listed(instance);
  assert.is(times.length, 1);
  assert.ok(Date.parse(times[0] ?? "") <= Date.now());
  assert.equal(warnings, []);
});

test("listSessions() lists a session with unreadable conversations", async ({ instance, root }) => {
  writeSession(instance, session);
  const home = { ...instance.home, home: join(root, "x".repeat(300)) };
  const { times, warnings } = await listed({ ...instance, home });
  assert.equal(times, [session.usedAt]);
  assert.match(
    warnings[0] ?? "",
    /"one".*; ACTIVE shows when it was last opened/,
  );
});

test("Directory lists entries with their kinds", ({ root }) => {
  writeFileSync(join(root, "file"), "four");
  symlinkSync("file", join(root, "link"));
  const seen = inDirectory(
    root,
    (directory) =>
      [...directory.entries()].map(({ name, kind }) =>
        `${name} ${kind} ${directory.stat(name)?.kind}`
      ).sort(),
  );
  assert.equal(seen, [
    "file file file",
    "home directory directory",
    "link other other",
  ]);
  const stat = inDirectory(root, (directory) => directory.stat("file"));
  assert.is(stat?.sizeBytes, 4);
  assert.ok(Math.abs((stat?.mtimeMs ?? 0) - Date.now()) < 60_000);
  symlinkSync(root, join(root, "home", "up"));
  assert.is(inDirectory(join(root, "home", "up"), () => true), undefined);
  assert.is(inDirectory(join(root, "none"), () => true), undefined);
});

/** Creates a tree deeper than the maximum path length, with relative paths. */
function makeDeepTree(directory: string): void {
  const down = 'mkdir -p "$0" && cd "$0"';
  const script = `${down} && ${down} && : >end`;
  const { status } = spawnSync("bash", ["-c", script, "dd/".repeat(750)], {
    cwd: directory,
  });
  assert.is(status, 0);
}

test("removeTree() removes trees of any depth, and follows no links", async ({ root }) => {
  const tree = join(root, "tree");
  mkdirSync(tree);
  makeDeepTree(tree);
  writeFileSync(join(root, "kept"), "");
  symlinkSync(root, join(tree, "up"));
  mkdirSync(join(tree, "closed"));
  writeFileSync(join(tree, "closed", "file"), "");
  if (process.getuid?.() !== 0) spawnSync("chmod", ["0", join(tree, "closed")]);
  await removeTree(tree);
  assert.is(existsSync(tree), false);
  assert.is(existsSync(join(root, "kept")), true);
  await removeTree(tree); // a missing one is not an error
  symlinkSync(root, tree);
  await removeTree(tree);
  assert.is(existsSync(join(root, "kept")), true);
});

test("measureTrees() sums the sizes below a path, and follows no links", async ({ root }) => {
  const [tree, empty] = [join(root, "tree"), join(root, "empty")];
  mkdirSync(tree);
  mkdirSync(empty);
  makeDeepTree(tree);
  writeFileSync(join(tree, "file"), "x".repeat(1e6));
  symlinkSync("/usr", join(tree, "usr"));
  const sizes = await measureTrees([tree, empty, join(root, "none")]);
  const added = (sizes.get(tree) ?? 0) - 1e6;
  assert.ok(added > 0 && added < 20e6, `${added}`);
  assert.is(sizes.has(join(root, "none")), false);
});

test("measureTrees() counts neither the holes of sparse files nor a hard link twice", async ({ root }) => {
  const tree = join(root, "tree");
  mkdirSync(tree);
  const sparse = join(tree, "sparse");
  writeFileSync(sparse, "x");
  truncateSync(sparse, 1e12);
  writeFileSync(join(tree, "one"), "x".repeat(1e6));
  linkSync(join(tree, "one"), join(tree, "two"));
  const size = (await measureTrees([tree])).get(tree) ?? 0;
  assert.ok(size > 1e6 && size < 1.5e6, `${size}`);
});

test("measureTrees() measures the others if one tree takes too long", async ({ root }) => {
  const bin = join(root, "bin");
  mkdirSync(bin);
  const du = `#!/bin/bash
while IFS= read -r -d '' path; do
  [ "$path" != /endless ] || exec sleep 60
  printf '7\\t%s\\0' "$path"
done
`;
  writeFileSync(join(bin, "du"), du, { mode: 0o755 });
  const path = process.env["PATH"];
  process.env["PATH"] = `${bin}:${path}`;
  try {
    const sizes = await measureTrees(["/a", "/endless", "/b", "/c"], 1500);
    assert.equal([...sizes.keys()], ["/a", "/b", "/c"]);
  } finally {
    process.env["PATH"] = path;
  }
});

test("measureTrees() measures paths whose letters are split between two reads", async ({ root }) => {
  const bin = join(root, "bin");
  mkdirSync(bin);
  const du = `#!/bin/sh
printf '1\\t/\\303'
sleep 0.3
printf '\\274\\0'
`;
  writeFileSync(join(bin, "du"), du, { mode: 0o755 });
  const path = process.env["PATH"];
  process.env["PATH"] = `${bin}:${path}`;
  try {
    assert.is((await measureTrees(["/ü"])).get("/ü"), 1);
  } finally {
    process.env["PATH"] = path;
  }
});

test("measureTrees() does without du if it ends before it has read all paths", async ({ root }) => {
  const bin = join(root, "bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "du"), "#!/bin/sh\n", { mode: 0o755 });
  const path = process.env["PATH"];
  process.env["PATH"] = `${bin}:${path}`;
  try {
    const paths = Array.from({ length: 20_000 }, (_, at) => `/none/${at}-long`);
    assert.is((await measureTrees(paths)).size, 0);
  } finally {
    process.env["PATH"] = path;
  }
});

test("trees are removed and measured from a directory that is removed, too", ({ root }) => {
  const [tree, other] = [join(root, "tree"), join(root, "other")];
  mkdirSync(tree);
  mkdirSync(other);
  const helper = new URL("../helper/remove-trees.ts", import.meta.url).pathname;
  const options = ["--allow-all", "--no-lock", "--quiet"];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", ...options, "--node-modules-dir=manual", helper, tree, other],
    { cwd: tree, encoding: "utf8" },
  );
  assert.is(status, 0, stderr);
  assert.is(stdout, "1\n1\n");
  assert.is(existsSync(other), false);
});

test("trees are removed and measured regardless of the caller's settings of bash", async ({ root }) => {
  const noise = join(root, "noise");
  writeFileSync(noise, "echo noise\n");
  const settings = {
    "BASH_ENV": noise,
    "BASH_FUNC_rm%%": "() {  :\n}",
    "BASH_FUNC_chmod%%": "() {  :\n}",
  };
  const tree = join(root, "tree");
  mkdirSync(tree);
  Object.assign(process.env, settings);
  try {
    const size = (await measureTrees([tree])).get(tree) ?? NaN;
    assert.ok(size >= 0, `${size}`);
    await removeTree(tree);
    assert.is(existsSync(tree), false);
  } finally {
    for (const name of Object.keys(settings)) delete process.env[name];
  }
});

test("clearPath() removes anything at a path", ({ root }) => {
  const place = join(root, "place");
  for (const lay of Object.values(odd)) {
    lay(place);
    clearPath(place);
    assert.is(existsSync(place), false);
  }
  clearPath(place);
  const aside = readdirSync(root).filter((name) => name.includes("aside"));
  assert.is(aside.length, 1);
});

test("dropStaged() removes temporary files of killed commands", ({ instance }) => {
  const { home } = instance;
  const tmp = "x.json.0123456789abcdef.tmp";
  const places = [home.sessions, home.kept, home.ports, home.run, home.config];
  for (const directory of places) {
    const path = join(directory, tmp);
    writeFileSync(path, "half");
    utimesSync(path, 1, 1);
    writeFileSync(join(directory, `y${tmp}`), "being written");
    writeFileSync(join(directory, "old.json"), "{}");
    utimesSync(join(directory, "old.json"), 1, 1);
  }
  const told: string[] = [];
  dropStaged(home, (line) => told.push(line));
  assert.is(told.length, places.length);
  for (const directory of places) {
    const left = readdirSync(directory).filter((name) => name !== "kept");
    assert.is(left.includes(tmp), false);
    assert.is(left.includes(`y${tmp}`), true);
    assert.is(left.includes("old.json"), true);
  }
  assert.is(isStaged("x.json.tmp"), false);
});

test.run();
