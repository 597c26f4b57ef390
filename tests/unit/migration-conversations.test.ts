// Conversations of version 0.5: found in its shared Claude home, assigned to sessions, and
// copied into their homes, by the real mover on temporary directories.

import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { perform } from "../../lib/migration/mover/operations.ts";

interface Context {
  root: string;
  shared: string;
  home: string;
  lay: (path: string, text: string) => string;
}

const test = suite<Context>("migration: conversations");

test.before.each((context) => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-conversations-"));
  context.root = root;
  context.shared = join(root, ".shared-config");
  context.home = join(root, "claudy-app");
  for (const path of [context.shared, context.home]) mkdirSync(path);
  context.lay = (path, text) => {
    const full = join(context.shared, "projects", path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, text);
    return full;
  };
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const ask = (op: string, input: object) => perform({ op, ...input }, () => {});

interface Found {
  conversations: { directory: string; id: string; paths: string[] }[];
  skipped: number;
}

const find = (path: string) =>
  ask("findConversations", { path }) as Promise<Found>;

test("the working directories and paths of a conversation are found", async ({ shared, lay }) => {
  const line = (value: object) => `${JSON.stringify(value)}\n`;
  lay(
    "-workspace/one.jsonl",
    line({
      cwd: "/workspace",
      message: { input: { file_path: "/workspace/ä.ts" } },
    }) +
      line({
        cwd: "/workspace/sub",
        toolUseResult: { filePath: "/workspace/b" },
      }) +
      // Text that only looks like a path is escaped in JSON.
      line({ text: '"file_path":"/workspace/no"', cwd: "relative" }),
  );
  // Across the border of two chunks.
  const filler = "x".repeat(1024 ** 2 - 20);
  lay("-home-me/two.jsonl", `${filler}${line({ file_path: "/workspace/c" })}`);
  // Behind the part that is searched.
  const much = "x".repeat(5 * 1024 ** 2);
  lay("-home-me/three.jsonl", `${much}${line({ cwd: "/workspace/d" })}`);
  const { conversations, skipped } = await find(shared);
  assert.is(skipped, 0);
  assert.equal(conversations.sort((a, b) => a.id < b.id ? -1 : 1), [
    {
      directory: "-workspace",
      id: "one",
      cwds: ["/workspace", "/workspace/sub"],
      paths: ["/workspace/ä.ts", "/workspace/b"],
    },
    { directory: "-home-me", id: "three", cwds: [], paths: [] },
    {
      directory: "-home-me",
      id: "two",
      cwds: [],
      paths: ["/workspace/c"],
    },
  ]);
});

test("links, odd names, empty files and huge files do no harm when conversations are found", async (context) => {
  const { shared, root, lay } = context;
  assert.equal(await find(shared), { conversations: [], skipped: 0 });
  writeFileSync(join(root, "secret.jsonl"), '{"cwd":"/secret"}');
  lay("-workspace/good.jsonl", '{"cwd":"/workspace"}');
  lay("-workspace/empty.jsonl", "");
  lay("-workspace/.hidden.jsonl", "{}");
  lay("-workspace/\x1b[2J.jsonl", "{}");
  lay("odd name/a.jsonl", "{}");
  truncateSync(lay("-workspace/huge.jsonl", "{}"), 1e12);
  const projects = join(shared, "projects");
  symlinkSync(join(root, "secret.jsonl"), join(projects, "-workspace/l.jsonl"));
  symlinkSync(root, join(projects, "-linked"));
  mkdirSync(join(projects, "-workspace/directory.jsonl"));
  const { conversations, skipped } = await find(shared);
  assert.equal(conversations.map(({ id }) => id).sort(), ["good", "huge"]);
  assert.is(skipped, 3);
  symlinkSync(root, join(root, "linked-home"));
  assert.equal((await find(join(root, "linked-home"))).conversations, []);
});

/** Copies a conversation of the shared home into the session's. */
const copy = ({ shared, home, root }: Context, id = "one") =>
  ask("copyConversation", {
    id,
    from: { home: shared, directory: "-home-me-app" },
    to: { home, directory: "-workspace" },
    staged: join(root, "staged"),
  });

test("a conversation is copied with its subagents, file history and time", async (context) => {
  const { home, shared, lay } = context;
  const source = lay("-home-me-app/one.jsonl", "first\n");
  lay("-home-me-app/one/subagents/agent.jsonl", "agent\n");
  mkdirSync(join(shared, "file-history/one"), { recursive: true });
  writeFileSync(join(shared, "file-history/one/x@v1"), "before");
  utimesSync(source, 1_700_000_000, 1_700_000_000);
  // Left by an interrupted run.
  mkdirSync(join(context.root, "staged/half"), { recursive: true });
  assert.is(await copy(context), "copied");
  const target = join(home, "projects/-workspace/one.jsonl");
  assert.is(readFileSync(target, "utf8"), "first\n");
  assert.is(lstatSync(target).mtimeMs, 1_700_000_000_000);
  const below = (path: string) => readFileSync(join(home, path), "utf8");
  assert.is(below("projects/-workspace/one/subagents/agent.jsonl"), "agent\n");
  assert.is(below("file-history/one/x@v1"), "before");
  assert.is(await copy(context), "present");
  assert.not.ok(existsSync(join(context.root, "staged")));
});

test("a copied conversation belongs to the owner of its home", async (context) => {
  const { home, lay } = context;
  const isRoot = process.getuid?.() === 0;
  const gid = isRoot ? 4321 : process.getgid?.() ?? 0;
  if (isRoot) chownSync(home, 1234, gid);
  lay("-home-me-app/one.jsonl", "first\n");
  assert.is(await copy(context), "copied");
  const { uid } = lstatSync(home);
  for (const path of ["projects", "projects/-workspace/one.jsonl"]) {
    const stat = lstatSync(join(home, path));
    assert.equal([stat.uid, stat.gid], [uid, gid], path);
  }
});

test("a conversation is replaced only by one that continues it", async (context) => {
  const target = join(context.home, "projects/-workspace/one.jsonl");
  const long = "x".repeat(1024 ** 2 + 5);
  context.lay("-home-me-app/one.jsonl", long);
  // Left by an interrupted run.
  mkdirSync(join(context.root, "staged/half"), { recursive: true });
  assert.is(await copy(context), "copied");
  context.lay("-home-me-app/one.jsonl", `${long}more`);
  assert.is(await copy(context), "copied");
  assert.is(readFileSync(target, "utf8"), `${long}more`);
  writeFileSync(target, `${long}more and more`);
  assert.is(await copy(context), "present");
  assert.is(readFileSync(target, "utf8"), `${long}more and more`);
  writeFileSync(target, `${long}MORE`);
  assert.is(await copy(context), "differs");
  assert.is(readFileSync(target, "utf8"), `${long}MORE`);
  assert.is(
    readFileSync(
      join(context.shared, "projects/-home-me-app/one.jsonl"),
      "utf8",
    ),
    `${long}more`,
  );
});

for (
  const place of [
    "projects",
    "projects/-workspace",
    "projects/-workspace/one.jsonl",
  ]
) {
  test(`a link at ${place} in a session's home is not followed`, async (context) => {
    const { home, root, lay } = context;
    lay("-home-me-app/one.jsonl", "text");
    const outside = join(root, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "one.jsonl"), "");
    mkdirSync(dirname(join(home, place)), { recursive: true });
    const leads = place.endsWith(".jsonl") ? "one.jsonl" : "";
    symlinkSync(join(outside, leads), join(home, place));
    assert.is(await copy(context), "blocked");
    assert.is(readFileSync(join(outside, "one.jsonl"), "utf8"), "");
    assert.not.ok(existsSync(join(outside, "-workspace")));
  });
}

test("a conversation that seems to be huge, or its file history, is not copied", async (context) => {
  const { home, shared, lay } = context;
  const text = lay("-home-me-app/one.jsonl", "text");
  mkdirSync(join(shared, "file-history/one"), { recursive: true });
  const history = join(shared, "file-history/one/x@v1");
  for (const path of [text, history]) {
    writeFileSync(path, "text");
    truncateSync(path, 1e12);
    assert.is(await copy(context), "large");
    truncateSync(path, 4);
  }
  assert.not.ok(existsSync(join(home, "file-history/one")));
  assert.is(await copy(context), "copied");
});

test("a link in place of a conversation, or of its directory, is not copied", async (context) => {
  const { shared, root } = context;
  writeFileSync(join(root, "one.jsonl"), "secret");
  mkdirSync(join(shared, "projects/-home-me-app"), { recursive: true });
  symlinkSync(
    join(root, "one.jsonl"),
    join(shared, "projects/-home-me-app/one.jsonl"),
  );
  assert.is(await copy(context), "blocked");
  rmSync(join(shared, "projects"), { recursive: true });
  mkdirSync(join(shared, "projects"));
  symlinkSync(root, join(shared, "projects/-home-me-app"));
  assert.is(await copy(context), "blocked");
  assert.not.ok(
    existsSync(join(context.home, "projects/-workspace/one.jsonl")),
  );
});

test.run();
