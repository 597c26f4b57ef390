import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../lib/std/errors.ts";
import { listBackups } from "../../lib/migration/backups.ts";
import { refuseWithoutRoom } from "../../lib/migration/room.ts";
import {
  Journal,
  readJournal,
  readJournalOf,
  refuseWhileMoving,
  stampOf,
} from "../../lib/instance/migration-journal.ts";
import { entriesOf, manifestOf } from "../../lib/migration/mover/manifest.ts";
import { findSessions } from "../../lib/migration/sessions.ts";
import {
  compareTrees,
  type Entry,
  shown,
} from "../../lib/migration/mover/tree.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { instanceNames } from "../../lib/instance/labels.ts";
import { migratedParts, writeMigrated } from "../../lib/migration/migrated.ts";
import type { Mover } from "../../lib/migration/mover-container.ts";
import { partsToRestore } from "../../lib/migration/rollback-parts.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";

const test = suite<{ root: string; instance: Instance }>("migration");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-migration-"));
  const home = homePaths(context.root);
  for (const directory of [home.migration, home.claude, home.backups]) {
    mkdirSync(directory);
  }
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const host = { mount: "", roots: undefined };
  context.instance = { home, owner, host } as unknown as Instance;
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

const file = (path: string, more: Partial<Entry> = {}): Entry => ({
  path,
  type: "file",
  size: 3,
  mode: "644",
  uid: 1,
  gid: 2,
  mtime: "1.5",
  sha256: "aa",
  ...more,
});

const differences: [string, Entry, Entry | undefined, string | undefined][] = [
  ["nothing for equal entries", file("a"), file("a"), undefined],
  ["a missing entry", file("a"), undefined, "missing"],
  ["different content", file("a"), file("a", { sha256: "bb" }), "content"],
  [
    "nothing for content that was not read",
    file("a"),
    (({ sha256: _, ...rest }) => rest)(file("a")),
    undefined,
  ],
  ["a different mode", file("a"), file("a", { mode: "600" }), "mode"],
  ["a different owner", file("a"), file("a", { uid: 9, gid: 9 }), "uid, gid"],
  ["a different time", file("a"), file("a", { mtime: "1.6" }), "mtime"],
  [
    "a different link target",
    file("a", { type: "link", target: "x" }),
    file("a", { type: "link", target: "y" }),
    "target",
  ],
  [
    "a copy instead of a hard link",
    file("a", { sameAs: "b" }),
    file("a"),
    "sameAs",
  ],
];

for (const [what, wanted, found, expected] of differences) {
  test(`compareTrees() reports ${what}`, () => {
    const all = compareTrees([wanted], found ? [found] : []);
    assert.equal(
      all.map(({ what }) => what),
      expected === undefined ? [] : [expected],
    );
  });
}

test("compareTrees() reports additional entries", () => {
  assert.equal(compareTrees([], [file("new")]), [{
    path: "new",
    what: "extra",
  }]);
});

test("a manifest preserves names with any bytes in each part", () => {
  const entries = [
    file("", { type: "directory" }),
    file("line\nbreak"),
    file("n\xe9 or not \xff", { sameAs: "\xff" }),
    file("link", { type: "link", target: "\xfe" }),
    file("\xc3\xa9"), // é in UTF-8
  ];
  const head = {
    kind: "migrate",
    createdAt: "2026-01-01T00:00:00Z",
    versions: {},
  };
  const parts = [{ name: "plugins", entries }, {
    name: "plug",
    entries: [file("in")],
  }];
  const manifest = JSON.parse(JSON.stringify(manifestOf(head, parts)));
  assert.equal(entriesOf(manifest, "plugins"), entries);
  assert.equal(entriesOf(manifest, "plug"), [file("in")]);
  assert.equal(manifest.parts, [{ name: "plugins", files: 3, bytes: 15 }, {
    name: "plug",
    files: 1,
    bytes: 3,
  }]);
  assert.is(manifest.entries.at(-2).path, "plugins/é");
});

test("shown() escapes control characters and invalid UTF-8", () => {
  assert.is(shown("a\nb"), "a\\x0ab");
  assert.is(shown("\xc3\xa9"), "é");
  assert.is(shown("\xff\xc3\xa9"), "\\xff\\xc3\\xa9");
});

test("stampOf() sorts chronologically", () => {
  assert.is(stampOf(new Date("2026-11-21T13:05:09.123Z")), "20261121T130509Z");
});

const state = (kind: "migrate" | "rollback") => ({
  version: 1 as const,
  kind,
  stamp: "20261121T130509Z",
  parts: [],
  skipBackup: false,
  keepVolumes: false,
  backup: null,
  made: [],
  steps: {},
});

test("Journal runs a step once, and repeats an interrupted one", async ({ instance }) => {
  const journal = new Journal(instance, state("migrate"));
  const ran: string[] = [];
  await journal.step("one", () => void ran.push("one"));
  const broken = journal.step("two", () => {
    throw new Error("killed");
  });
  await broken.then(() => assert.unreachable(), () => {});
  const next = readJournal(instance);
  assert.ok(next);
  await next.step("one", () => void ran.push("one again"));
  await next.step("two", () => void ran.push("two"));
  assert.equal(ran, ["one", "two"]);
  assert.ok(next.isDone("two"));
  next.remove();
  assert.is(readJournal(instance), undefined);
});

test("readJournalOf() and the daemon refuse during an unfinished move", ({ instance }) => {
  const journal = new Journal(instance, state("rollback"));
  journal.note({});
  assert.throws(
    () => readJournalOf(instance, "migrate"),
    (error: Failure) => error.kind === "busy",
  );
  assert.throws(
    () => refuseWhileMoving(instance),
    /A rollback has not finished/,
  );
  journal.note({ kind: "migrate" });
  assert.throws(
    () => refuseWhileMoving(instance),
    /A migration has not finished/,
  );
  journal.note({ steps: { start: "begun" } });
  refuseWhileMoving(instance);
  assert.is(readJournalOf(instance, "rollback"), undefined);
});

test("readJournal() refuses a damaged journal, and keeps it", ({ instance }) => {
  const path = join(instance.home.migration, "journal.json");
  writeFileSync(path, '{"version":1');
  assert.throws(() => readJournal(instance), /Cannot read the journal/);
  assert.is(readFileSync(path, "utf8"), '{"version":1');
});

test("refuseWithoutRoom() reports required and free space", () => {
  refuseWithoutRoom([{ at: "/a", neededBytes: 5, freeBytes: 5 }]);
  assert.throws(
    () => refuseWithoutRoom([{ at: "/a", neededBytes: 2048, freeBytes: 1024 }]),
    /Not enough disk space at \/a: 2 KiB needed, 1 KiB free/,
  );
});

test("findSessions() ignores other files, and reports damaged ones", ({ instance }) => {
  const lay = (name: string, text?: string) => {
    const directory = join(instance.home.claude, name);
    mkdirSync(directory);
    if (text !== undefined) {
      writeFileSync(join(directory, ".claudy-session.json"), text);
    }
  };
  const good = {
    name: "x",
    profile: "java",
    project_dir: "/p",
    created_at: "2026-01-25T10:00:00+01:00",
  };
  lay("claudy-p-12345678", JSON.stringify(good));
  lay(".shared-config");
  lay("claudy-relative", JSON.stringify({ ...good, project_dir: "p" }));
  lay("claudy-time", JSON.stringify({ ...good, created_at: "yesterday" }));
  lay(`claudy-${"x".repeat(80)}`, JSON.stringify(good));
  const told: string[] = [];
  assert.equal(findSessions(instance, (line) => told.push(line)), [{
    name: "claudy-p-12345678",
    project: "/p",
    createdAt: "2026-01-25T09:00:00.000Z",
    profile: "java",
  }]);
  assert.is(told.length, 3);
});

test("listBackups() marks backups without a manifest as interrupted", ({ instance }) => {
  mkdirSync(join(instance.home.backups, "pre-dind-20260101T000000Z"));
  mkdirSync(join(instance.home.backups, "mine"));
  const backups = listBackups(instance);
  assert.equal(backups.map(({ name, parts }) => [name, parts]), [[
    "pre-dind-20260101T000000Z",
    null,
  ]]);
  assert.ok(existsSync(join(instance.home.backups, "mine")));
});

/** A backup as the original script writes it. */
function layOriginalBackup(
  { home }: Instance,
  name: string,
  manifest: string | undefined,
) {
  const path = join(home.backups, name);
  mkdirSync(join(path, "chromadb"), { recursive: true });
  mkdirSync(join(path, "membank", "app"), { recursive: true });
  writeFileSync(join(path, "membank", "app", "notes.md"), "notes");
  writeFileSync(join(path, "membank", "readme.md"), "text");
  symlinkSync(join(path, "membank"), join(path, "plugins"));
  if (manifest !== undefined) {
    writeFileSync(join(path, "manifest.json"), manifest);
  }
}

test("listBackups() lists those of the original script, which have no checksums", ({ instance }) => {
  const manifest = (created_at: string) =>
    JSON.stringify({
      created_at,
      hal9000_home: "/home/me/.hal9000",
      source_version: "v0.5.x",
      target_version: "v0.6.x",
    });
  layOriginalBackup(
    instance,
    "pre-dind-20260126-101112",
    manifest("2026-01-26T10:11:12-08:00"),
  );
  layOriginalBackup(instance, "pre-dind-20260125-101112", manifest("?"));
  layOriginalBackup(instance, "pre-dind-20260124-101112", undefined);
  layOriginalBackup(instance, "pre-dind-20260123-101112", '{"version":1}');
  layOriginalBackup(instance, "pre-dind-20260122", manifest(""));
  const backups = listBackups(instance);
  const found = new Map(backups.map((backup) => [backup.name, backup]));
  const first = found.get("pre-dind-20260126-101112");
  assert.is(first?.createdAt, "2026-01-26T18:11:12.000Z");
  assert.is(first?.checksums, false);
  assert.is(first?.whole, null);
  assert.equal(first?.parts, [
    { name: "chromadb", files: 0, bytes: 0 },
    { name: "membank", files: 2, bytes: 9 },
  ]);
  assert.is(found.get("pre-dind-20260125-101112")?.parts?.length, 2);
  assert.is(found.get("pre-dind-20260124-101112")?.parts, null);
  assert.is(found.get("pre-dind-20260123-101112")?.parts, null);
  assert.is(backups.length, 4);
});

test("a home with only a backup of the original script, or only sessions, is a home", ({ instance, root }) => {
  rmSync(root, { recursive: true });
  const ready = () => ensureHome({ ...instance, prefix: "x" });
  mkdirSync(join(instance.home.backups, "pre-dind-20260126-101112"), {
    recursive: true,
  });
  assert.throws(ready, /contains unrelated files/);
  layOriginalBackup(instance, "pre-dind-20260126-101112", "{}");
  ready();
  rmSync(root, { recursive: true });
  mkdirSync(join(instance.home.claude, "project"), { recursive: true });
  assert.throws(ready, /contains unrelated files/);
  mkdirSync(join(instance.home.claude, ".shared-config"));
  ready();
});

// Only root can change owners.
const asRoot = process.getuid?.() === 0 ? test : test.skip;

asRoot(
  "an empty memory bank gets the home's owner back, and a full one keeps its own",
  ({ instance, root }) => {
    rmSync(root, { recursive: true });
    const { home } = instance;
    const ready = () => ensureHome({ ...instance, prefix: "x" });
    ready();
    const ownerAfter = (act: () => void) => {
      act();
      chownSync(home.memorybank, 4321, 4321);
      ready();
      return statSync(home.memorybank).uid;
    };
    assert.is(ownerAfter(() => {}), instance.owner.uid);
    const note = join(home.memorybank, "note.md");
    assert.is(ownerAfter(() => writeFileSync(note, "kept")), 4321);
  },
);

/** A fake engine with volumes and their ids. */
function withVolumes(instance: Instance, ids: Record<string, string>) {
  const getVolume = (Name: string) => ({
    inspect: () =>
      Name in ids
        ? Promise.resolve({ Name, Labels: { "hal9000.volume": ids[Name] } })
        : Promise.reject({ statusCode: 404 }),
  });
  const names = instanceNames("x");
  return { ...instance, names, docker: { getVolume } } as unknown as Instance;
}

const volumes = { "x-chromadb": "1", "x-memorybank": "2", "x-plugins": "3" };

test("migratedParts() ignores volumes that were created later", async ({ instance }) => {
  const now = { ...volumes, "x-plugins": "4" };
  const later = withVolumes(instance, now);
  assert.equal(await migratedParts(later), []);
  writeMigrated(instance, { stamp: "s", backup: null, volumes });
  assert.equal(await migratedParts(later), ["chromadb", "membank"]);
  // The format of an earlier version.
  writeMigrated(instance, { stamp: "s", backup: null });
  assert.equal((await migratedParts(later)).length, 3);
});

interface Order {
  what: string;
  migrated?: string[];
  local: string[];
  holding: string[];
  replaceLocal?: boolean;
  brings: string[] | "refused";
}

const all = ["chromadb", "membank", "plugins"];
const orders: Order[] = [
  { what: "only a start", local: all, holding: [], brings: [] },
  {
    what: "a migration",
    migrated: all,
    local: all,
    holding: ["membank"],
    brings: all,
  },
  {
    what: "no former home",
    local: [],
    holding: ["membank"],
    brings: ["membank"],
  },
  {
    what: "a migration of one part",
    migrated: all,
    local: ["plugins"],
    holding: ["membank"],
    brings: ["membank", "plugins"],
  },
  {
    what: "both in use",
    local: all,
    holding: ["chromadb"],
    brings: "refused",
  },
  {
    what: "both in use, with --replace-local",
    local: all,
    holding: ["chromadb"],
    replaceLocal: true,
    brings: ["chromadb"],
  },
];

for (const { what, migrated = [], replaceLocal = false, ...order } of orders) {
  test(`partsToRestore() after ${what}`, async ({ instance, root }) => {
    for (const name of order.local) mkdirSync(join(root, name));
    const mover = {
      do: (_: string, { at, parts }: { at: string; parts: string[] }) =>
        Promise.resolve(
          parts.filter((name) =>
            (at === "/volumes" ? order.holding : order.local).includes(name)
          ),
        ),
    } as unknown as Mover;
    const found = await partsToRestore(
      withVolumes(instance, volumes),
      mover,
      migrated,
      { replaceLocal },
    ).catch((error) => error instanceof Failure ? "refused" : error);
    assert.equal(found, order.brings);
  });
}

test.run();
