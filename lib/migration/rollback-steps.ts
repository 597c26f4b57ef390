// The steps of a rollback; each can be run again from wherever it was broken off.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { stopDaemon } from "../daemon/daemon.ts";
import { stopWorker } from "../worker/ending.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { stopSession } from "../session/session.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { listWorkers } from "../worker/workers.ts";
import type { Journal } from "../instance/migration-journal.ts";
import { forgetMigrated } from "./migrated.ts";
import type { Mover } from "./mover-container.ts";
import { comparisonSchema } from "./mover/operations.ts";
import { insideMover, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";
import { partsToBring, type RollbackOptions } from "./rollback-plan.ts";
import {
  backUpVolumes,
  freeStamp,
  presentVolumes,
  type Track,
  verify,
} from "./steps.ts";

export class Rollback {
  readonly #instance: Instance;
  readonly #journal: Journal;
  readonly #version: string;
  readonly #track: Track;

  constructor(
    instance: Instance,
    journal: Journal,
    version: string,
    track: Track,
  ) {
    this.#instance = instance;
    this.#journal = journal;
    this.#version = version;
    this.#track = track;
  }

  get #kept(): string {
    return `pre-rollback-${this.#journal.state.stamp}`;
  }

  get keptPath(): string {
    return join(this.#instance.home.backups, this.#kept);
  }

  /** Conversations are written down before their workers end. */
  async stopAll(): Promise<void> {
    const { log } = this.#track;
    for (const worker of await listWorkers(this.#instance)) {
      if (worker.session) {
        await stopSession(this.#instance, worker.session, log);
      } else await stopWorker(this.#instance, worker, log);
    }
    await stopDaemon(this.#instance, log);
  }

  /** Once nobody writes any more: what was planned may have changed since. */
  async chooseParts(
    mover: Mover,
    options: Pick<RollbackOptions, "replaceLocal">,
  ): Promise<void> {
    const journal = this.#journal;
    if (journal.state.backup !== null || journal.hasBegun("manifest")) return;
    try {
      const parts = await partsToBring(
        this.#instance,
        mover,
        journal.state.migrated ?? [],
        options,
      );
      journal.note({ parts });
    } catch (error) {
      // Nothing was moved yet; the daemon may start again.
      if (error instanceof Failure && error.kind === "unsafe") journal.remove();
      throw error;
    }
  }

  /** Beside the local directories: what they are to be, checked. */
  async stage(mover: Mover): Promise<void> {
    const { owner } = this.#instance;
    const { backup, keepVolumes, parts } = this.#journal.state;
    const source = (name: string) =>
      backup === null
        ? insideMover.volume(name)
        : insideMover.backup(backup, name);
    if (backup === null && parts.includes("chromadb")) {
      // ChromaDB's user is nobody outside the parent.
      await mover.act({
        op: "give",
        path: source("chromadb"),
        from: serviceUsers.chromadb,
        owner,
      });
    }
    await this.#journal.step("manifest", () =>
      backup === null
        ? mover.act({
          op: "manifest",
          parts: parts.map((name) => ({ name, path: source(name) })),
          to: insideMover.work("rollback.json"),
          kind: "rollback",
          versions: { "hal-9000-dind": this.#version },
          owner,
        }, this.#track.begin("Reading"))
        : mover.act({
          op: "copyFile",
          from: insideMover.backup(backup, "manifest.json"),
          to: insideMover.work("rollback.json"),
        }));
    await mover.act({
      op: "directory",
      path: insideMover.backup(this.#kept),
      owner,
    });
    if (backup !== null && !keepVolumes) {
      // Today's data would go with the volumes.
      await this.#journal.step(
        "save",
        () =>
          backUpVolumes(this.#instance, mover, {
            backup: this.#kept,
            below: "volumes",
            kind: "rollback",
            version: this.#version,
          }, this.#track),
      );
    }
    for (const name of parts) {
      await this.#journal.step(`copy:${name}`, async () => {
        const to = insideMover.work(name);
        await mover.act({ op: "remove", path: to });
        const progress = this.#track.begin(`Copying ${name}`);
        await mover.act({ op: "copy", from: source(name), to }, progress);
      });
    }
    await this.#journal.step("verify", async () => {
      try {
        await this.#verify(mover, "the copy", insideMover.work);
      } catch (error) {
        this.#journal.forget([
          "manifest",
          ...parts.map((name) => `copy:${name}`),
        ]);
        throw error;
      }
    });
  }

  /** Two renames for each; where one was broken off follows from what is there. */
  async swap(mover: Mover): Promise<void> {
    const { home } = this.#instance;
    let swapped = false;
    for (const name of this.#journal.state.parts) {
      await this.#journal.step(`swap:${name}`, async () => {
        const staged = join(home.migration, name);
        const local = join(home.home, name);
        if (!existsSync(staged)) return;
        swapped = true;
        if (existsSync(local)) {
          // Somebody may have made it anew since it was put away.
          const again = existsSync(join(this.keptPath, name));
          await mover.act({
            op: "rename",
            from: insideMover.local(name),
            to: insideMover.backup(this.#kept, again ? `${name}.later` : name),
          });
        }
        await mover.act({
          op: "rename",
          from: insideMover.work(name),
          to: insideMover.local(name),
        });
      });
    }
    // In a later run they may have been put to use already.
    if (!swapped) return;
    await this.#verify(mover, "the local directories", insideMover.local);
  }

  /** What was replaced is a backup like any other. */
  async keepManifest(mover: Mover): Promise<void> {
    await this.#journal.step("keep", async () => {
      const { parts } = this.#journal.state;
      const kept = parts.filter((name) =>
        existsSync(join(this.keptPath, name))
      );
      if (kept.length === 0) {
        if (existsSync(join(this.keptPath, "volumes"))) return;
        const path = insideMover.backup(this.#kept);
        return await mover.act({ op: "remove", path });
      }
      await mover.act({
        op: "manifest",
        parts: kept.map((name) => ({
          name,
          path: insideMover.backup(this.#kept, name),
        })),
        to: insideMover.backup(this.#kept, "manifest.json"),
        kind: "rollback",
        versions: { "hal-9000-dind": this.#version },
        owner: this.#instance.owner,
      }, this.#track.begin("Reading what was replaced"));
    });
  }

  /**
   * That of the memory bank is a directory of the home, and would stay full. Gives
   * the names of those that hold data all the same.
   */
  async emptyVolumes(mover: Mover): Promise<string[]> {
    await this.#refuseChange(mover);
    const present = await presentVolumes(this.#instance);
    const holding = () =>
      mover.do({ op: "inUse", parts: present }, v.array(v.string()));
    await this.#journal.step("empty", async () => {
      const { backup, parts } = this.#journal.state;
      const data = await holding();
      for (const { name, path } of present) {
        // What did not come back is of no use only while it holds nothing.
        const saved = backup !== null || parts.includes(name);
        if (saved || !data.includes(name)) {
          await mover.act({ op: "empty", path });
        }
      }
    });
    return await holding();
  }

  /** What was written to the volumes since they were copied is copied, too. */
  async #refuseChange(mover: Mover): Promise<void> {
    const { backup } = this.#journal.state;
    if (this.#journal.hasBegun("empty")) return;
    const manifest = backup === null
      ? insideMover.work("rollback.json")
      : insideMover.backup(this.#kept, "volumes", "manifest.json");
    const present = await presentVolumes(this.#instance);
    const { parts } = this.#journal.state;
    const { count, first } = await mover.do({
      op: "compare",
      parts: backup === null
        ? present.filter(({ name }) => parts.includes(name))
        : present,
      manifest,
      contents: false,
    }, comparisonSchema);
    if (count === 0) return;
    // What is in place by now is kept like what was there before it.
    this.#journal.forget(
      Object.keys(this.#journal.state.steps).filter((step) => step !== "stop"),
    );
    this.#journal.note({ stamp: freeStamp(this.#instance, ["pre-rollback"]) });
    throw new Failure(
      "busy",
      `Written to since it was copied: ${first.join("; ")}`,
      { hint: "Stop what writes to the volumes, then run it again." },
    );
  }

  /** Removes the volumes but for those that are still full. */
  async removeVolumes(full: string[]): Promise<string[]> {
    if (this.#journal.state.keepVolumes) return [];
    for (const name of full) {
      this.#track.log(`warning: the volume of ${name} holds data: it stays`);
    }
    const present = (await presentVolumes(this.#instance))
      .filter(({ name }) => !full.includes(name));
    const removed = movedParts
      .filter(({ name }) => present.some((volume) => volume.name === name))
      .map((part) => volumeOf(this.#instance, part));
    for (const volume of removed) {
      await this.#instance.docker.getVolume(volume).remove();
    }
    return removed;
  }

  end(): void {
    const { home } = this.#instance;
    rmSync(join(home.migration, "rollback.json"), { force: true });
    forgetMigrated(this.#instance);
    this.#journal.remove();
  }

  async #verify(
    mover: Mover,
    what: string,
    path: (name: string) => string,
  ): Promise<void> {
    const { parts } = this.#journal.state;
    await verify(mover, {
      what,
      parts: parts.map((name) => ({ name, path: path(name) })),
      manifest: insideMover.work("rollback.json"),
    }, this.#track.begin(`Checking ${what}`));
  }
}
