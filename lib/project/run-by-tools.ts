// The files of a project that programs of the user run by themselves: without being asked,
// or when the user does something else, such as opening the directory.

export interface RunByTool {
  path: string;
  /** What runs it, and when. */
  reason: string;
}

/**
 * Read-only in workers where they exist. Files that an agent has to change every day, such
 * as Makefile and package.json, are not here: they run when the user asks for it.
 */
export const guardedFiles: RunByTool[] = [
  { path: ".husky", reason: "git hooks of npm projects" },
  { path: ".githooks", reason: "a usual value of git's core.hooksPath" },
  {
    path: ".vscode",
    reason: "VS Code's tasks and the programs of its settings",
  },
  {
    path: ".idea",
    reason: "start-up tasks and run configurations of JetBrains",
  },
  { path: ".envrc", reason: "direnv, on entering the directory" },
  { path: ".mcp.json", reason: "MCP servers of Claude and other agents" },
  { path: ".claude/settings.json", reason: "hooks of Claude" },
  { path: ".claude/settings.local.json", reason: "hooks of Claude" },
];

/** Told about if a session has added or changed them, but agents may change them. */
export const watchedFiles: RunByTool[] = [
  { path: ".pre-commit-config.yaml", reason: "pre-commit's git hook" },
  { path: "lefthook.yml", reason: "lefthook's git hook" },
  { path: ".zed", reason: "tasks and language servers of Zed" },
  { path: ".cursor", reason: "MCP servers and hooks of Cursor" },
  { path: "mise.toml", reason: "mise, on entering the directory" },
  { path: ".mise.toml", reason: "mise, on entering the directory" },
];
