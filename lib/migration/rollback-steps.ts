// The steps of a rollback.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { stopDaemon } from "../daemon/daemon.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { stopSession } from "../session/session.ts";
import { Failure } from "../std/errors.ts";
import { stopWorker } from "../worker/ending.ts";
import { listWorkers } from "../worker/workers.ts";
import {
  backUpVolumes,
  copyParts,
  makeBackupDirectory,
  type Part,
  verify,
  writeManifest,
} from "./copy.ts";
import { freeStamp, manifestName, type Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import type { Measured } from "./mover/operations.ts";
import { insideMover, placesOf, presentVolumes } from "./parts.ts";
import { partsToBring, type RollbackOptions } from "./rollback-plan.ts";

/** A rollback, with the sizes of the parts that were planned. */
export interface Rollback extends Move {
  sizes: Measured[];
}

const manifest = insideMover.work(manifestName("rollback"));

/** Where what is replaced is kept. */
export function keptBackup({ journal }: Pick<Move, "journal">): string {
  return `pre-rollback-${journal.state.stamp}`;
}

function partsOf({ journal, sizes }: Rollback): Part[] {
  return journal.state.parts.map((name) =>
    sizes.find((part) => part.name === name) ?? { name }
  );
}

/** Conversations are written down before their workers end. */
export async function stopAll(
  { instance, track: { log } }: Move,
): Promise<void> {
  for (const worker of await listWorkers(instance)) {
    if (worker.session) await stopSession(instance, worker.session, log);
    else await stopWorker(instance, worker, log);
  }
  await stopDaemon(instance, log);
}

/** Once nobody writes any more: what was planned may have changed since. */
export async function chooseParts(
  { instance, journal }: Move,
  mover: Mover,
  options: Pick<RollbackOptions, "replaceLocal">,
): Promise<void> {
  const { backup, migrated = [] } = journal.state;
  if (backup !== null || journal.hasBegun("manifest")) return;
  try {
    const parts = await partsToBring(instance, mover, migrated, options);
    journal.note({ parts });
  } catch (error) {
    // Nothing was moved yet; the daemon may start again.
    if (error instanceof Failure && error.kind === "unsafe") journal.remove();
    throw error;
  }
}

export async function readSource(move: Rollback, mover: Mover): Promise<void> {
  const { instance: { owner }, journal } = move;
  const { backup, parts } = journal.state;
  if (backup !== null) {
    const from = insideMover.backup(backup, "manifest.json");
    await journal.step(
      "manifest",
      () => mover.do("replace", { from, to: manifest }),
    );
    return;
  }
  if (parts.includes("chromadb")) {
    // ChromaDB's user is nobody outside the parent.
    const path = insideMover.volume("chromadb");
    await mover.do("give", { path, from: serviceUsers.chromadb, owner });
  }
  await journal.step("manifest", () =>
    writeManifest(move, mover, {
      parts: placesOf(partsOf(move), insideMover.volume),
      to: manifest,
      kind: "rollback",
      what: "Reading",
    }));
}

/** Where a backup comes back, today's data would go with the volumes. */
export async function saveToday(move: Move, mover: Mover): Promise<void> {
  const { journal } = move;
  const { backup, keepVolumes } = journal.state;
  if (backup === null || keepVolumes) return;
  const today = { backup: `${keptBackup(move)}/volumes`, kind: "rollback" };
  await journal.step("save", () => backUpVolumes(move, mover, today));
}

/** Copies what comes back beside the local directories. */
export async function stageParts(move: Rollback, mover: Mover): Promise<void> {
  const { backup } = move.journal.state;
  await copyParts(move, mover, {
    what: "the copy",
    parts: partsOf(move),
    from: backup === null
      ? insideMover.volume
      : (name) => insideMover.backup(backup, name),
    to: insideMover.work,
    manifest,
  });
}

/** Two renames for each; where one was broken off follows from what is there. */
export async function swapParts(move: Rollback, mover: Mover): Promise<void> {
  const { instance, journal } = move;
  const { home } = instance;
  const kept = keptBackup(move);
  makeBackupDirectory(instance, kept);
  let swapped = false;
  for (const name of journal.state.parts) {
    const local = insideMover.local(name);
    await journal.step(`swap:${name}`, async () => {
      if (!existsSync(join(home.migration, name))) return;
      swapped = true;
      if (existsSync(join(home.home, name))) {
        // Somebody may have made it anew since it was put away.
        const again = existsSync(join(home.backups, kept, name));
        const to = insideMover.backup(kept, again ? `${name}.later` : name);
        await mover.do("rename", { from: local, to });
      }
      await mover.do("rename", { from: insideMover.work(name), to: local });
    });
  }
  // In a later run they may have been put to use already.
  if (!swapped) return;
  const parts = placesOf(partsOf(move), insideMover.local);
  await verify(move, mover, { what: "the local directories", parts, manifest });
}

/** What was replaced is a backup like any other. */
export async function keepManifest(move: Move, mover: Mover): Promise<void> {
  const { instance: { home }, journal } = move;
  const kept = keptBackup(move);
  const place = (...names: string[]) => insideMover.backup(kept, ...names);
  const isKept = (name: string) => existsSync(join(home.backups, kept, name));
  await journal.step("keep", async () => {
    const parts = journal.state.parts.filter(isKept)
      .map((name) => ({ name, path: place(name) }));
    if (parts.length > 0) {
      await writeManifest(move, mover, {
        parts,
        to: place("manifest.json"),
        kind: "rollback",
        what: "Reading what was replaced",
      });
    } else if (!isKept("volumes")) await mover.do("remove", { path: place() });
  });
}

/**
 * That of the memory bank is a directory of the home, and would stay full. Returns
 * the names of those that hold data all the same.
 */
export async function emptyVolumes(
  { instance, journal }: Move,
  mover: Mover,
): Promise<string[]> {
  const { backup, keepVolumes, parts } = journal.state;
  if (keepVolumes) return [];
  await refuseChange({ instance, journal }, mover);
  const present = await presentVolumes(instance);
  await journal.step("empty", async () => {
    const holding = await mover.do("inUse", { parts: present });
    for (const { name, path } of present) {
      // What did not come back is of no use only while it holds nothing.
      const isSaved = backup !== null || parts.includes(name);
      if (!isSaved && holding.includes(name)) continue;
      await mover.do("empty", { path });
    }
  });
  return await mover.do("inUse", { parts: present });
}

/** What was written to the volumes since they were copied is copied, too. */
async function refuseChange(
  { instance, journal }: Pick<Move, "instance" | "journal">,
  mover: Mover,
): Promise<void> {
  const { backup, parts, steps } = journal.state;
  if (journal.hasBegun("empty")) return;
  const isCopied = ({ name }: Part) => backup !== null || parts.includes(name);
  const { count, first } = await mover.do("compare", {
    parts: (await presentVolumes(instance)).filter(isCopied),
    manifest: backup === null ? manifest : insideMover.backup(
      keptBackup({ journal }),
      "volumes",
      "manifest.json",
    ),
    contents: false,
  });
  if (count === 0) return;
  // What is in place by now is kept like what was there before it.
  journal.forget(Object.keys(steps).filter((step) => step !== "stop"));
  journal.note({ stamp: freeStamp(instance, ["pre-rollback"]) });
  throw new Failure(
    "busy",
    `Written to since it was copied: ${first.join("; ")}`,
    { hint: "Stop what writes to the volumes, then run it again." },
  );
}

/** Removes the volumes but for those that are still full; returns their names. */
export async function removeVolumes(
  { instance, journal, track }: Move,
  full: string[],
): Promise<string[]> {
  if (journal.state.keepVolumes) return [];
  for (const name of full) {
    track.log(`warning: the volume of ${name} holds data: it stays`);
  }
  const removed = (await presentVolumes(instance))
    .filter(({ name }) => !full.includes(name))
    .map(({ volume }) => volume);
  for (const volume of removed) {
    await instance.docker.getVolume(volume).remove();
  }
  return removed;
}
