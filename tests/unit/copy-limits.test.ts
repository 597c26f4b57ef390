// What comes out of a hostile copy has limits: objects that are small in it, and would fill the
// user's disk or the memory of git.

import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { maxBytesIn } from "../../lib/commands/copies.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { diff } from "../../lib/workspace/git/diff.ts";
import { Limits } from "../../lib/workspace/git/limits.ts";
import {
  commit,
  type Context,
  type Copy,
  copyOf,
  env,
  failureOf,
  fetch,
  git,
  repository,
  scratchIn,
  write,
} from "../helper/copied.ts";

const test = suite<Context>("copy-limits");
const MiB = 1024 ** 2;

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-limits-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true, force: true }));

/** The output of the agent's git with an input. */
function given(directory: string, input: string, ...args: string[]): string {
  return execFileSync("git", args, {
    cwd: directory,
    env: env as NodeJS.ProcessEnv,
    input,
    encoding: "utf8",
  }).trim();
}

/** Commits a tree that is ten others, which are ten others, and so on. */
function bomb(directory: string): string {
  const blob = given(directory, "x", "hash-object", "-w", "--stdin");
  let entry = `100644 blob ${blob}`;
  for (let level = 0; level < 10; level++) {
    const tree = given(
      directory,
      [..."0123456789"].map((name) => `${entry}\t${name}\n`).join(""),
      "mktree",
    );
    entry = `040000 tree ${tree}`;
  }
  return git(
    directory,
    ...["commit-tree", "-p", "HEAD", "-m", "x", entry.split(" ")[2] ?? ""],
  );
}

/** Fails, names the option, and changes nothing in the user's repository. */
async function refused(
  app: string,
  act: () => Promise<unknown>,
): Promise<string> {
  const state = () =>
    readdirSync(join(app, ".git/objects"), { recursive: true }).sort().join() +
    git(app, "for-each-ref");
  const before = state();
  const begun = performance.now();
  const { kind, message, hint } = await failureOf(act()) as Failure;
  assert.ok(performance.now() - begun < 20_000);
  assert.is(kind, "unsafe", message);
  assert.is(state(), before);
  return `${message}\n${hint}`;
}

function compared(
  { root }: Context,
  app: string,
  { target }: Copy,
  changes = false,
) {
  return diff({
    do: "diff",
    tree: target,
    format: "sha1",
    source: { common: join(app, ".git"), own: join(app, ".git"), tree: app },
    base: null,
    changes,
    stat: true,
    scratch: scratchIn(root),
  });
}

test("reads --max-size, and refuses what is no size", () => {
  assert.is(maxBytesIn({}), undefined);
  assert.is(maxBytesIn({ maxSize: "8g" }), 8 * 1024 ** 3);
  for (const maxSize of ["much", "-1g", "0", "1k", "1e9", ""]) {
    assert.throws(
      () => maxBytesIn({ maxSize }),
      (error: Failure) =>
        error.kind === "usage" && error.message.includes(`got "${maxSize}"`),
    );
  }
});

test("has a time limit that a timer can have", () => {
  assert.is(new Limits().timeoutMs, 9 * 60_000);
  assert.ok(new Limits(1024 ** 5).timeoutMs < 2 ** 31);
});

test("refuses a tree of a few objects that are billions of files", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const common = join(app, ".git");
  const id = bomb(copy.target);
  // Checked out, as git status and git diff would read all of it.
  git(copy.target, "update-ref", "HEAD", id);
  const checkedOut = await refused(app, () => fetch(context, copy, common));
  assert.match(
    checkedOut,
    /^The files of HEAD would take [\d.]+ TiB\n2 GiB is the most/,
  );
  await refused(app, () => compared(context, app, copy));
  // On another branch, which is read only when the user merges it.
  git(copy.target, "update-ref", "HEAD", "HEAD~");
  git(copy.target, "update-ref", "refs/heads/other", id);
  const other = await refused(app, () => fetch(context, copy, common));
  assert.match(other, "The files of other would take ");
  // Only in the history, which the user reads by `git log --patch`.
  const after = git(
    copy.target,
    ...["commit-tree", "-p", id, "-m", "x", "HEAD^{tree}"],
  );
  for (const ref of ["refs/heads/other", "HEAD"]) {
    git(copy.target, "update-ref", ref, after);
    const below = await refused(app, () => fetch(context, copy, common));
    assert.match(below, `The files of commit ${id} would take `);
    git(copy.target, "update-ref", "-d", "refs/heads/other");
  }
});

test("refuses a small object that is a large file, and many files of one object", async (context) => {
  const app = repository(context.root);
  const common = join(app, ".git");
  const copy = await copyOf(context, app);
  const { target } = copy;
  const maxBytes = 64 * MiB;
  writeFileSync(join(target, "zeros"), "");
  truncateSync(join(target, "zeros"), 80 * MiB);
  commit(target, { n: "n" });
  const text = await refused(
    app,
    () => fetch(context, copy, common, { maxBytes }),
  );
  assert.match(text, "The files of HEAD would take 80 MiB\n64 MiB is the most");
  assert.match(text, "--max-size 128m");
  git(target, "reset", "--quiet", "--hard", "HEAD~");
  const blob = given(target, "x".repeat(MiB), "hash-object", "-w", "--stdin");
  const lines = [...Array(3000).keys()].map((at) =>
    `100644 blob ${blob}\t${at}\n`
  );
  const tree = given(target, lines.join(""), "mktree");
  const id = git(target, "commit-tree", tree, "-p", "HEAD", "-m", "x");
  git(target, "update-ref", "refs/heads/same", id);
  assert.match(
    await refused(app, () => fetch(context, copy, common)),
    "The files of same would take 2.9 GiB",
  );
  // Only in the index, as files of a sparse checkout.
  const index = lines.map((line) => line.replace("\t", "\tsame/"));
  given(target, index.join(""), "update-index", "--index-info");
  const names = lines.map((_, at) => `same/${at}\n`).join("");
  given(target, names, "update-index", "--skip-worktree", "--stdin");
  assert.match(
    await refused(app, () => compared(context, app, copy, true)),
    "The files of uncommitted would take 2.9 GiB",
  );
  // What the session began with is no reason to refuse it, however large it is.
  commit(app, { large: "x".repeat(2 * MiB) });
  const large = await copyOf(context, app);
  commit(large.target, { small: "s" });
  const { updated } = await fetch(context, large, common, { maxBytes: MiB });
  assert.is(updated.length, 1);
});

test("refuses directories that are too deep", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  given(
    copy.target,
    "commit refs/heads/deep\ncommitter a <a@b> 1 +0000\ndata 1\nx\n" +
      `M 100644 inline ${"d/".repeat(1500)}f\ndata 1\nx\n`,
    ...["fast-import", "--quiet"],
  );
  const text = await refused(
    app,
    () => fetch(context, copy, join(app, ".git")),
  );
  assert.match(text, "Its directories are more than 300 levels deep");
});

test("refuses more data, objects and branches than the limit, and takes them if asked", async (context) => {
  const app = repository(context.root);
  const common = join(app, ".git");
  const copy = await copyOf(context, app);
  const { target } = copy;
  const maxBytes = 2 * MiB;
  const get = (maxBytes: number) => fetch(context, copy, common, { maxBytes });
  // Removed again, so that only the history has it.
  writeFileSync(join(target, "random"), randomBytes(3 * MiB));
  commit(target, { n: "1" });
  rmSync(join(target, "random"));
  commit(target, { n: "2" });
  const large = await refused(app, () => get(maxBytes));
  assert.match(large, "Its commits are too large\n2 MiB is the most");
  assert.is((await get(4 * MiB)).updated.length, 1);
  copy.result.known.push(git(target, "rev-parse", "HEAD"));
  // An object for each KiB.
  const empty = [...Array(2100).keys()].map((at) =>
    "commit refs/heads/many\ncommitter a <a@b> 1 +0000\n" +
    `data 4\n${String(at).padStart(4)}\n`
  ).join("\n");
  given(target, empty, "fast-import", "--quiet");
  const many = await refused(app, () => get(maxBytes));
  assert.match(many, /^It has 2\d\d\d new objects of /);
  assert.is((await get(4 * MiB)).updated.length, 1);
  // A branch for each 200 KiB.
  const id = git(target, "rev-parse", "HEAD");
  write(join(target, ".git/refs/heads"), {
    ...Object.fromEntries([...Array(12).keys()].map((at) => [`b/${at}`, id])),
  });
  const branches = await refused(app, () => get(maxBytes));
  assert.match(branches, "It has more than 11 branches or tags\n2 MiB is");
  assert.is((await get(4 * MiB)).updated.length, 12);
  git(target, "pack-refs", "--all");
  assert.is(await refused(app, () => get(maxBytes)), branches);
});

test("refuses large files and many files that are not committed", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const common = join(app, ".git");
  // A name that is not UTF-8.
  execFileSync("sh", ["-c", "truncate -s 1T \"$(printf 'a\\377')\""], {
    cwd: copy.target,
  });
  const text = await refused(
    app,
    () => fetch(context, copy, common, { changes: true }),
  );
  assert.match(text, "What is not committed takes 1 TiB\n2 GiB is the most");
  assert.is((await fetch(context, copy, common)).untracked, 1);
  mkdirSync(join(copy.target, "many"));
  for (let at = 0; at < 900; at++) {
    writeFileSync(join(copy.target, "many", `${at}-${"x".repeat(40)}`), "");
  }
  const many = await refused(
    app,
    () => fetch(context, copy, common, { maxBytes: MiB }),
  );
  assert.match(many, "It has too many files that are not committed");
});

/** Writes a pack with a forged index, since such ids cannot be computed. */
function forgedPack(
  directory: string,
  objects: { id: string; header: Buffer; data: Buffer }[],
): void {
  const parts = [Buffer.from("PACK\0\0\0\x02\0\0\0\0", "latin1")];
  parts[0]?.writeUInt32BE(objects.length, 8);
  let at = 12;
  const entries = objects.map(({ id, header, data }) => {
    const bytes = Buffer.concat([header, deflateSync(data)]);
    const entry = { id, at, crc: crc32(bytes) };
    at += bytes.length;
    parts.push(bytes);
    return entry;
  }).sort((a, b) => a.id < b.id ? -1 : 1);
  const sha = (bytes: Buffer) => createHash("sha1").update(bytes).digest();
  const body = Buffer.concat(parts);
  const numbers = (values: number[]) => {
    const bytes = Buffer.alloc(values.length * 4);
    values.forEach((value, at) => bytes.writeUInt32BE(value >>> 0, at * 4));
    return bytes;
  };
  const index = Buffer.concat([
    Buffer.from("\xfftOc\0\0\0\x02", "latin1"),
    numbers(
      [...Array(256).keys()].map((first) =>
        entries.filter(({ id }) => parseInt(id.slice(0, 2), 16) <= first).length
      ),
    ),
    Buffer.from(entries.map(({ id }) => id).join(""), "hex"),
    numbers(entries.map(({ crc }) => crc)),
    numbers(entries.map(({ at }) => at)),
    sha(body),
  ]);
  const name = join(directory, `pack-${"1".repeat(40)}`);
  writeFileSync(`${name}.pack`, Buffer.concat([body, sha(body)]));
  writeFileSync(`${name}.idx`, Buffer.concat([index, sha(index)]));
}

/** A number in parts of 7 bits, the lowest first, as gitformat-pack(5) has them. */
function sizeBytes(size: number): number[] {
  return size < 128
    ? [size]
    : [size % 128 | 128, ...sizeBytes(Math.floor(size / 128))];
}

function objectHeader(kind: number, size: number): number[] {
  const first = kind << 4 | size % 16;
  return size < 16
    ? [first]
    : [first | 128, ...sizeBytes(Math.floor(size / 16))];
}

test("refuses deltas that expand to a terabyte", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const { target } = copy;
  const step = 0xffff00;
  const idOf = (level: number) =>
    createHash("sha1").update(`${level}`).digest("hex");
  const objects = [{
    id: idOf(0),
    header: Buffer.from(objectHeader(3, step)),
    data: Buffer.alloc(step),
  }];
  let size = step;
  for (let level = 1; level <= 16; level++) {
    // Each copies the beginning of the one before, again and again.
    const copies = Buffer.alloc(4 * 2 ** level);
    copies.fill(Buffer.from([0xf0, 0, 0xff, 0xff]));
    const data = Buffer.concat([
      Buffer.from([...sizeBytes(size), ...sizeBytes(size * 2)]),
      copies,
    ]);
    size *= 2;
    objects.push({
      id: idOf(level),
      header: Buffer.concat([
        Buffer.from(objectHeader(7, data.length)),
        Buffer.from(idOf(level - 1), "hex"),
      ]),
      data,
    });
  }
  forgedPack(join(target, ".git/objects/pack"), objects);
  const tree = given(
    target,
    `100644 blob ${idOf(16)}\tbomb\n`,
    ...["mktree", "--missing"],
  );
  const id = git(target, "commit-tree", tree, "-p", "HEAD", "-m", "x");
  git(target, "update-ref", "refs/heads/bomb", id);
  const text = await refused(
    app,
    () => fetch(context, copy, join(app, ".git"), { maxBytes: 1024 ** 5 }),
  );
  assert.match(text, "attempting to allocate");
});

test("takes hundreds of deltas on each other as chains of 50", async (context) => {
  const app = repository(context.root);
  const copy = await copyOf(context, app);
  const lines = [...Array(1000).keys()].map((at) => `line ${at}\n`);
  const versions = [...Array(500).keys()].map((at) => {
    lines[at] = `changed ${at}\n`;
    const text = lines.join("");
    return "commit refs/heads/long\ncommitter a <a@b> 1 +0000\ndata 0\n" +
      `M 100644 inline f\ndata ${text.length}\n${text}\n`;
  });
  given(
    copy.target,
    versions.join(""),
    ...["fast-import", "--quiet", "--depth=4000"],
  );
  const longest = (directory: string) => {
    const packs = join(directory, ".git/objects/pack");
    const indexes = readdirSync(packs).filter((name) => name.endsWith(".idx"));
    const text = git(packs, "verify-pack", "--verbose", ...indexes);
    const found = text.matchAll(/^chain length = (\d+)/gm);
    return Math.max(...[...found].map(([, length]) => Number(length)));
  };
  assert.ok(longest(copy.target) > 400);
  const { updated } = await fetch(context, copy, join(app, ".git"));
  assert.is(updated.find(({ branch }) => branch === "long")?.commits, 500);
  assert.ok(longest(app) <= 50);
});

test.run();
