// Asks for approval of a project's own Claude configuration, and of mounting a
// repository outside of the project.

import type { Io } from "../cli/io.ts";
import { shortened } from "../project/config-approval.ts";
import type { AskDevcontainer } from "../project/devcontainer-approval.ts";
import type { ProjectConfig } from "../project/project-config.ts";
import type { RepositoryConsent } from "../project/repository-consent.ts";
import { printable } from "../std/text.ts";

/** Asks in a terminal. Without one, or detached, nothing is approved. */
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

/** Asks in a terminal whether an image may be built from a project's devcontainer. */
export function askDevcontainer(
  io: Io,
  trusted = false,
  detached = false,
): AskDevcontainer {
  return async ({ project, devcontainer, summary }) => {
    if (trusted) return true;
    if (detached || !io.isInteractive) return false;
    io.log(
      `${project}/${devcontainer.file} determines the image of the worker:`,
    );
    for (const line of summary) io.log(`  ${printable(line)}`);
    return await io.isConfirmed("Approve it?");
  };
}

/** Whether to mount the repository of a worktree: by flag, or by asking. */
export function repositoryConsent(
  io: Io,
  allowed = false,
): RepositoryConsent {
  return {
    allowed,
    ask: io.isInteractive ? (question) => io.confirm(question) : undefined,
  };
}
