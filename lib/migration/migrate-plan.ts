// What there is to migrate, and whether that can be.

import { existsSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { liveWorkers } from "../worker/workers.ts";
import {
  refuseGateway,
  refuseLinks,
  refuseUsers,
  refuseWriters,
  type Room,
  roomFor,
} from "./checks.ts";
import { type Journal, readJournalOf } from "../instance/migration-journal.ts";
import { Mover } from "./mover-container.ts";
import { type Measured, measuredSchema } from "./mover/operations.ts";
import { backupParts, insideMover, sessionsPart, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";
import { refuseForeignInstance } from "../instance/ownership.ts";
import { findSessions } from "./sessions.ts";
import { presentVolumes } from "./steps.ts";

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
  await refuseForeignInstance(instance, { all: true });
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

export async function refuseWorkers(instance: Instance): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length === 0) return;
  throw new Failure("busy", `Workers run: ${live.join(", ")}`, {
    hint: "Stop them first: coordinator stop-all",
  });
}

/** Names of the volumes that hold data. */
export async function occupiedVolumes(
  instance: Instance,
  mover: Mover,
): Promise<string[]> {
  const parts = await presentVolumes(instance);
  const names = await mover.do({ op: "inUse", parts }, v.array(v.string()));
  return movedParts.filter(({ name }) => names.includes(name))
    .map((part) => volumeOf(instance, part));
}
