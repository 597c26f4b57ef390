// The permission mode that Claude starts in: chosen by the user, for a session or for a
// project. A repository cannot choose it: it is read from HAL9000_HOME only.

import * as v from "valibot";

/**
 * Those of the Claude CLI's --permission-mode; it takes "default" for "manual", too.
 * A test compares them with its help.
 */
export const permissionModes = [
  "acceptEdits",
  "auto",
  "bypassPermissions",
  "manual",
  "dontAsk",
  "plan",
  "default",
] as const;

export type PermissionMode = typeof permissionModes[number];

export const permissionModeSchema = v.picklist(permissionModes);

/** The mode in which Claude starts, and what decided it. */
export interface StartMode {
  permissionMode?: PermissionMode | undefined;
  permissionModeFrom?: "option" | "setting" | undefined;
}

interface Modes {
  PERMISSION_MODES: ReadonlyMap<string, PermissionMode>;
}

/**
 * An option comes first, then the option that the session was last started with, then
 * PERMISSION_MODES. Empty if the mode is left to Claude.
 */
export function startMode(
  { settings }: { settings: Modes },
  project: string,
  option: PermissionMode | undefined,
  before?: StartMode,
): StartMode {
  const chosen = option ??
    (before?.permissionModeFrom === "option"
      ? before.permissionMode
      : undefined);
  if (chosen) return { permissionMode: chosen, permissionModeFrom: "option" };
  const set = settings.PERMISSION_MODES.get(project);
  return set ? { permissionMode: set, permissionModeFrom: "setting" } : {};
}

/** Arguments for Claude. */
export function modeArguments({ permissionMode }: StartMode): string[] {
  return permissionMode ? ["--permission-mode", permissionMode] : [];
}
