// What would be lost with a copy is counted, whatever the session has done with it.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { tellLeft } from "../../lib/commands/copies.ts";
import {
  commit,
  type Context,
  copyOf,
  env,
  fetch,
  git,
  packed,
  repository,
  write,
} from "../helper/copied.ts";

const test = suite<Context>("copy-losses");
const { PATH } = process.env;

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-losses-"));
});
test.after.each(({ root }) => {
  process.env["PATH"] = PATH;
  rmSync(root, { recursive: true, force: true });
});

test("counts commits of tags, notes and branches that are not fetched", async (context) => {
  const app = repository(context.root);
  git(app, "tag", "--annotate", "--message", "old", "old");
  const copy = await copyOf(context, app);
  const { target } = copy;
  const commits = async () =>
    (await packed(context, copy, { write: false })).commits;
  /** A commit that no branch has, and a reference to it. */
  const refer = (ref: string): string => {
    const id = git(
      target,
      ...["commit-tree", "-p", "HEAD", "-m", ref, "HEAD^{tree}"],
    );
    // With a name that is not UTF-8.
    execFileSync(
      "sh",
      ["-c", 'git update-ref "$(printf "$0")" "$1"', ref, id],
      {
        cwd: target,
        env: env as NodeJS.ProcessEnv,
      },
    );
    return id;
  };
  assert.is(await commits(), 0);
  const references = [
    "refs/tags/v1",
    "refs/tags/caf\\351",
    "refs/notes/commits",
    "refs/bisect/bad",
    "refs/heads/-x",
    "refs/heads/caf\\351",
    "refs/heads/caf\\350",
    "refs/heads/a\\302\\205b",
    `refs/heads/${"d/".repeat(17)}x`,
  ];
  for (const [at, ref] of references.entries()) {
    refer(ref);
    assert.is(await commits(), at + 1, ref);
  }
  git(target, "pack-refs", "--all");
  assert.is(await commits(), references.length);
  // Not what was pushed, or fetched from elsewhere.
  git(target, "update-ref", "refs/remotes/origin/x", refer("refs/tags/v2"));
  assert.is(await commits(), references.length);
  symlinkSync("/etc", join(target, ".git/refs/heads/etc"));
  assert.is(await commits(), references.length);
  // Nobody knows what it was.
  write(target, { ".git/refs/heads/broken": `${"1".repeat(40)}\n` });
  assert.is(await commits(), references.length + 1);
});

/** Root reads everything, unless the programs have no such capability. */
function asUser({ root }: Context): void {
  if (process.getuid?.() !== 0) return;
  const bin = join(root, "bin");
  mkdirSync(bin);
  for (const name of ["git", "find"]) {
    const path = execFileSync("sh", ["-c", `command -v ${name}`], {
      encoding: "utf8",
    }).trim();
    const without = "--bounding-set=-dac_override,-dac_read_search";
    const text = `#!/bin/sh\nexec setpriv ${without} ${path} "$@"\n`;
    writeFileSync(join(bin, name), text, { mode: 0o755 });
  }
  process.env["PATH"] = `${bin}:${PATH}`;
}

test("counts what cannot be read, also after a fetch", async (context) => {
  const app = repository(context.root);
  write(app, { ".git/info/exclude": "ignored\n" });
  commit(app, { "closed/tracked": "t" });
  const copy = await copyOf(context, app);
  const { target } = copy;
  write(target, {
    "a.txt": "changed\n",
    "secret": "s",
    "open": "o",
    "directory/hidden": "h",
    "closed/tracked": "changed",
    "ignored/file": "i",
  });
  const closed = ["a.txt", "secret", "directory", "closed", "ignored"]
    .map((name) => join(target, name));
  for (const path of closed) chmodSync(path, 0);
  asUser(context);
  try {
    const { unread, changesTree, branches } = await fetch(
      context,
      copy,
      join(app, ".git"),
      { changes: true },
    );
    const names = ["a.txt", "closed/", "directory/", "secret"];
    assert.equal(unread.sort(), names);
    const files = git(
      app,
      ...["diff", "--name-only", "main", branches["uncommitted"] ?? ""],
    );
    assert.is(files, "open");
    const told: string[] = [];
    const what = { refused: ["x"], changed: 1, untracked: 3, unread };
    const io = { log: (line: string) => void told.push(line) };
    tellLeft(io, { ...what, withChanges: true });
    assert.equal(told.slice(0, 2), [
      "warning: A branch was left out: x",
      "warning: Not fetched, since it cannot be read: a.txt",
    ]);
    const left = await packed(context, copy, {
      fetchedTree: changesTree,
      write: false,
    });
    assert.equal([left.changed, left.untracked], [1, 3]);
  } finally {
    for (const path of closed) if (existsSync(path)) chmodSync(path, 0o755);
  }
});

test.run();
