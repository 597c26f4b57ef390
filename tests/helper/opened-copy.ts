// Sessions with copies on a fake engine whose helper containers run the real program.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { readSession } from "../../lib/instance/session-record.ts";
import { ensureCopy } from "../../lib/session/copy.ts";
import { readySession } from "../../lib/session/open.ts";
import { checkOpening, type OpenRequest } from "../../lib/session/opening.ts";
import { type FakeInstance, fakeInstance } from "./fake-engine.ts";
import { runWorkspace } from "./workspace-program.ts";

export interface Context extends FakeInstance {
  app: string;
}

/** An instance on a fake engine, and a repository of the user. */
export function prepare(context: Context): void {
  Object.assign(context, fakeInstance());
  context.engine.reply = runWorkspace;
  Object.assign(context.instance.settings, {
    HAL9000_PROJECT_ROOTS: [context.root],
  });
  context.app = context.project("app");
  git(context.app, "init", "--quiet", "--initial-branch=main");
  commit(context.app, "a.txt", "one\n");
}

export function git(directory: string, ...args: string[]): string {
  return execFileSync("git", args, {
    cwd: directory,
    env: {
      PATH: process.env["PATH"],
      HOME: "/nonexistent",
      GIT_AUTHOR_NAME: "a",
      GIT_AUTHOR_EMAIL: "a@b",
      GIT_COMMITTER_NAME: "a",
      GIT_COMMITTER_EMAIL: "a@b",
    } as NodeJS.ProcessEnv,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  }).trim();
}

export function commit(directory: string, name: string, text: string): string {
  writeFileSync(join(directory, name), text);
  git(directory, "add", "--all");
  git(directory, "commit", "--quiet", "--message", name);
  return git(directory, "rev-parse", "HEAD");
}

export async function open(
  { instance, app, log }: Context,
  change: Partial<OpenRequest> = {},
) {
  const request: OpenRequest = {
    directory: app,
    cwd: "/",
    copy: { changes: false, ignored: [] },
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: [],
    approveConfig: () => Promise.resolve(false),
    env: {},
    ...change,
  };
  const opening = await checkOpening(instance, request, log);
  const undo = await ensureCopy(instance, opening, request, log);
  if (!undo) return undefined;
  return await readySession(instance, opening, request, log)
    .catch(async (error) => {
      await undo();
      throw error;
    });
}

/** Opens a session with a copy; returns its record and the copy's directory. */
export async function opened(
  context: Context,
  change: Partial<OpenRequest> = {},
) {
  const ready = await open(context, change);
  const record = readSession(context.instance, ready?.session ?? "");
  if (!ready || !record) throw new Error("there is no session");
  return {
    ready,
    record,
    tree: context.instance.home.workspaceTree(record.name),
  };
}
