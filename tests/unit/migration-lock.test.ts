// The lock that allows one move at a time, and which backups are listed, on a fake engine.

import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import {
  Journal,
  type JournalState,
} from "../../lib/instance/migration-journal.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { listBackups, verifiedBackup } from "../../lib/migration/backups.ts";
import {
  occupiedVolumes,
  planMigration,
  refuseOccupied,
} from "../../lib/migration/migrate-plan.ts";
import { writeMigrated } from "../../lib/migration/migrated.ts";
import type { Mover } from "../../lib/migration/mover-container.ts";
import { createExclusive } from "../../lib/migration/mover-lock.ts";
import {
  planRollback,
  type RollbackOptions,
} from "../../lib/migration/rollback-plan.ts";
import { roomFor } from "../../lib/migration/room.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("migration: lock");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

const spec = { Image: "repo:parent", Labels: { mine: "yes" } };

const longAgo = new Date(Date.now() - 60_000).toISOString();

const take = ({ instance }: FakeInstance) =>
  createExclusive(instance.docker, "fake-mover", spec).then(
    () => "taken",
    ({ kind, message }: Failure) => `${kind}: ${message}`,
  );

test("a free name is taken, with a note of who took it", async (fake) => {
  assert.is(await take(fake), "taken");
  const labels = fake.engine.find("fake-mover")?.spec.Labels ?? {};
  assert.is(labels["mine"], "yes");
  assert.match(
    labels[label.owner] ?? "",
    RegExp(`^process ${process.pid} of \\w`),
  );
});

test("a mover that has never run is replaced if its process is gone", async (fake) => {
  fake.engine.add("fake-mover", {
    state: "exited",
    createdAt: longAgo,
    spec: { Labels: { [label.owner]: "process 1 of dave" } },
  });
  assert.is(await take(fake), "taken");
  assert.ok(fake.engine.asked.includes("remove fake-mover"));
});

test("a new mover that is about to run is waited for", async (fake) => {
  const { engine } = fake;
  const other = engine.add("fake-mover", {
    state: "created",
    spec: { Labels: { [label.owner]: "process 1 of dave" } },
  });
  setTimeout(() => other.name = "ended", 120);
  assert.is(await take(fake), "taken");
  assert.not.ok(engine.asked.some((what) => what.startsWith("remove")));
});

test("a container of this name that is no mover is not touched", async (fake) => {
  fake.engine.add("fake-mover", { state: "exited", createdAt: longAgo });
  assert.is(
    await take(fake),
    'busy: Container "fake-mover" does not belong to this instance',
  );
  assert.ok(fake.engine.find("fake-mover"));
});

test("another error of the engine is not waited for", async (fake) => {
  fake.engine.refuses.set("create fake-mover", 500);
  assert.is(await take(fake), "failed: Cannot create fake-mover: refused");
});

test("backups are listed newest first, with the volumes that a rollback has saved", ({ instance }) => {
  const { home } = instance;
  const lay = (name: string, createdAt: string | null) => {
    const path = join(home.backups, name);
    mkdirSync(path, { recursive: true });
    if (createdAt !== null) {
      writeFileSync(
        join(path, "manifest.json"),
        JSON.stringify({
          version: 1,
          kind: "migrate",
          createdAt,
          versions: {},
          parts: [{ name: "plugins", files: 1, bytes: 2 }],
          entries: [],
        }),
      );
    }
    return path;
  };
  lay("pre-dind-20260101T000000Z", "2026-01-01T00:00:00.000Z");
  lay("pre-rollback-20260103T000000Z", "2026-01-03T00:00:00.000Z");
  lay("pre-rollback-20260103T000000Z/volumes", "2026-01-02T00:00:00.000Z");
  utimesSync(lay("pre-force-20260104T000000Z", null), 1, 1);
  lay("PRE-dind-20260101T000000Z", "2026-01-05T00:00:00.000Z");
  lay("pre-dind-2026", "2026-01-05T00:00:00.000Z");
  const found = listBackups(instance);
  assert.equal(found.map(({ name }) => name), [
    "pre-rollback-20260103T000000Z",
    "pre-rollback-20260103T000000Z/volumes",
    "pre-dind-20260101T000000Z",
    "pre-force-20260104T000000Z",
  ]);
  assert.equal(found[2], {
    name: "pre-dind-20260101T000000Z",
    path: join(home.backups, "pre-dind-20260101T000000Z"),
    checksums: true,
    whole: null,
    damaged: [],
    createdAt: "2026-01-01T00:00:00.000Z",
    parts: [{ name: "plugins", files: 1, bytes: 2 }],
  });
  assert.is(found[3]?.parts, null);
  assert.is(found[3]?.createdAt, "1970-01-01T00:00:01.000Z");
  const none = { home: { ...home, backups: join(home.home, "none") } };
  assert.equal(listBackups(none), []);
});

test("a backup with only homes of unused sessions cannot be restored", async ({ instance }) => {
  const name = "pre-rollback-20260103T000000Z";
  const path = join(instance.home.backups, name);
  mkdirSync(path, { recursive: true });
  writeFileSync(
    join(path, "manifest.json"),
    JSON.stringify({
      version: 1,
      kind: "rollback",
      createdAt: "2026-01-03T00:00:00.000Z",
      versions: {},
      parts: [{ name: "unused-sessions", files: 1, bytes: 2 }],
      entries: [],
    }),
  );
  const track = { log: () => {}, begin: () => () => {} };
  const error = await verifiedBackup(instance, name, track)
    .then(() => undefined, (error: Failure) => error);
  assert.is(error?.message, `Backup "${name}" has no data to restore`);
  assert.is(error?.kind, "notFound");
});

test("volumes with data are refused with a way out", async ({ instance, engine }) => {
  for (const name of ["fake-plugins", "fake-chromadb"]) {
    engine.volumes.set(name, { Name: name, Labels: {} });
  }
  const asked: unknown[] = [];
  const mover = {
    do: (name: string, input: unknown) => {
      asked.push([name, input]);
      return Promise.resolve(["plugins"]);
    },
  } as unknown as Mover;
  const occupied = await occupiedVolumes(instance, mover);
  assert.equal(occupied, ["fake-plugins"]);
  assert.equal(asked, [
    ["withData", { at: "/volumes", parts: ["chromadb", "plugins"] }],
  ]);
  refuseOccupied(instance, []);
  const hint = () => {
    try {
      refuseOccupied(instance, occupied);
    } catch (error) {
      const { kind, message, hint } = error as Failure;
      assert.equal([kind, message], [
        "unsafe",
        "Volumes already contain data: fake-plugins",
      ]);
      return hint ?? "";
    }
    return "";
  };
  assert.match(hint(), "Pass --force to move it into a backup first.");
  writeMigrated(instance, { stamp: "s", backup: null });
  assert.match(
    hint(),
    "They were migrated before. Undo that: hal9000-rollback.",
  );
  assert.match(hint(), "into a backup: --force");
});

/** Writes the journal of an interrupted move. */
function interrupt({ instance }: FakeInstance, change: Partial<JournalState>) {
  const journal = new Journal(instance, {
    version: 1,
    kind: "rollback",
    stamp: "20260102T030405Z",
    parts: [],
    skipBackup: false,
    keepVolumes: false,
    backup: null,
    made: [],
    steps: {},
  });
  journal.note(change);
}

const track = { log: () => {}, begin: () => () => {} };

const resumed: [
  what: string,
  change: Partial<JournalState>,
  options: Partial<RollbackOptions>,
  says: string,
][] = [
  ["another backup", { backup: "b" }, { backup: "c" }, "--backup c"],
  ["a backup", {}, { backup: "b" }, "--backup b"],
  ["kept volumes", {}, { keepVolumes: true }, "--keep-volumes"],
];

for (const [what, change, options, says] of resumed) {
  test(`a rollback that was started without ${what} is not resumed with it`, async (fake) => {
    interrupt(fake, change);
    const all = { keepVolumes: false, replaceLocal: false, ...options };
    const failure = await planRollback(fake.instance, all, track)
      .then(() => undefined, (error: Failure) => error);
    assert.is(
      failure?.message,
      `The interrupted rollback was started without ${says}`,
    );
    assert.equal(fake.engine.asked, []);
  });
}

test("a rollback needs a home, and something to roll back from", async ({ instance }) => {
  const options = { keepVolumes: false, replaceLocal: false };
  const failureOf = (here: typeof instance, backup?: string) =>
    planRollback(here, { ...options, backup }, track)
      .then(() => undefined, (error: Failure) => error);
  const home = homePaths("/nonexistent/home");
  const gone = await failureOf({ ...instance, home });
  assert.is(
    gone?.message,
    "Cannot roll back: /nonexistent/home does not exist",
  );
  assert.match(gone?.hint ?? "", "Set HAL9000_HOME to the home to restore");
  const none = await failureOf(instance);
  assert.is(none?.message, "No volumes to roll back from");
  const unknown = await failureOf(instance, "pre-dind-x/");
  assert.is(unknown?.message, 'There is no backup "pre-dind-x/"');
  assert.match(
    unknown?.hint ?? "",
    `They must be in ${instance.home.backups}.`,
  );
});

test("a migration is refused while workers run, or with another option than before", async (fake) => {
  const { instance, engine, labels } = fake;
  mkdirSync(join(instance.home.home, "plugins"));
  const failureOf = (skipBackup: boolean, inheritHooks = false) => {
    const options = { skipBackup, inheritHooks, force: false };
    return planMigration(instance, options, () => {})
      .then(() => undefined, ({ message }: Failure) => message);
  };
  const worker = engine.add("w", { spec: { Labels: labels() } });
  assert.is(await failureOf(false), "Workers are running: w");
  worker.state = "exited";
  interrupt(fake, { kind: "migrate" });
  assert.is(
    await failureOf(true),
    "The interrupted migration was started without --skip-backup",
  );
  assert.is(
    await failureOf(false, true),
    "The interrupted migration was started without --inherit-hooks",
  );
});

test("a copy needs some more room than its data, per file system", async ({ instance, engine, root }) => {
  Object.assign(engine.about, { DockerRootDir: "/nonexistent" });
  const needed = async (home: number, volumes: number) =>
    (await roomFor(instance, { home, volumes })).map(({ neededBytes }) =>
      neededBytes
    );
  assert.equal(await needed(1000, 1000), [1_001_050]);
  assert.equal(await needed(0, 1000), [0]);
  // On the same file system, both count.
  Object.assign(engine.about, { DockerRootDir: root });
  assert.equal(await needed(1000, 2000), [1_001_050 + 1_002_100]);
  // A directory that may not be looked at: this name is refused for root too.
  Object.assign(engine.about, { DockerRootDir: join(root, "x".repeat(300)) });
  assert.equal(await needed(1000, 2000), [1_001_050 + 1_002_100]);
  const [room] = await roomFor(instance, { home: 1, volumes: 1 });
  assert.is(room?.at, instance.home.home);
  assert.ok((room?.freeBytes ?? 0) > 0);
});

test.run();
