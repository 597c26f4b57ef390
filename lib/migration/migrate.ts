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
  await refuseUsers(instance, directories);
  refuseWriters(directories);
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
    occupied: journal?.hasBegun("volumes") ? [] : occupied,
    rooms: await roomFor(instance, {
      backupBytes: options.skipBackup || journal?.isDone("backup")
        ? 0
        : bytes(measured),
      volumeBytes: bytes(moved),
    }),
    resumes: journal !== undefined,
  };
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
  const journal = readJournalOf(instance, "migrate") ??
    new Journal(instance, {
      version: 1,
      kind: "migrate",
      stamp: freeStamp(instance, ["pre-dind", "pre-force"]),
      parts: plan.parts.map(({ name }) => name),
      skipBackup: options.skipBackup,
      keepVolumes: false,
      backup: null,
      made: [],
      steps: {},
    });
  const move = new Migration(instance, journal, plan, version, track);
  const served = journal.isDone("start");
  const lock = await Mover.start(instance, { volumes: false });
  try {
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
    parts: plan.parts.map(({ name, entries, files, bytes }) => ({
      name,
      entries,
      files,
      bytes,
    })),
    sessions,
    collections,
  };
}

/** The steps; each can be run again from wherever it was broken off. */
class Migration {
  readonly #instance: Instance;
  readonly #journal: Journal;
  readonly #plan: MigrationPlan;
  readonly #version: string;
  readonly #track: Track;
  readonly #backup: string;

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
    this.#backup = `pre-dind-${journal.state.stamp}`;
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
    const kept = existsSync(join(home.migration, "manifest.json"));
    if (!kept || !this.#journal.isDone("manifest")) return;
    const differences = await mover.do({
      op: "compare",
      parts: this.#moved().map(({ name }) => ({
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
    this.#journal.forget(
      Object.keys(this.#journal.state.steps)
        .filter((step) => step !== "volumes"),
    );
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
    await this.#journal.step("volumes", async () => {
      const instance = this.#instance;
      const { stamp } = this.#journal.state;
      await this.#stopUsers();
      for (const part of movedParts) {
        const volume = volumeOf(instance, part);
        if (await inspectVolume(instance.docker, volume)) continue;
        this.#journal.note({ made: [...this.#journal.state.made, volume] });
        await ensureVolume(instance, volume);
      }
      await this.#withVolumes(async (mover) => {
        const occupied = await occupiedVolumes(instance, mover);
        if (occupied.length === 0) return;
        if (!force) {
          throw new Failure(
            "unsafe",
            `Volumes hold data already: ${occupied.join(", ")}`,
            { hint: "--force moves that into a backup first." },
          );
        }
        const backup = `pre-force-${stamp}`;
        await backUpVolumes(instance, mover, {
          backup,
          kind: "force",
          version: this.#version,
        }, this.#track);
        for (const { name } of movedParts) {
          await mover.act({ op: "empty", path: insideMover.volume(name) });
        }
      });
    });
  }

  async #stopUsers(): Promise<void> {
    const live = await liveWorkers(this.#instance);
    if (live.length > 0) {
      throw new Failure("busy", `Workers run: ${live.join(", ")}`, {
        hint: "Stop them first: coordinator stop-all",
      });
    }
    await stopDaemon(this.#instance, this.#track.log);
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
