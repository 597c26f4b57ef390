// The steps of a rollback.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { stopDaemon } from "../daemon/daemon.ts";
import { isOriginalBackup } from "../instance/volumes.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { stopSession } from "../session/session.ts";
import { Failure } from "../std/errors.ts";
import { stopWorker } from "../worker/ending.ts";
import { listWorkers } from "../worker/workers.ts";
import { backUpVolumes, copyInSteps, verify } from "./copy.ts";
import { manifestFile, type Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes } from "./parts.ts";
import { partsToRestore } from "./rollback-parts.ts";
import { unusedPart } from "./session-homes.ts";

export const manifest = `${insideMover.work}/${manifestFile.rollback}`;

/** The backup of what is replaced. */
export function replacedBackup({ journal }: Pick<Move, "journal">): string {
  return `pre-rollback-${journal.state.stamp}`;
}

/** Sessions are stopped in a way that saves their conversations. */
export async function stopAll(
  { instance, track: { log } }: Move,
): Promise<void> {
  for (const worker of await listWorkers(instance)) {
    if (worker.session) await stopSession(instance, worker.session, log);
    else await stopWorker(instance, worker, log);
  }
  await stopDaemon(instance, log);
}

/**
 * Decides again after all writers have stopped, as data may have changed since the
 * plan.
 */
export async function chooseParts(
  { instance, journal }: Move,
  mover: Mover,
  options: { replaceLocal: boolean },
): Promise<void> {
  const { backup, migrated = [] } = journal.state;
  if (backup !== null || journal.hasBegun("manifest")) return;
  try {
    const parts = await partsToRestore(instance, mover, migrated, options);
    journal.note({ parts });
  } catch (error) {
    // Nothing was moved yet, so the daemon may start again.
    if (error instanceof Failure && error.kind === "unsafe") journal.remove();
    throw error;
  }
}

/** The directory in the mover to restore from. */
function sourceOf({ journal }: Pick<Move, "journal">): string {
  const { backup } = journal.state;
  return backup === null ? insideMover.volumes : insideMover.backup(backup);
}

export async function readSource(move: Move, mover: Mover): Promise<void> {
  const { journal, track } = move;
  const { backup, parts } = journal.state;
  const at = sourceOf(move);
  if (backup === null && parts.includes("chromadb")) {
    // ChromaDB's user exists only in the parent.
    const from = serviceUsers.chromadb;
    await mover.do("give", { path: `${at}/chromadb`, from });
  }
  await journal.step(
    "manifest",
    () =>
      backup === null || isOriginalBackup(backup)
        ? mover.do(
          "manifest",
          { at, parts, to: manifest, kind: "rollback" },
          track.begin("Reading"),
        )
        : mover.do("replace", { from: `${at}/manifest.json`, to: manifest }),
  );
}

/**
 * When a backup is restored, saves the volumes' current data before they are
 * removed.
 */
export async function saveCurrent(move: Move, mover: Mover): Promise<void> {
  const { journal } = move;
  const { backup, keepVolumes } = journal.state;
  if (backup === null || keepVolumes) return;
  if ((await presentVolumes(move.instance)).length === 0) return;
  const current = {
    backup: `${replacedBackup(move)}/volumes`,
    kind: "rollback",
  };
  await journal.step("save", () => backUpVolumes(move, mover, current));
}

/** Copies the parts to restore next to the local directories. */
export async function stageParts(move: Move, mover: Mover): Promise<void> {
  await copyInSteps(move, mover, {
    what: "the copy",
    from: sourceOf(move),
    at: insideMover.work,
    parts: move.journal.state.parts,
    manifest,
  });
}

/** Two renames per part. After an interruption, the present files show how to go on. */
export async function swapParts(move: Move, mover: Mover): Promise<void> {
  const { instance: { home }, journal } = move;
  const { parts } = journal.state;
  const kept = replacedBackup(move);
  const at = insideMover.home;
  let swapped = false;
  for (const name of parts) {
    await journal.step(`swap:${name}`, async () => {
      if (!existsSync(join(home.migration, name))) return;
      swapped = true;
      const local = `${at}/${name}`;
      if (existsSync(join(home.home, name))) {
        // The directory may have been recreated after it was moved away.
        const again = existsSync(join(home.backups, kept, name));
        const to = `${insideMover.backup(kept)}/${name}${
          again ? ".later" : ""
        }`;
        await mover.do("rename", { from: local, to });
      }
      await mover.do("rename", {
        from: `${insideMover.work}/${name}`,
        to: local,
      });
    });
  }
  // In a resumed run, the directories may already be in use.
  if (!swapped) return;
  const what = "the local directories";
  await verify(move, mover, { what, at, parts, manifest });
}

/** Writes the manifest that makes the replaced data a regular backup. */
export async function keepManifest(move: Move, mover: Mover): Promise<void> {
  const { instance: { home }, journal, track } = move;
  const kept = replacedBackup(move);
  await journal.step("keep", async () => {
    const parts = [...journal.state.parts, unusedPart]
      .filter((name) => existsSync(join(home.backups, kept, name)));
    if (parts.length === 0) return;
    const at = insideMover.backup(kept);
    await mover.do(
      "manifest",
      { at, parts, to: `${at}/manifest.json`, kind: "rollback" },
      track.begin("Reading what was replaced"),
    );
  });
}
