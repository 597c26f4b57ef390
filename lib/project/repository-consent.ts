// Asks whether a repository outside of the project may be mounted for git.

import { Failure } from "../std/errors.ts";

/** How the caller obtains consent. */
export interface RepositoryConsent {
  /** Whether a flag allows it. */
  allowed: boolean;
  /** The repository that was allowed for the session before. */
  remembered?: string | undefined;
  /** Asks the user, and throws if the answer is no; undefined without a terminal. */
  ask?: ((question: string) => Promise<void>) | undefined;
  /** Stores the consent for the session. */
  remember?: ((repository: string) => void) | undefined;
}

/** Throws an `unsafe` Failure without consent. */
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
          hint: "Mount it writable with --allow-worktree, " +
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
