// A project travels to another machine as git: the user's own git pushes its branches to a
// repository there, from which sessions are cloned, and fetches what they commit.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { SshAgent } from "../docker/ssh.ts";
import type { Instance } from "../instance/instance.ts";
import { pathDigest } from "../project/project.ts";
import { Failure } from "../std/errors.ts";
import { withoutGitPlaces } from "../std/git-env.ts";
import { parseJson, readJson } from "../std/json.ts";
import { ensureDirectory, writeAtomic, writeNew } from "../std/owned.ts";
import { plainText } from "../std/plain-file.ts";
import { runProgram } from "../std/program.ts";
import { shellQuoted } from "../std/text.ts";
import { faultOf } from "./elsewhere.ts";
import { type Host, targetOf } from "./hosts.ts";
import { askHost, claudyThere } from "./remote.ts";

const projectSchema = v.object({
  version: v.literal(1),
  /** Of the user, on this machine. */
  project: v.string(),
});

type Home = Pick<Instance, "home" | "owner">;

/** The project that a repository on another machine was sent from, if it was from here. */
export function projectOf(
  { home }: Pick<Home, "home">,
  host: Host,
  repository: string,
): string | undefined {
  const path = home.hostProject(host.name, repository);
  return readJson(path, projectSchema)?.project;
}

function rememberProject(
  { home, owner }: Home,
  host: Host,
  { repository, project }: { repository: string; project: string },
): void {
  const path = home.hostProject(host.name, repository);
  writeAtomic(path, JSON.stringify({ version: 1, project }), owner);
}

/** Random, since machines may have the same name and the same paths. */
function ownId({ home, owner }: Home): string {
  const path = home.hostsOwnId;
  const projects = dirname(home.hostProject("", ""));
  for (const directory of [dirname(path), projects]) {
    ensureDirectory(directory, 0o700, owner);
  }
  writeNew(path, `${randomBytes(8).toString("hex")}\n`, owner);
  return (plainText(path, { maxBytes: 100 }) ?? "").trim();
}

const answerSchema = v.object({ path: v.pipe(v.string(), v.startsWith("/")) });

/** How long a short command there may take. */
const askMs = 30_000;

/** Sends the branches and tags of a project; returns where its repository is there. */
export async function sendProject(
  instance: Home,
  host: Host,
  project: string,
  env: NodeJS.ProcessEnv,
): Promise<string> {
  const head = await headOf(project, env);
  const stem = basename(project).replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "").slice(0, 40) || "project";
  const id = `${stem}-${pathDigest(`${ownId(instance)}:${project}`)}`;
  const words = ["host", "repository", id, "--head", head.branch];
  const line = claudyThere(host, [...words, "--format", head.format]);
  const reply = await askHost(host, line, { env, timeoutMs: askMs });
  if (reply.exitCode === 2) {
    throw new Failure(
      "failed",
      `Host "${host.name}" has another version of this program`,
      { hint: `Install this one: claudy host install ${host.name}` },
    );
  }
  if (reply.exitCode !== 0) throw faultOf(reply.stderr);
  const answer = parseJson(answerSchema, reply.stdout);
  if (!answer) throw new Failure("failed", "Its answer cannot be read");
  await git(host, env, project, [
    // Settings of the user that a plain repository there does not know.
    ...["-c", "push.gpgSign=false", "-c", "push.pushOption="],
    ...["push", "--quiet", "--no-verify", "--no-follow-tags", "--prune"],
    ...["--recurse-submodules=no", "--", urlOf(host, answer.path)],
    ...["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"],
    ...(head.isDetached ? [`+HEAD:refs/heads/${head.branch}`] : []),
  ]);
  rememberProject(instance, host, { repository: answer.path, project });
  return answer.path;
}

/** Fetches what claudy fetch has brought into the repository there. */
export async function fetchProject(
  host: Host,
  { project, repository, session }: {
    project: string;
    repository: string;
    session: string;
  },
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const refs = `refs/remotes/claudy/${session}/*`;
  await git(host, env, project, [
    ...["-c", "fetch.fsckObjects=true"],
    ...["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"],
    ...["--no-auto-maintenance", "--recurse-submodules=no", "--"],
    ...[urlOf(host, repository), `+${refs}:${refs}`],
  ]);
}

interface Head {
  branch: string;
  isDetached: boolean;
  /** Of the objects. */
  format: string;
}

async function headOf(project: string, env: NodeJS.ProcessEnv): Promise<Head> {
  const ask = async (...words: string[]) =>
    await runProgram(["git", "-C", project, ...words], {
      env: withoutGitPlaces(env),
    }).catch(() => {
      throw new Failure("notFound", "git is not installed here");
    });
  const [top, head, any, format, partial] = await Promise.all([
    ask("rev-parse", "--show-toplevel"),
    // --short would add "heads/" if there is a tag of the same name.
    ask("symbolic-ref", "--quiet", "HEAD"),
    ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
    ask("rev-parse", "--show-object-format"),
    ask("config", "--get", "extensions.partialClone"),
  ]);
  const fail = (why: string) =>
    new Failure("usage", `Cannot send ${project} to another machine: ${why}`, {
      hint: "A project travels as the commits of its git repository.",
    });
  if (top.exitCode !== 0) throw fail("it is no git repository");
  if (top.stdout.trimEnd() !== project) {
    throw fail(`it is a part of the repository ${top.stdout.trimEnd()}`);
  }
  if (any.exitCode !== 0) throw fail("its branch has no commit");
  // git would fetch what is missing in the middle of the push.
  if (partial.exitCode === 0) throw fail("it is a partial clone");
  const isDetached = head.exitCode !== 0;
  return {
    branch: isDetached
      ? "detached-HEAD"
      : head.stdout.trimEnd().replace(/^refs\/heads\//, ""),
    isDetached,
    format: format.stdout.trim() || "sha1",
  };
}

/** Whether files are in Git LFS, whose content does not travel. */
export function usesLfs(project: string): boolean {
  try {
    const text = readFileSync(join(project, ".gitattributes"), "utf8");
    return /\bfilter=lfs\b/.test(text);
  } catch {
    return false;
  }
}

function urlOf(host: Host, path: string): string {
  const { destination } = targetOf(host);
  const place = destination.includes(":") ? `[${destination}]` : destination;
  return `ssh://${place}${path.split("/").map(encodeURIComponent).join("/")}`;
}

/** Runs the user's git, whose ssh uses the connection that commands share. */
async function git(
  host: Host,
  env: NodeJS.ProcessEnv,
  project: string,
  words: string[],
): Promise<void> {
  const options = await new SshAgent(targetOf(host), env).share();
  const child = spawn("git", ["-C", project, ...words], {
    env: {
      ...withoutGitPlaces(env),
      LC_ALL: "C",
      GIT_SSH_COMMAND: ["ssh", ...options].map(shellQuoted).join(" "),
      GIT_SSH_VARIANT: "ssh",
      GIT_TERMINAL_PROMPT: "0",
      GIT_NO_LAZY_FETCH: "1",
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (part: string) => {
    said = (said + part).slice(-4000);
  });
  const [code] = await once(child, "close") as [number | null];
  if (code === 0) return;
  const lines = said.trim().split("\n");
  const refused = lines.find((line) => /^ *! \[/.test(line))?.trim();
  throw new Failure(
    "failed",
    `git cannot exchange commits with host "${host.name}": ${
      refused ??
        lines.findLast((line) => /^(fatal|error):/.test(line)) ?? lines.at(-1)
    }`,
    { hint: `See what is wrong: claudy host check ${host.name}` },
  );
}

/** The repository of a project that another machine sends; created if it is missing. */
export async function hostRepository(
  { home, owner }: Home,
  id: string,
  { head, format }: { head: string; format: string },
): Promise<string> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$/.test(id)) {
    throw new Failure("usage", `Not the name of a repository: "${id}"`);
  }
  const path = join(home.repositories, `${id}.git`);
  ensureDirectory(home.repositories, 0o700, owner);
  const run = async (...words: string[]) => {
    const { exitCode, stderr } = await runProgram(["git", ...words])
      .catch(() => ({ exitCode: 1, stderr: "git is not installed" }));
    if (exitCode !== 0) {
      throw new Failure("failed", `Cannot create ${path}: ${stderr.trim()}`);
    }
  };
  await run("check-ref-format", "--branch", head);
  if (!existsSync(path)) {
    const object = `--object-format=${format}`;
    await run("init", "--quiet", "--bare", object, "--", path);
  }
  await run("-C", path, "config", "receive.shallowUpdate", "true");
  await run("-C", path, "symbolic-ref", "HEAD", `refs/heads/${head}`);
  return path;
}
