// Keeps the form of version 0.5 of each session's directory until a rollback. A session that was
// not used since gets it back; one that was used keeps its Claude home.

import { existsSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { readSessions } from "../instance/session-record.ts";
import { giveConversationsBack, hasSharedConfig } from "./conversations.ts";
import type { Move } from "./move.ts";
import { insideMover } from "./mover/places.ts";
import { sessionsPart } from "./parts.ts";
import { copyInMover } from "./shared-config.ts";

const metadataFile = ".claudy-session.json";

/** What version 0.5 keeps in a session's directory. */
const formerNames = [metadataFile, ".workspace"];

/** In the mover. */
const keptForms = `${insideMover.work}/sessions`;

/** The part of a backup with the Claude homes of unused sessions. */
export const unusedPart = "unused-sessions";

type Acting = Pick<Move, "instance" | "lock" | "track">;

/** The kept form of a session, as seen from here, and in the mover. */
function keptForm({ home }: Pick<Instance, "home">, session: string) {
  const here = join(home.migration, "sessions", session);
  const inMover = `${keptForms}/${session}`;
  return {
    inMover,
    form: `${inMover}/form`,
    /** Of the session's directory as the migration has left it. */
    manifest: `${inMover}/manifest.json`,
    hasForm: () => existsSync(join(here, "form")),
    hasMetadata: () => existsSync(join(here, "form", metadataFile)),
    hasManifest: () => existsSync(join(here, "manifest.json")),
    hasReplaced: () => existsSync(join(here, "replaced")),
  };
}

/** Whether the session has no Claude home yet, or an unfinished one. */
export function isFormer(
  instance: Pick<Instance, "home">,
  session: string,
): boolean {
  const { hasForm, hasManifest } = keptForm(instance, session);
  if (hasForm()) return !hasManifest();
  const path = join(instance.home.home, sessionHome(session));
  return readdirSync(path).every((name) => formerNames.includes(name));
}

/** Copies the directories of sessions before they become Claude homes. Idempotent. */
export async function keepForms(
  { instance, lock }: Acting,
  sessions: string[],
): Promise<void> {
  for (const session of sessions) {
    const { inMover, form, hasForm } = keptForm(instance, session);
    if (hasForm()) continue;
    const from = `${insideMover.home}/${sessionHome(session)}`;
    const unfinished = `${inMover}/unfinished`;
    await lock.do("replace", { from, to: unfinished });
    await lock.do("rename", { from: unfinished, to: form });
  }
}

/** Records what the Claude homes contain now, to recognize those that are used later. */
export async function recordHomes(
  { instance, lock }: Acting,
  sessions: string[],
): Promise<void> {
  const at = `${insideMover.home}/${sessionsPart}`;
  for (const session of sessions) {
    const { manifest } = keptForm(instance, session);
    const parts = [session];
    await lock.do("manifest", { at, parts, to: manifest, kind: "session" });
  }
}

function sessionsWithForm({ home }: Pick<Instance, "home">): string[] {
  const directory = join(home.migration, "sessions");
  return existsSync(directory) ? readdirSync(directory) : [];
}

/** For sessions whose homes a restored backup has replaced. Idempotent. */
export async function forgetForms({ instance, lock }: Acting): Promise<void> {
  for (const session of sessionsWithForm(instance)) {
    rmSync(instance.home.inherited(session), { force: true });
  }
  for (const path of [keptForms, copyInMover]) {
    await lock.do("remove", { path });
  }
}

/**
 * Gives unused sessions their form of version 0.5 back, and copies the conversations of
 * the others to the shared Claude home. The homes of unused sessions go to a backup, or are
 * removed if it is null. Idempotent. Returns the names of the unused.
 */
export async function returnSessions(
  acting: Acting,
  backup: string | null,
): Promise<string[]> {
  const { instance, lock } = acting;
  await lock.do("remove", { path: copyInMover });
  const returned: string[] = [];
  for (const session of sessionsWithForm(instance)) {
    if (await returnSession(acting, session, backup)) returned.push(session);
  }
  if (!hasSharedConfig(instance)) return returned;
  const sessions = readSessions(instance).filter(({ name }) =>
    existsSync(join(instance.home.home, sessionHome(name)))
  );
  const used = sessions.map(({ name }) => name)
    .filter((name) => !isFormer(instance, name));
  await giveConversationsBack(acting, sessions, used);
  return returned;
}

/** Whether it was unused. */
async function returnSession(
  { instance, lock }: Acting,
  session: string,
  backup: string | null,
): Promise<boolean> {
  const kept = keptForm(instance, session);
  const { inMover, form, manifest } = kept;
  const local = `${insideMover.home}/${sessionHome(session)}`;
  const isMissing = () =>
    !existsSync(join(instance.home.home, sessionHome(session)));
  if (kept.hasForm() && !isMissing()) {
    const trees = {
      at: `${insideMover.home}/${sessionsPart}`,
      parts: [session],
      manifest,
    };
    const isSame = async (contents: boolean) =>
      (await lock.do("compare", { ...trees, contents })).count === 0;
    // Without a manifest, the migration was interrupted before anyone could use it.
    // Contents last: what a session has added since may be huge.
    const isUntouched = !kept.hasManifest() ||
      await isSame(false) && await isSame(true);
    if (isUntouched) {
      await lock.do("rename", { from: local, to: `${inMover}/replaced` });
    } else {
      await restoreMetadata({ instance, lock }, session);
      // First, as removing is not atomic: the rest would count as the session's form.
      await lock.do("rename", { from: form, to: `${inMover}/returned` });
    }
  }
  // Missing also after an interruption between the two renames.
  if (kept.hasForm() && isMissing()) {
    await lock.do("rename", { from: form, to: local });
  }
  const isUnused = kept.hasReplaced();
  if (isUnused) rmSync(instance.home.inherited(session), { force: true });
  if (isUnused && backup !== null) {
    // The shared Claude home may have been removed since.
    const to = `${insideMover.backup(backup)}/${unusedPart}/${session}`;
    await lock.do("rename", { from: `${inMover}/replaced`, to });
  }
  await lock.do("remove", { path: inMover });
  return isUnused;
}

/** The session's worker could change the file in its Claude home. */
async function restoreMetadata(
  { instance, lock }: Pick<Acting, "instance" | "lock">,
  session: string,
): Promise<void> {
  const { form, hasMetadata } = keptForm(instance, session);
  if (!hasMetadata()) return; // by an interrupted run
  const path = `${sessionHome(session)}/${metadataFile}`;
  const to = `${insideMover.home}/${path}`;
  const stat = lstatSync(join(instance.home.home, path), {
    throwIfNoEntry: false,
  });
  if (stat?.isDirectory()) {
    await lock.do("rename", { from: to, to: `${to}.${crypto.randomUUID()}` });
  }
  await lock.do("rename", { from: `${form}/${metadataFile}`, to });
}
