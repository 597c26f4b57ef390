// The steps of a migration; each can be run again from wherever it was broken off.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { stopDaemon } from "../daemon/daemon.ts";
import { inspectVolume } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { ensureVolume } from "../instance/volumes.ts";
import { type Collections, collectionsSchema } from "./mover/collections.ts";
import type { Journal } from "../instance/migration-journal.ts";
import {
  type MigrationPlan,
  occupiedVolumes,
  refuseWorkers,
} from "./migrate-plan.ts";
import { Mover, performIn } from "./mover-container.ts";
import { comparisonSchema } from "./mover/operations.ts";
import { insideMover, sessionsPart, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";
import { backUpVolumes, freeStamp, type Track, verify } from "./steps.ts";

export class Migration {
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
  ): Promise<Collections | null> {
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
