// Options that several commands share. This module loads none of the code behind
// them.

import type { Command } from "cac";
import { listOf } from "../cli/options.ts";
import type { ProfileChoice } from "../image/profiles.ts";
import {
  type PermissionMode,
  permissionModes,
} from "../instance/permission-mode.ts";
import type { AskDevcontainer } from "../project/devcontainer-approval.ts";
import type { Choice } from "../mcp/offer.ts";
import { Failure } from "../std/errors.ts";

export const worktreeOption =
  "Mount the repository that a worktree belongs to, writable (default: ask)";

export const trustOption = [
  "--trust-project",
  "Approve the project's current .claude, .mcp.json, git filters and devcontainer",
] as const;

/** For commands that do not start Claude. */
export const trustImageOption = [
  "--trust-project",
  "Approve the project's current devcontainer",
] as const;

export const limitsOption = [
  "--require-limits",
  "Fail if the engine cannot enforce the limits of the worker",
] as const;

export const networkOption = [
  "--network <kind>",
  "shared with all workers, without an egress policy; or isolated: services on " +
  "localhost, other hosts by the rules of claudy egress (default: WORKER_NETWORK)",
] as const;

export const cachesOption = [
  "--caches <names>",
  "Package caches to share with other workers: npm, pip, maven, or none " +
  "(default: WORKER_CACHES)",
] as const;

/** The settings of such options, for openInstance(). */
export const startSettings = {
  requireLimits: "REQUIRE_LIMITS",
  network: "WORKER_NETWORK",
  caches: "WORKER_CACHES",
  unguarded: "UNGUARDED",
} as const;

export const unguardedOption = [
  "--unguarded",
  "Let the worker change .git/hooks, .git/config and other files that run programs on your host",
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
      "base, python, node, java, devcontainer, your own, or auto (chosen by the " +
        `project's files) (default: ${otherwise})`,
    )
    .option("--no-build", "Use the plain worker if the profile is not built");
}

export function profileChoice(
  { profile, build }: ProfileOptions,
  askDevcontainer?: AskDevcontainer,
): ProfileChoice {
  return {
    name: profile === undefined ? undefined : String(profile),
    build: build !== false,
    ...(askDevcontainer ? { askDevcontainer } : {}),
  };
}

export interface PermissionOptions {
  permissionMode?: unknown;
  dangerouslySkipPermissions?: boolean;
  "--"?: string[];
}

/** The CLI's own options. `otherwise` describes the default. */
export function addPermissionOptions(
  command: Command,
  otherwise: string,
): Command {
  return command
    .option(
      "--permission-mode <mode>",
      `${permissionModes.slice(0, -1).join(", ")} (default: ${otherwise})`,
    )
    .option(
      "--dangerously-skip-permissions",
      "Same as --permission-mode bypassPermissions",
    );
}

/** Undefined if the user asks for none. */
export function permissionChoice(
  options: PermissionOptions,
): PermissionMode | undefined {
  const { permissionMode, dangerouslySkipPermissions } = options;
  if (permissionMode === undefined && !dangerouslySkipPermissions) return;
  const mode = dangerouslySkipPermissions
    ? "bypassPermissions"
    : permissionModes.find((known) => known === permissionMode);
  if (mode === undefined) {
    throw new Failure(
      "usage",
      `--permission-mode must be one of ${
        permissionModes.slice(0, -1).join(", ")
      }, got "${permissionMode}"`,
    );
  }
  const differs = permissionMode !== undefined && permissionMode !== mode;
  const again = options["--"]?.some((word) =>
    /^--(permission-mode|dangerously-skip-permissions)(=|$)/.test(word)
  );
  if (!differs && !again) return mode;
  throw new Failure("usage", "The permission mode was given twice", {
    hint: "Pass --permission-mode or --dangerously-skip-permissions once.",
  });
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

export interface CopyOptions {
  clone?: boolean;
  withChanges?: boolean;
  withIgnored?: unknown;
}

/** Adds the options of commands that can make a copy of a project. */
export function addCopyOptions(command: Command, meaning: string): Command {
  return command
    .option("--clone", meaning)
    .option(
      "--with-changes",
      "With --clone: take along what is not committed, but no ignored files",
    )
    .option(
      "--with-ignored <glob>",
      "With --clone: take along ignored files too, such as node_modules/**; repeatable",
      { type: [] },
    );
}

/** What to take along into a copy; undefined to work in the project itself. */
export function copyChoice(
  { clone, withChanges, withIgnored }: CopyOptions,
): { changes: boolean; ignored: string[] } | undefined {
  const ignored = listOf(withIgnored);
  if (clone) return { changes: withChanges ?? false, ignored };
  if (!withChanges && ignored.length === 0) return undefined;
  throw new Failure(
    "usage",
    "--with-changes and --with-ignored need --clone",
    { hint: "A session in the project itself has all its files." },
  );
}
