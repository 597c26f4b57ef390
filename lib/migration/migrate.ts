// From version 0.5: its data into the instance's volumes. The source stays as it is;
// every file is checked against a manifest before ChromaDB opens its copy.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { startDaemon, stopDaemon } from "../daemon.ts";
import { inspectVolume } from "../docker.ts";
import { Failure } from "../errors.ts";
import type { Instance } from "../instance.ts";
import type { Log } from "../log.ts";
import { ensureHome, ensureVolume } from "../volumes.ts";
import { liveWorkers } from "../workers.ts";
import {
  refuseGateway,
  refuseLinks,
  refuseUsers,
  refuseWithoutRoom,
  refuseWriters,
  type Room,
  roomFor,
} from "./checks.ts";
import { collectionsSchema } from "./collections.ts";
import { Journal, readJournalOf } from "./journal.ts";
import { readMigrated, writeMigrated } from "./migrated.ts";
import { Mover, performIn } from "./mover.ts";
import {
  comparisonSchema,
  type Measured,
  measuredSchema,
} from "./operations.ts";
import {
  backupParts,
  insideMover,
  movedParts,
  sessionsPart,
  volumeOf,
} from "./parts.ts";
import { findSessions, rememberSessions } from "./sessions.ts";
import {
  backUpVolumes,
  freeStamp,
  presentVolumes,
  type Track,
  verify,
} from "./steps.ts";

export interface MigrateOptions {
  skipBackup: boolean;
  /** Volumes that hold data are emptied, into a backup. */
  force: boolean;
}

export interface MigrationPlan {
  parts: (Measured & { from: string; to: string })[];
  sessions: string[];
  /** Volumes that hold data already. */
  occupied: string[];
  rooms: Room[];
  /** Of a run that has not ended. */
  resumes: boolean;
}

/** What there is to migrate, and whether that can be; changes nothing. */
export async function planMigration(
  instance: Instance,
  options: MigrateOptions,
  log: Log,
): Promise<MigrationPlan> {
  const { home } = instance;
  const directories = movedParts.map(({ name }) => join(home.home, name))
    .filter((path) => existsSync(path));
  const journal = readJournalOf(instance, "migrate");
  if (directories.length === 0 && !journal) {
    throw new Failure("notFound", `Nothing of version 0.5 is in ${home.home}`, {
      hint: "Its data is in chromadb, membank and plugins there.",
    });
  }
  refuseLinks(instance);
  await refuseGateway(instance);
  refuseOtherOptions(journal, options);
  await refuseUsers(instance, directories);
  refuseWriters(directories);
  if (!journal?.hasBegun("start")) await refuseWorkers(instance);
  const mover = await Mover.start(instance, { volumes: true, readOnly: true });
  let measured: Measured[];
  let occupied: string[];
  try {
    measured = await mover.do({
      op: "measure",
      parts: backupParts.map((name) => ({
        name,
        path: insideMover.local(name),
      })),
    }, measuredSchema);
    occupied = await occupiedVolumes(instance, mover);
  } finally {
    await mover.stop(instance);
  }
  const moved = measured.filter(({ name }) => name !== sessionsPart);
  const bytes = (parts: Measured[]) =>
    parts.reduce((sum, part) => sum + part.bytes, 0);
  return {
    parts: measured.map((part) => {
      const moves = movedParts.find(({ name }) => name === part.name);
      return {
        ...part,
        from: join(home.home, part.name),
        to: moves ? volumeOf(instance, moves) : "stays",
      };
    }),
    sessions: findSessions(instance, log).map(({ name }) => name),
    occupied: journal?.isDone("save") ? [] : occupied,
    rooms: await roomFor(instance, {
      backupBytes: options.skipBackup || journal?.isDone("backup")
        ? 0
        : bytes(measured),
      volumeBytes: bytes(moved),
    }),
    resumes: journal !== undefined,
  };
}

/** What was broken off goes on as it began. */
function refuseOtherOptions(
  journal: Journal | undefined,
  { skipBackup }: MigrateOptions,
): void {
  if (!journal || !skipBackup || journal.state.skipBackup) return;
  throw new Failure("usage", "The migration that was broken off has a backup", {
    hint: "Leave --skip-backup out, or begin anew: migrate --abort",
  });
}

async function refuseWorkers(instance: Instance): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length === 0) return;
  throw new Failure("busy", `Workers run: ${live.join(", ")}`, {
    hint: "Stop them first: coordinator stop-all",
  });
}

/** Names of the volumes that hold data. */
async function occupiedVolumes(
  instance: Instance,
  mover: Mover,
): Promise<string[]> {
  const parts = await presentVolumes(instance);
  const names = await mover.do({ op: "inUse", parts }, v.array(v.string()));
  return movedParts.filter(({ name }) => names.includes(name))
    .map((part) => volumeOf(instance, part));
}

export interface Migrated {
  /** Null where none was wanted. */
  backup: string | null;
  parts: Measured[];
  sessions: number;
  collections: { name: string; count: number }[] | null;
}

/** Migrates, or goes on with a migration that has not ended. */
export async function migrate(
  instance: Instance,
  plan: MigrationPlan,
  options: MigrateOptions,
  env: NodeJS.ProcessEnv,
  track: Track,
  version: string,
): Promise<Migrated> {
  const { log } = track;
  refuseWithoutRoom(plan.rooms);
  if (plan.occupied.length > 0 && !options.force) {
    throw new Failure(
      "unsafe",
      `Volumes hold data already: ${plan.occupied.join(", ")}`,
      {
        hint: readMigrated(instance)
          ? "They were migrated before. Go back: rollback. Or again, with what " +
            "they hold moved into a backup: --force"
          : "--force moves that into a backup first.",
      },
    );
  }
  ensureHome(instance);
  const lock = await Mover.start(instance, { volumes: false });
  let journal: Journal;
  let move: Migration;
  let served: boolean;
  try {
    // Behind the lock: another run may have ended in the meantime, or been killed.
    journal = readJournalOf(instance, "migrate") ??
      newJournal(instance, plan, options);
    move = new Migration(instance, journal, plan, version, track);
    served = journal.isDone("start");
    await move.saveSource(lock);
    await move.prepareVolumes(options.force);
    await move.fillVolumes(lock);
  } finally {
    await lock.stop(instance);
  }
  let sessions = 0;
  await journal.step("sessions", () => {
    sessions = rememberSessions(instance, log);
  });
  await journal.step("start", async () => {
    track.begin("Starting the daemon");
    await startDaemon(instance, env, log);
  });
  const collections = await move.checkCollections(served);
  const backup = journal.state.skipBackup ? null : move.backupPath;
  writeMigrated(instance, { stamp: journal.state.stamp, backup });
  move.end();
  return {
    backup,
    parts: plan.parts
      .filter(({ name }) => journal.state.parts.includes(name))
      .map(({ name, entries, files, bytes }) => ({
        name,
        entries,
        files,
        bytes,
      })),
    sessions,
    collections,
  };
}

function newJournal(
  instance: Instance,
  plan: MigrationPlan,
  { skipBackup }: MigrateOptions,
): Journal {
  const stamp = freeStamp(instance, ["pre-dind", "pre-force"]);
  return new Journal(instance, {
    version: 1,
    kind: "migrate",
    stamp,
    parts: plan.parts.map(({ name }) => name),
    skipBackup,
    keepVolumes: false,
    backup: `pre-dind-${stamp}`,
    made: [],
    steps: {},
  });
}

/** The steps; each can be run again from wherever it was broken off. */
class Migration {
  readonly #instance: Instance;
  readonly #journal: Journal;
  readonly #plan: MigrationPlan;
  readonly #version: string;
  readonly #track: Track;

  constructor(
    instance: Instance,
    journal: Journal,
    plan: MigrationPlan,
    version: string,
    track: Track,
  ) {
    this.#instance = instance;
    this.#journal = journal;
    this.#plan = plan;
    this.#version = version;
    this.#track = track;
  }

  /** Its name changes where all is begun anew: one that is whole stays. */
  get #backup(): string {
    return this.#journal.state.backup ?? "";
  }

  get backupPath(): string {
    return join(this.#instance.home.backups, this.#backup);
  }

  /** The manifest of the source, and a backup that agrees with it. */
  async saveSource(mover: Mover): Promise<void> {
    await this.#refuseChange(mover);
    await this.#journal.step("manifest", () => this.#writeManifest(mover));
    if (this.#journal.state.skipBackup) return;
    await this.#journal.step("backup", async () => {
      const { owner } = this.#instance;
      const path = insideMover.backup(this.#backup);
      await mover.act({ op: "remove", path });
      await mover.act({ op: "directory", path, owner });
      for (const { name, entries } of this.#parts()) {
        const to = insideMover.backup(this.#backup, name);
        const progress = this.#track.begin(`Backing up ${name}`, entries);
        const from = insideMover.local(name);
        await mover.act({ op: "copy", from, to }, progress);
      }
      await this.#verify(
        mover,
        "the backup",
        (name) => insideMover.backup(this.#backup, name),
      );
      // Last: a backup that has it is whole.
      await mover.act({
        op: "copyFile",
        from: insideMover.work("manifest.json"),
        to: insideMover.backup(this.#backup, "manifest.json"),
      });
    });
  }

  /** Data that was written since the manifest: all is done anew. */
  async #refuseChange(mover: Mover): Promise<void> {
    const { home } = this.#instance;
    const journal = this.#journal;
    const kept = existsSync(join(home.migration, "manifest.json"));
    // What ChromaDB has opened is the data from then on.
    if (!kept || !journal.isDone("manifest") || journal.hasBegun("start")) {
      return;
    }
    // Sessions are only backed up.
    const parts = journal.isDone("backup") ? this.#moved() : this.#parts();
    const differences = await mover.do({
      op: "compare",
      parts: parts.map(({ name }) => ({
        name,
        path: insideMover.local(name),
      })),
      manifest: insideMover.work("manifest.json"),
      contents: false,
    }, comparisonSchema);
    if (differences.count === 0) return;
    this.#track.log(
      `Changed since the last run (${differences.first[0]}): beginning anew`,
    );
    const about = ["volumes", "save", "empty"];
    journal.forget(
      Object.keys(journal.state.steps).filter((step) => !about.includes(step)),
    );
    // A backup that is whole may be the only one of what has gone since.
    const stamp = freeStamp(this.#instance, ["pre-dind"]);
    journal.note({ backup: `pre-dind-${stamp}` });
  }

  async #writeManifest(mover: Mover): Promise<void> {
    const total = this.#parts()
      .reduce((sum, { files }) => sum + files, 0);
    await mover.act({
      op: "manifest",
      parts: this.#parts().map(({ name }) => ({
        name,
        path: insideMover.local(name),
      })),
      to: insideMover.work("manifest.json"),
      kind: "migrate",
      versions: { "hal-9000-dind": this.#version, source: "0.5" },
      owner: this.#instance.owner,
    }, this.#track.begin("Reading", total));
  }

  /** The volumes are there, and empty; what was in them is in a backup. */
  async prepareVolumes(force: boolean): Promise<void> {
    const instance = this.#instance;
    const journal = this.#journal;
    const backup = `pre-force-${journal.state.stamp}`;
    const saved = () =>
      existsSync(join(instance.home.backups, backup, "manifest.json"));
    await journal.step("volumes", async () => {
      await refuseWorkers(instance);
      await stopDaemon(instance, this.#track.log);
      for (const part of movedParts) {
        const volume = volumeOf(instance, part);
        if (await inspectVolume(instance.docker, volume)) continue;
        journal.note({ made: [...journal.state.made, volume] });
        await ensureVolume(instance, volume);
      }
    });
    await journal.step("save", () =>
      this.#withVolumes(async (mover) => {
        const occupied = await occupiedVolumes(instance, mover);
        // One that is whole is of volumes that may have been half emptied since.
        if (occupied.length === 0 || saved()) return;
        if (!force) {
          throw new Failure(
            "unsafe",
            `Volumes hold data already: ${occupied.join(", ")}`,
            { hint: "--force moves that into a backup first." },
          );
        }
        const kind = "force";
        const version = this.#version;
        const about = { backup, kind, version };
        await backUpVolumes(instance, mover, about, this.#track);
      }));
    await journal.step("empty", async () => {
      if (!saved()) return;
      await this.#withVolumes(async (mover) => {
        for (const { name } of movedParts) {
          await mover.act({ op: "empty", path: insideMover.volume(name) });
        }
      });
    });
  }

  async fillVolumes(mover: Mover): Promise<void> {
    await this.#withVolumes(async (volumes) => {
      for (const { name, entries } of this.#moved()) {
        await this.#journal.step(`copy:${name}`, async () => {
          const to = insideMover.volume(name);
          await volumes.act({ op: "empty", path: to });
          const progress = this.#track.begin(`Copying ${name}`, entries);
          const from = insideMover.local(name);
          await volumes.act({ op: "copy", from, to }, progress);
        });
      }
      await this.#journal.step("verify", async () => {
        try {
          await this.#verify(volumes, "the volumes", insideMover.volume, true);
        } catch (error) {
          // Either may be at fault: the next run finds out which.
          this.#journal.forget(this.#moved().map(({ name }) => `copy:${name}`));
          await this.#refuseChange(mover);
          throw error;
        }
      });
    });
  }

  /** What ChromaDB says that it has must be what is in the copy. */
  async checkCollections(
    /** Whether somebody may have written to it since. */
    served: boolean,
  ): Promise<Migrated["collections"]> {
    const instance = this.#instance;
    const part = this.#moved().find(({ name }) => name === "chromadb");
    if (!part) return null;
    // Of the source: ChromaDB has its own copy open by now.
    const mover = await Mover.start(instance, {
      volumes: false,
      readOnly: true,
    });
    let kept;
    try {
      kept = await mover.do(
        { op: "collections", path: insideMover.local("chromadb") },
        v.nullable(collectionsSchema),
      );
    } finally {
      await mover.stop(instance);
    }
    const found = v.parse(
      collectionsSchema,
      await performIn(instance.names.parent, {
        op: "served",
        port: instance.settings.CHROMADB_PORT,
      }),
    );
    if (kept === null) {
      this.#track.log(
        "warning: what ChromaDB should hold cannot be told from its files",
      );
      return found;
    }
    const wrong = kept.find(({ name, count }) => {
      const other = found.find((collection) => collection.name === name);
      return served ? !other : other?.count !== count;
    });
    if (!wrong) return found;
    throw new Failure(
      "failed",
      `ChromaDB does not hold ${wrong.count} of collection "${wrong.name}"`,
      { hint: "Your source is as it was; go back: rollback --backup PATH" },
    );
  }

  end(): void {
    rmSync(join(this.#instance.home.migration, "manifest.json"), {
      force: true,
    });
    this.#journal.remove();
  }

  async #withVolumes(act: (mover: Mover) => Promise<void>): Promise<void> {
    const mover = await Mover.start(this.#instance, { volumes: true });
    try {
      await act(mover);
    } finally {
      await mover.stop(this.#instance);
    }
  }

  /** Those of the run that began. */
  #parts(): MigrationPlan["parts"] {
    const { parts } = this.#journal.state;
    return this.#plan.parts.filter(({ name }) => parts.includes(name));
  }

  #moved(): MigrationPlan["parts"] {
    return this.#parts().filter(({ name }) => name !== sessionsPart);
  }

  async #verify(
    mover: Mover,
    what: string,
    path: (name: string) => string,
    movedOnly = false,
  ): Promise<void> {
    const parts = movedOnly ? this.#moved() : this.#parts();
    const total = parts.reduce((sum, { files }) => sum + files, 0);
    await verify(mover, {
      what,
      parts: parts.map(({ name }) => ({ name, path: path(name) })),
      manifest: insideMover.work("manifest.json"),
    }, this.#track.begin(`Checking ${what}`, total));
  }
}
