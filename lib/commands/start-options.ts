// Options that several commands share. This module loads none of the code behind
// them.

import type { Command } from "cac";
import type { ProfileChoice } from "../image/profiles.ts";
import type { Choice } from "../mcp/offer.ts";

export const worktreeOption =
  "Mount the repository that a worktree belongs to, writable (default: ask)";

export const trustOption = [
  "--trust-project",
  "Approve the project's current .claude, .mcp.json and git filters",
] as const;

export interface ProfileOptions {
  profile?: unknown;
  build?: boolean;
}

/** Adds --profile and --no-build; `otherwise` names the default profile. */
export function addProfileOptions(
  command: Command,
  otherwise: string,
): Command {
  return command
    .option(
      "--profile <name>",
      "base, python, node, java, your own, or auto (chosen by the project's " +
        `files) (default: ${otherwise})`,
    )
    .option("--no-build", "Use the plain worker if the profile is not built");
}

export function profileChoice(
  { profile, build }: ProfileOptions,
): ProfileChoice {
  return {
    name: profile === undefined ? undefined : String(profile),
    build: build !== false,
  };
}

export interface McpChoice {
  mcp?: unknown;
}

/** Adds the options of commands that start Claude. */
export function addMcpChoice(command: Command): Command {
  return command
    .option(
      "--mcp [names]",
      "Use only these MCP servers of the host, comma-separated, or all",
    )
    .option("--no-mcp", "Use none of the host's MCP servers");
}

/** Undefined without names: then cac passes true. */
export function mcpChoice({ mcp }: McpChoice): Choice | undefined {
  if (mcp === undefined || mcp === true) return undefined;
  if (mcp === false) return false;
  const names = String(mcp).split(",").map((name) => name.trim());
  return names.includes("all") ? true : names.filter(Boolean);
}
