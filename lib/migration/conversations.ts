// Divides the conversations of version 0.5 among the sessions. All sessions of version 0.5 used
// one Claude home, claude/.shared-config, and there the path of every project was
// /workspace.

import { existsSync, lstatSync, readdirSync } from "node:fs";
import { join, normalize } from "node:path";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { insideWorker } from "../instance/paths.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Move } from "./move.ts";
import type { Mover } from "./mover-container.ts";
import type { Conversation } from "./mover/conversations.ts";
import { insideMover } from "./mover/places.ts";

/** In claude/; contains settings, credentials and conversations of version 0.5. */
export const sharedConfig = ".shared-config";

export const sharedHome = `${insideMover.home}/claude/${sharedConfig}`;
/** The CLI's name for the conversations of /workspace. */
const workspaceDirectory = directoryOf(insideWorker.workspace);

export function hasSharedConfig({ home }: Pick<Instance, "home">): boolean {
  const path = join(home.claude, sharedConfig);
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** A session and its project, by the path on the host. */
export interface SessionProject {
  name: string;
  project: string;
}

export interface Assigned {
  conversation: Conversation;
  /** Sessions with the same project; empty if the project is unknown. */
  sessions: string[];
}

/** What is known of the files of sessions and projects. */
export interface Known {
  /** Whether a session has a conversation of this id. */
  has: (session: string, id: string) => boolean;
  exists: (path: string) => boolean;
  /** Whether there are sessions besides those given, of unknown projects. */
  hasOthers: boolean;
}

/**
 * Conversations of an unknown project are assigned to no session. Nor are those that a
 * session has, but whose files are in another project: it may have made them up.
 */
export function assign(
  conversations: Conversation[],
  sessions: SessionProject[],
  known: Known,
): Assigned[] {
  const projects = [...new Set(sessions.map(({ project }) => project))];
  return conversations.map((conversation) => {
    const project = projectOf(conversation, projects, known);
    const holders = sessions.filter(({ name }) =>
      known.has(name, conversation.id)
    ).map(({ project }) => project);
    const chosen = project === undefined
      ? single([...new Set(holders)])
      : holders.length === 0 || holders.includes(project)
      ? project
      : undefined;
    const names = sessions.filter((session) => session.project === chosen)
      .map(({ name }) => name);
    return { conversation, sessions: names };
  });
}

function projectOf(
  conversation: Conversation,
  projects: string[],
  known: Known,
): string | undefined {
  const { directory, cwds } = conversation;
  const onHost = cwds.filter((cwd) => !isWithin(cwd, insideWorker.workspace));
  const byCwd = new Set(onHost.flatMap((cwd) => innermost(projects, cwd)));
  if (byCwd.size > 0) return single([...byCwd]);
  if (!directory.startsWith(workspaceDirectory)) {
    const name = directoryOf(directory);
    return single(projects.filter((project) => directoryOf(project) === name));
  }
  const only = known.hasOthers ? undefined : single(projects);
  return only ?? byPaths(conversation, projects, known);
}

function single(projects: string[]): string | undefined {
  return projects.length === 1 ? projects[0] : undefined;
}

/** The innermost project that contains the path, if any. */
function innermost(projects: string[], path: string): string[] {
  return projects.filter((project) => isWithin(path, project))
    .sort((a, b) => b.length - a.length).slice(0, 1);
}

/** As the CLI names the directory of a working directory's conversations. */
export function directoryOf(path: string): string {
  return path.replace(/[^a-zA-Z0-9]/g, "-");
}

/** The project that contains all used files that any project contains, and more. */
function byPaths(
  { cwds, paths }: Conversation,
  projects: string[],
  { exists }: Known,
): string | undefined {
  const root = `${insideWorker.workspace}/`;
  const used = [...new Set([...cwds, ...paths].map((path) => normalize(path)))]
    .filter((path) => path.startsWith(root) && path !== root)
    .map((path) => path.slice(root.length));
  const present = projects.map((project) => ({
    project,
    files: new Set(used.filter((path) => exists(join(project, path)))),
  }));
  const isAbove = (files: Set<string>, others: Set<string>) =>
    files.size > others.size && [...others].every((path) => files.has(path));
  return present.find(({ project, files }) =>
    files.size > 0 &&
    present.every((other) =>
      other.project === project || isAbove(files, other.files)
    )
  )?.project;
}

/** The conversations in the shared Claude home, and the sessions that get them. */
export async function assignShared(
  { home }: Pick<Instance, "home">,
  mover: Mover,
  sessions: SessionProject[],
): Promise<{ assigned: Assigned[]; skipped: number }> {
  const found = await mover.do("findConversations", { path: sharedHome });
  const { conversations, skipped } = found;
  conversations.sort((a, b) => nameOf(a) < nameOf(b) ? -1 : 1);
  const has = (session: string, id: string) => {
    const directory = join(home.home, sessionHome(session), "projects");
    return existsSync(join(directory, workspaceDirectory, `${id}.jsonl`));
  };
  const known = knownOf({ home }, sessions, has);
  return { assigned: assign(conversations, sessions, known), skipped };
}

function knownOf(
  { home }: Pick<Instance, "home">,
  sessions: SessionProject[],
  has: Known["has"],
): Known {
  const exists = (path: string) => {
    try {
      return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
    } catch {
      return false; // it may not be read
    }
  };
  const names = sessions.map(({ name }) => name);
  const hasOthers = readdirSync(home.claude).some((name) =>
    name !== sharedConfig && !names.includes(name)
  );
  return { has, exists, hasOthers };
}

export function nameOf({ directory, id }: Conversation): string {
  return `${directory}/${id}.jsonl`;
}

export interface TakenConversations {
  taken: number;
  /** Those that stay only in the shared Claude home, and why. */
  left: string[];
}

/** Copies the conversations to their sessions. Idempotent. */
export async function takeConversations(
  { instance, lock, track }: Pick<Move, "instance" | "lock" | "track">,
  sessions: SessionProject[],
): Promise<TakenConversations> {
  const { assigned, skipped } = await assignShared(instance, lock, sessions);
  const progress = track.begin("Copying conversations");
  const left: string[] = skipped > 0
    ? [`${skipped} files: too many, or with unusual names`]
    : [];
  let taken = 0;
  for (const { conversation, sessions } of assigned) {
    if (sessions.length === 0) {
      left.push(`${nameOf(conversation)}: its project is unknown`);
    }
    for (const session of sessions) {
      const { directory, id } = conversation;
      const copied = await lock.do("copyConversation", {
        id,
        from: { home: sharedHome, directory },
        to: {
          home: `${insideMover.home}/${sessionHome(session)}`,
          directory: workspaceDirectory,
        },
        staged,
      }, progress);
      if (copied === "copied") taken++;
      const why = notCopied[copied];
      if (why) left.push(`${nameOf(conversation)}: ${why} (${session})`);
    }
  }
  return { taken, left };
}

const staged = `${insideMover.work}/conversation`;

const notCopied: Record<string, string | undefined> = {
  differs: "both were continued",
  blocked: "a link is in the way",
  large: "it is larger than 4 GiB",
  foreign: "it belongs to another project",
};

/**
 * Copies the conversations that sessions have had since to the shared Claude home. Only
 * those of the session's own project: others would get it with the next migration.
 */
export async function giveConversationsBack(
  { instance, lock, track }: Pick<Move, "instance" | "lock" | "track">,
  sessions: SessionProject[],
  used: string[],
): Promise<void> {
  const { assigned } = await assignShared(instance, lock, sessions);
  const shared = new Map(
    assigned.map((found) => [found.conversation.id, found]),
  );
  const progress = track.begin("Copying conversations");
  for (const session of used) {
    const home = `${insideMover.home}/${sessionHome(session)}`;
    const own = await lock.do("findConversations", { path: home });
    const known = knownOf(instance, sessions, (name) => name === session);
    for (const found of assign(own.conversations, sessions, known)) {
      const { conversation } = found;
      const { directory, id } = conversation;
      const former = shared.get(id);
      const isOwn = found.sessions.includes(session) &&
        (former?.sessions.includes(session) ?? true);
      const copied = isOwn
        ? await lock.do("copyConversation", {
          id,
          from: { home, directory },
          to: {
            home: sharedHome,
            directory: former?.conversation.directory ?? directory,
          },
          staged,
        }, progress)
        : "foreign";
      const why = notCopied[copied];
      if (!why) continue;
      track.log(
        `warning: ${nameOf(conversation)} of session "${session}" is not ` +
          `copied to ${sharedConfig}: ${why}`,
      );
    }
  }
}
