// The host's git user, for commits made in a session, and whether they can be signed.

// Not zx: loading it would add 50 ms to each start of claudy.
import { spawnSync } from "node:child_process";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";

export interface GitIdentity {
  /** A git configuration; undefined if the host has no git user. */
  text: string | undefined;
  /** What does not work in the session, and why. */
  left: string[];
}

export interface GitRequest {
  env: NodeJS.ProcessEnv;
  /** The project: a configuration can depend on it (includeIf). */
  directory: string;
  /** Whether the session can sign with the keys of an ssh-agent. */
  sshAgent: boolean;
}

export function gitIdentity(request: GitRequest): GitIdentity {
  const entries = (key: string, value: string | undefined) =>
    value
      ? [`[${key.split(".")[0]}]`, `\t${nameOf(key)} = ${quoted(value)}`]
      : [];
  const user = ["user.name", "user.email"].flatMap((key) =>
    entries(key, userSetting(request, key))
  );
  const key = signingKey(request);
  const lines = [
    ...user,
    ...(key.literal === undefined ? [] : [
      ...entries("user.signingKey", key.literal),
      ...entries("gpg.format", "ssh"),
      ...entries("commit.gpgSign", "true"),
    ]),
  ];
  return {
    text: lines.length === 0 ? undefined : [...lines, ""].join("\n"),
    left: key.left === undefined ? [] : [key.left],
  };
}

const nameOf = (key: string) => key.slice(key.indexOf(".") + 1);

/** The key to sign commits with, or why there is none; neither if they are not signed. */
function signingKey(request: GitRequest): { literal?: string; left?: string } {
  // The project's own setting counts too: it takes effect in the worker.
  const signs = ["--includes", "--type=bool", "--get", "commit.gpgsign"];
  if (config(request, signs) !== "true") return {};
  const why =
    "commit.gpgsign: commits in the session are not signed, and fail " +
    "if the project's own configuration sets it;";
  if (userSetting(request, "gpg.format") !== "ssh") {
    return { left: `${why} only SSH keys can be used (gpg.format=ssh)` };
  }
  if (!request.sshAgent) return { left: `${why} --ssh-agent signs them` };
  const literal = publicKey(
    config(request, [...global, "--type=path", "--get", "user.signingkey"]),
  );
  return literal === undefined
    ? { left: `${why} user.signingkey is not an SSH public key` }
    : { literal };
}

const global = ["--global", "--includes"];

function userSetting(request: GitRequest, key: string): string | undefined {
  return config(request, [...global, "--get", key]);
}

/** A project's configuration may be a pipe. */
const timeoutMs = 2000;

function config(
  { env, directory }: GitRequest,
  args: string[],
): string | undefined {
  // These would name another repository than the project's.
  const { GIT_DIR: _, GIT_WORK_TREE: _tree, GIT_COMMON_DIR: _common, ...rest } =
    env;
  const { status, stdout } = spawnSync("git", ["config", ...args], {
    env: rest,
    cwd: directory,
    encoding: "utf8",
    timeout: timeoutMs,
  });
  return status === 0 ? stdout.replace(/\n$/, "") : undefined;
}

/** `key::` and a public key: https://git-scm.com/docs/git-config, user.signingKey. */
function publicKey(setting: string | undefined): string | undefined {
  if (!setting) return undefined;
  const candidates = setting.startsWith("/")
    ? [lineOf(setting), lineOf(`${setting}.pub`)]
    : [setting.replace(/^key::/, "")];
  const key = candidates.find((text) =>
    /^(sk-)?(ssh|ecdsa)-[\w@.-]+ [\w+/=]+( |$)/.test(text)
  );
  return key && `key::${key}`;
}

/** The first line of a small file; empty if it cannot be read. */
function lineOf(path: string): string {
  try {
    const bytes = readPlainFile(path, { maxBytes: 16_384, followLinks: true });
    return bytes.toString("utf8").split("\n")[0] ?? "";
  } catch (error) {
    if (error instanceof NotPlain) return "";
    if ((error as NodeJS.ErrnoException).code) return "";
    throw error;
  }
}

/** Quotes a value as described in git-config(1), so that it cannot add other settings. */
function quoted(value: string): string {
  const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')
    .replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return `"${escaped}"`;
}
