// The commands of claudy about what sessions sign in with, and secrets.

import process from "node:process";
import type { CAC } from "cac";
import {
  forgetCredentials,
  keepCredential,
  listSecrets,
  removeSecret,
  setSecret,
} from "../home/credentials.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { Failure } from "../std/errors.ts";
import { workerImage } from "../image/recipes.ts";
import { openHome } from "../instance/open.ts";
import { openInstance } from "../instance/open.ts";
import { roleLabels } from "../instance/labels.ts";
import { logToStderr } from "../std/log.ts";
import { isLoggedIn } from "../home/login.ts";
import { ensureDirectory } from "../std/owned.ts";
import { seccompOptions } from "../image/seccomp.ts";
import { columns } from "../std/text.ts";
import { ensureHome } from "../instance/volumes.ts";
import { insideWorker } from "../instance/paths.ts";
import { ensureAccounts } from "../home/worker-home.ts";
import { action, refuseWithoutTerminal } from "../cli/options.ts";
import { answer, askHidden, choose, confirm } from "../cli/output.ts";

const open = async () => {
  const instance = await openHome(process.env, logToStderr);
  ensureHome(instance);
  return instance;
};

interface LoginOptions {
  key?: boolean;
  token?: boolean;
  apiKey?: unknown;
}

interface SecretOptions {
  env?: boolean;
  yes?: boolean;
  json?: boolean;
}

/** Arguments are for all to see. */
export function refuseKeyAsArgument(given: unknown): void {
  if (given === undefined) return;
  throw new Failure("usage", "--api-key is refused: ps and history show it", {
    hint: "Give it at the prompt or on stdin: claudy login --key",
  });
}

/** Keeps a key or token that is typed or piped, or has the CLI log in. */
export async function login(
  options: LoginOptions,
): Promise<number | undefined> {
  refuseKeyAsArgument(options.apiKey);
  if (options.key && options.token) {
    throw new Failure("usage", "--key and --token exclude each other");
  }
  if (!options.key && !options.token) return await loginWithCli();
  const instance = await open();
  const kind = options.key ? "key" : "token";
  const question = options.key
    ? "API key"
    : "Token, as claude setup-token prints it";
  keepCredential(instance, kind, await askHidden(question));
  logToStderr(`The ${kind} is kept for all sessions, from their next start on`);
  return undefined;
}

/** Asks what sessions are to sign in with, then does that. */
export async function setUp(): Promise<number | undefined> {
  if (process.stdin.isTTY !== true) {
    throw new Failure("usage", "Cannot ask: stdin is no terminal", {
      hint: "Keep a key or token: claudy login --key <FILE",
    });
  }
  const chosen = await choose("What are sessions to sign in with?", [
    "an API key of the Anthropic Console",
    "a long-lived token, from claude setup-token",
    "a login of a Claude subscription, made now",
  ]);
  return await login({ key: chosen === 0, token: chosen === 1 });
}

/** In a container of its own, whose Claude home is the instance's login. */
async function loginWithCli(): Promise<number> {
  const instance = await openInstance(process.env, logToStderr);
  refuseWithoutTerminal("Or keep a key or token: claudy login --key <FILE");
  ensureHome(instance);
  const { home, hostHome, owner, prefix, settings } = instance;
  ensureDirectory(home.login, 0o700, owner);
  const code = await runDocker([
    "run",
    "--rm",
    "--interactive",
    "--tty",
    ...Object.entries(roleLabels(prefix, "helper", hostHome.home))
      .map(([key, value]) => `--label=${key}=${value}`),
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    ...await seccompOptions(instance, logToStderr),
    `--user=${owner.uid}:${owner.gid}`,
    `--mount=type=bind,source=${hostHome.login},target=${insideWorker.claudeHome}`,
    ...["passwd", "group"].map((file) =>
      `--mount=type=bind,source=${
        ensureAccounts(instance, owner)
      }/${file},target=/etc/${file},readonly`
    ),
    workerImage(settings),
    "claude",
    "auth",
    "login",
  ]);
  if (code === 0 && isLoggedIn(home)) {
    logToStderr("Logged in: sessions use it from their next start on");
    return 0;
  }
  throw new Failure("failed", "The CLI has not logged in", {
    hint: "Try again, or keep a key: claudy login --key",
  });
}

const secretActions = {
  set: async (options: SecretOptions, name?: string) => {
    if (name === undefined) {
      throw new Failure("usage", "secret set needs a name");
    }
    const instance = await open();
    const value = await askHidden(`Value of ${name}`);
    if (value === "") throw new Failure("usage", "The value is empty");
    setSecret(instance, { name, variable: options.env ?? false }, value);
    logToStderr(`${name} is kept for all sessions, from their next start on`);
  },
  list: async (options: SecretOptions) => {
    const secrets = listSecrets(await open());
    const rows = secrets.map(({ name, variable }) => [
      name,
      variable ? `file and variable` : "file",
    ]);
    const text = columns([["NAME", "AS"], ...rows]);
    answer(secrets, text, options.json ?? false);
  },
  rm: async (options: SecretOptions, name?: string) => {
    if (name === undefined) {
      throw new Failure("usage", "secret rm needs a name");
    }
    const instance = await open();
    await confirm(`Remove secret ${name}?`, options.yes ?? false);
    if (!removeSecret(instance, name)) {
      throw new Failure("notFound", `There is no secret ${name}`);
    }
  },
};

export const secretActionNames = Object.keys(secretActions);

/** Adds claudy login, logout and secret. */
export function addLogin(cli: CAC): void {
  cli.command(
    "login",
    "Keep what all sessions sign in with (default: the CLI's login)",
  )
    .option("--key", "An API key, asked for or from stdin")
    .option("--token", "A token of claude setup-token, likewise")
    .option("--api-key <key>", "Refused: ps and history would show it")
    .example("claudy login --key <key.txt")
    .action(login);

  cli.command("logout", "Remove keys, tokens and the login that are kept")
    .option("--yes", "Do not ask")
    .action(async ({ yes }: { yes?: boolean }) => {
      const instance = await open();
      await confirm("Remove what sessions sign in with?", yes ?? false);
      forgetCredentials(instance);
      logToStderr(
        "Logged out; sessions that run keep what they have until they end",
      );
    });

  cli.command(
    "secret <action> [name]",
    "set, list or rm of secrets that sessions get as files",
  )
    .option("--env", "set: as a variable of Claude and what it starts, too")
    .option("--yes", "rm: do not ask")
    .option("--json", "list: print it as JSON")
    .example("claudy secret set GITHUB_TOKEN --env <token.txt")
    .action(
      async (name: string, secret: unknown, options: SecretOptions) =>
        await action("secret", secretActions, name)(
          options,
          secret === undefined ? undefined : String(secret),
        ),
    );
}
