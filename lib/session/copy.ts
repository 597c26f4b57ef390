// The copy of a project that a new session works in.

import type { Instance } from "../instance/instance.ts";
import { readSession, type SessionRecord } from "../instance/session-record.ts";
import { ensureHome } from "../instance/volumes.ts";
import { Failure } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import type { CopyRequest } from "../workspace/make.ts";
import { removeCopy } from "../workspace/workspace.ts";
import { saveSession, type SessionToSave, undoSave } from "./save.ts";

/** What to take along into a copy. */
export type CopyChoice = Pick<CopyRequest, "changes" | "ignored">;

/** Throws if a session that works in the project itself is asked to have a copy of it. */
export function refuseCopy(
  copy: CopyChoice | undefined,
  before: SessionRecord | undefined,
): void {
  if (!copy || !before) return;
  if (!before.copy) {
    throw new Failure(
      "busy",
      `Session "${before.name}" works in ${before.project} itself`,
      { hint: "Choose another --name for a session with a copy." },
    );
  }
  if (copy.changes || copy.ignored.length > 0) {
    throw new Failure(
      "busy",
      `Session "${before.name}" has its copy: --with-changes and --with-ignored have no effect`,
      { hint: "Open another one: claudy --clone" },
    );
  }
}

/**
 * Makes the copy of a new session that is to have one, and saves the session. Returns what
 * undoes both; undefined if another command has taken the name since.
 */
export async function ensureCopy(
  instance: Instance,
  opening: SessionToSave & { project: HostPath },
  { copy, allowAnyPath = false, repository }: {
    copy?: CopyChoice | undefined;
    allowAnyPath?: boolean;
    repository?: CopyRequest["repository"];
  },
  log: Log,
): Promise<(() => Promise<void>) | undefined> {
  const { session, project, isCopy, before } = opening;
  if (!isCopy || before || !copy) return () => Promise.resolve();
  ensureHome(instance);
  // Loaded for those who need it: most sessions have no copy.
  const [{ makeCopy }, { sweepCopies }, { reserve }] = await Promise.all([
    import("../workspace/make.ts"),
    import("../workspace/abandoned.ts"),
    import("../workspace/scratch.ts"),
  ]);
  await sweepCopies(instance);
  const scratch = reserve(instance, session);
  if (!scratch) return undefined;
  let saved: SessionRecord;
  try {
    const request = { ...copy, session, project, allowAnyPath, repository };
    await makeCopy(instance, request, scratch, log);
    saved = saveSession(instance, opening, { claudeRuns: false }, log);
  } finally {
    await scratch.remove();
  }
  return async () => {
    const record = readSession(instance, session);
    if (record && record.createdAt !== saved.createdAt) return;
    // Nothing if another command runs the session.
    const asNew = { ...opening, before: undefined };
    if (record) await undoSave(instance, asNew, record, log);
    if (!readSession(instance, session)) await removeCopy(instance, session);
  };
}
