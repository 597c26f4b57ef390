// Whether a repository outside of a project may be mounted for the project's git.

import { Failure } from "../std/errors.ts";

/** What a caller has to say of it. */
export interface RepositoryConsent {
  /** By a flag. */
  allowed: boolean;
  /** The one that the session was allowed before. */
  remembered?: string | undefined;
  /** Asks at a terminal, and throws for a no; undefined where there is none. */
  ask?: ((question: string) => Promise<void>) | undefined;
  /** Keeps a yes for the session. */
  remember?: ((repository: string) => void) | undefined;
}

/** Throws an `unsafe` Failure where nobody consents. */
export async function consentTo(
  repository: string,
  project: { path: string },
  consent: RepositoryConsent = { allowed: false },
): Promise<void> {
  if (consent.remembered === repository) return;
  if (!consent.allowed) {
    if (!consent.ask) {
      throw new Failure(
        "unsafe",
        `Refused to mount ${repository}: "${project.path}" is a git worktree of it`,
        {
          hint:
            "Mount it, writable, with --allow-worktree (make up: ALLOW_WORKTREE=1); " +
            "or work on a clone.",
        },
      );
    }
    await consent.ask(
      `"${project.path}" is a git worktree. Mount its repository ${repository} too, writable?`,
    );
  }
  consent.remember?.(repository);
}
