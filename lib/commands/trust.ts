// What a project needs approval for: its own configuration of Claude, and the mount of
// a repository outside of it.

import type { Io } from "../cli/io.ts";
import { type ProjectConfig, shortened } from "../project/project-config.ts";
import type { RepositoryConsent } from "../project/repository-consent.ts";

/** Asks at a terminal; without one, or detached, nothing is approved. */
export function approveConfig(io: Io, trusted = false, detached = false) {
  return async (config: ProjectConfig): Promise<boolean> => {
    if (trusted) return true;
    if (detached || !io.isInteractive) return false;
    if (config.fault !== undefined) {
      io.stderr.write(
        `Git may run programs of this project: ${config.fault}\n`,
      );
      return await io.isConfirmed("Start Claude anyway?");
    }
    io.stderr.write(
      `This project configures Claude:\n${
        shortened(config).map((line) => `  ${line}\n`).join("")
      }`,
    );
    return await io.isConfirmed("Approve it?");
  };
}

/** Whether the repository of a worktree is mounted: by flag, or asked for. */
export function repositoryConsent(
  io: Io,
  allowed = false,
): RepositoryConsent {
  return {
    allowed,
    ask: io.isInteractive ? (question) => io.confirm(question) : undefined,
  };
}
