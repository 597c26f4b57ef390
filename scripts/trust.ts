// Asks whether a project's own configuration of Claude may take effect.

import process from "node:process";
import { type ProjectConfig, shortened } from "../lib/project-config.ts";
import { isConfirmed } from "./output.ts";

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
