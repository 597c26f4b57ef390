// What a project needs approval for: its own configuration of Claude, and the mount of
// a repository outside of it.

import process from "node:process";
import { confirm, isConfirmed } from "../cli/output.ts";
import { type ProjectConfig, shortened } from "../project/project-config.ts";
import type { RepositoryConsent } from "../project/repository-consent.ts";

export const trustOption = [
  "--trust-project",
  "Approve the project's .claude, .mcp.json and git filters as they are now",
] as const;

/** Asks at a terminal; without one, or detached, nothing is approved. */
export function approveConfig(trusted = false, detached = false) {
  return async (config: ProjectConfig): Promise<boolean> => {
    if (trusted) return true;
    if (detached || process.stdin.isTTY !== true) return false;
    if (config.fault !== undefined) {
      process.stderr.write(
        `Git may run programs of this project: ${config.fault}\n`,
      );
      return await isConfirmed("Start Claude all the same?");
    }
    process.stderr.write(
      `This project configures Claude:\n${
        shortened(config).map((line) => `  ${line}\n`).join("")
      }`,
    );
    return await isConfirmed("Let it take effect?");
  };
}

/** Whether the repository of a worktree is mounted: by flag, or asked for. */
export function repositoryConsent(allowed = false): RepositoryConsent {
  return {
    allowed,
    ask: process.stdin.isTTY === true
      ? (question) => confirm(question, false)
      : undefined,
  };
}
