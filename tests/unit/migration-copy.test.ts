// Copying with a fake mover that only records its operations, and the operations of the
// real mover on temporary directories.

import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { Journal } from "../../lib/instance/migration-journal.ts";
import { Failure } from "../../lib/std/errors.ts";
import { backUp, copyInSteps } from "../../lib/migration/copy.ts";
import type { Mover } from "../../lib/migration/mover-container.ts";
import { removeVolumes } from "../../lib/migration/parts.ts";
import { perform } from "../../lib/migration/mover/operations.ts";

const test = suite<{ root: string; journal: Journal }>("migration: copies");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-migration-"));
  const home = homePaths(context.root);
  mkdirSync(home.migration);
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  context.journal = new Journal({ home, owner }, {
    version: 1,
    kind: "migrate",
    stamp: "20261121T130509Z",
    parts: ["membank", "plugins"],
    skipBackup: false,
    keepVolumes: false,
    backup: null,
    made: [],
    steps: { manifest: "done" },
  });
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

const track = { log: () => {}, begin: () => () => {} };

/** A fake mover that reports differences, and records its operations. */
function fakeMover(differences: string[] = []) {
  const asked: string[] = [];
  const mover = {
    do: (
      name: string,
      { to, path, parts }: { to?: string; path?: string; parts?: string[] },
    ) => {
      asked.push(`${name} ${to ?? path ?? parts?.join()}`);
      return Promise.resolve({ count: differences.length, first: differences });
    },
  } as unknown as Mover;
  return { mover, asked };
}

const copies = {
  what: "the volumes",
  from: "/hal9000",
  at: "/volumes",
  parts: ["membank", "plugins"],
  manifest: "/m.json",
};

test("copyInSteps() copies missing parts, then compares everything", async ({ journal }) => {
  journal.note({ steps: { "copy:membank": "done", "copy:plugins": "begun" } });
  const { mover, asked } = fakeMover();
  await copyInSteps({ journal, track }, mover, copies);
  assert.equal(asked, [
    "replace /volumes/plugins",
    "compare membank,plugins",
  ]);
  assert.ok(journal.isDone("verify"));
  await copyInSteps({ journal, track }, mover, copies);
  assert.is(asked.length, 2);
});

test("copyInSteps() reads source and copies again if they differ", async ({ journal }) => {
  const { mover } = fakeMover(["plugins/x: content"]);
  const message = await copyInSteps({ journal, track }, mover, copies)
    .catch((error) => error.message);
  assert.is(message, "Verification failed for the volumes: plugins/x: content");
  assert.equal(journal.state.steps, { verify: "begun" });
});

test("backUp() renames the manifest last, and only for a backup that matches", async () => {
  const backup = { ...copies, what: "the backup", at: "/b" };
  const whole = fakeMover();
  await backUp({ track }, whole.mover, backup);
  assert.equal(whole.asked, [
    "remove /b/manifest.json",
    "replace /b/membank",
    "replace /b/plugins",
    "compare membank,plugins",
    "replace /b/manifest.json.tmp",
    "rename /b/manifest.json",
  ]);
  const damaged = fakeMover(["membank/a: missing"]);
  await backUp({ track }, damaged.mover, backup)
    .then(() => assert.unreachable(), () => {});
  assert.is(damaged.asked.at(-1), "compare membank,plugins");
});

test("removeVolumes() waits for a volume that a container still uses", async () => {
  const answers = [{ statusCode: 409 }, undefined, { statusCode: 500 }];
  const remove = () => {
    const error = answers.shift();
    return error ? Promise.reject(error) : Promise.resolve();
  };
  const docker = { getVolume: () => ({ remove }) } as unknown as Docker;
  await removeVolumes({ docker }, ["x-plugins"]);
  assert.is(answers.length, 1);
  const error = await removeVolumes({ docker }, ["x-plugins"])
    .catch((error) => error);
  assert.is(error.statusCode, 500);
});

const ask = (op: string, input: object) => perform({ op, ...input }, () => {});

/** A tree with a hard link, and a name that is not valid UTF-8. */
function growTree(directory: string): void {
  const script = `mkdir -p "$0/tree/below" && cd "$0/tree" && echo one >one &&
    ln one two && ln -s nowhere link && echo x >"$(printf 'n\\377')"`;
  execFileSync("sh", ["-ec", script, directory]);
}

test("mover: a copy matches the manifest of its source until it changes", async ({ root }) => {
  growTree(root);
  const manifest = join(root, "manifest.json");
  const source = { at: root, parts: ["tree"] };
  await ask("manifest", { ...source, to: manifest, kind: "migrate" });
  const { versions, parts } = JSON.parse(readFileSync(manifest, "utf8"));
  assert.is(versions.source, "0.5");
  assert.equal(parts, [{ name: "tree", files: 3, bytes: 10 }]);
  const copy = { at: join(root, "copies"), parts: ["tree"] };
  const paths = { from: join(root, "tree"), to: join(root, "copies/tree") };
  await ask("replace", paths);
  const compare = () => ask("compare", { ...copy, manifest, contents: true });
  assert.equal(await compare(), { count: 0, first: [] });
  writeFileSync(join(paths.to, "one"), "ONE\n");
  rmSync(join(paths.to, "link"));
  const { first } = await compare() as { first: string[] };
  assert.ok(first.includes("tree/link: missing"), first.join());
  assert.ok(first.some((line) => /^tree\/one: .*content/.test(line)));
});

test("mover: replace removes an interrupted copy", async ({ root }) => {
  growTree(root);
  const to = join(root, "backups/pre-dind-x/tree");
  mkdirSync(join(to, "half"), { recursive: true });
  writeFileSync(join(to, "half/left"), "left");
  await ask("replace", { from: join(root, "tree"), to });
  assert.not(existsSync(join(to, "half")));
  assert.is(readdirSync(to).length, 5);
});

test("mover: a failed program is a Failure, and an unknown operation an error", async ({ root }) => {
  const input = { from: join(root, "none"), to: join(root, "to") };
  const error = await ask("replace", input).catch((error) => error) as Error;
  assert.instance(error, Failure);
  assert.match(error.message, /No such file/);
  const unknown = await ask("format", {}).catch((error) => error) as Error;
  assert.match(unknown.message, /Invalid type|Expected/);
});

test("mover: a new ChromaDB and an empty directory count as no data", async ({ root }) => {
  for (const name of ["chromadb", "membank", "plugins"]) {
    mkdirSync(join(root, name));
  }
  const { DatabaseSync } = await import("node:sqlite");
  const database = new DatabaseSync(join(root, "chromadb/chroma.sqlite3"));
  database.exec(`CREATE TABLE collections (id TEXT, name TEXT);
    CREATE TABLE segments (id TEXT, collection TEXT, scope TEXT);
    CREATE TABLE embeddings (id TEXT, segment_id TEXT)`);
  const parts = ["chromadb", "membank", "plugins", "none"];
  const withData = () => ask("withData", { at: root, parts });
  assert.equal(await withData(), []);
  writeFileSync(join(root, "plugins/tool"), "");
  database.exec("INSERT INTO collections VALUES ('1', 'alpha')");
  database.close();
  assert.equal(await withData(), ["chromadb", "plugins"]);
  const path = join(root, "chromadb");
  assert.equal(await ask("collections", { path }), [{
    name: "alpha",
    count: 0,
  }]);
});

test("mover: examine reads a tree without checksums, and checks ChromaDB's file", async ({ root }) => {
  const file = join(root, "chromadb/chroma.sqlite3");
  mkdirSync(join(root, "chromadb"));
  mkdirSync(join(root, "membank"));
  writeFileSync(join(root, "membank/notes.md"), "notes");
  const { DatabaseSync } = await import("node:sqlite");
  const database = new DatabaseSync(file);
  database.exec("CREATE TABLE big (text TEXT)");
  const insert = database.prepare("INSERT INTO big VALUES (?)");
  for (let row = 0; row < 100; row++) insert.run("x".repeat(1000));
  database.close();
  const parts = ["chromadb", "membank"];
  const examine = () => ask("examine", { at: root, parts });
  assert.equal(await examine(), { count: 0, first: [] });
  const whole = readFileSync(file);
  writeFileSync(file, whole.subarray(0, whole.length / 2));
  const damage = "chromadb/chroma.sqlite3: not a readable database";
  assert.equal(await examine(), { count: 1, first: [damage] });
  // SQLite repairs it when it is opened for writing.
  writeFileSync(`${file}-wal`, "");
  assert.equal(await examine(), { count: 0, first: [] });
});

test.run();
