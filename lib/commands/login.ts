// claudy login and logout: the credentials of sessions.

import type { CAC } from "cac";
import { forgetCredentials, keepCredential } from "../home/credentials.ts";
import { forgetSettings } from "../home/claude-settings.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { engineInfo, userInContainers } from "../docker/engine-info.ts";
import { Failure } from "../std/errors.ts";
import { workerImage } from "../image/recipes.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome, openInstance } from "../instance/open.ts";
import { hardenedFlags } from "../instance/container-spec.ts";
import { isLoggedIn } from "../home/login.ts";
import { ensureDirectory } from "../std/owned.ts";
import { seccompOptions } from "../image/seccomp.ts";
import { ensureHome } from "../instance/volumes.ts";
import { insideWorker } from "../instance/paths.ts";
import { ensureAccounts } from "../home/worker-home.ts";
import { listWorkers } from "../worker/workers.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";

export async function openWithHome(io: Io): Promise<Instance> {
  const instance = await openHome(io.env, io.log);
  ensureHome(instance);
  return instance;
}

interface LoginOptions {
  key?: boolean;
  token?: boolean;
  apiKey?: unknown;
}

/** Other users can see the arguments of a process. */
export function refuseKeyAsArgument(given: unknown): void {
  if (given === undefined) return;
  throw new Failure("usage", "--api-key is refused: ps and history show it", {
    hint: "Enter it at the prompt or pipe it in: claudy login --key",
  });
}

/** Saves a key or token from the prompt or stdin, or logs in with the CLI. */
async function login(
  io: Io,
  options: LoginOptions,
): Promise<number | undefined> {
  refuseKeyAsArgument(options.apiKey);
  if (options.key && options.token) {
    throw new Failure("usage", "--key and --token exclude each other", {
      hint: "Pass one of them.",
    });
  }
  if (!options.key && !options.token) return await loginWithCli(io);
  const instance = await openWithHome(io);
  const kind = options.key ? "key" : "token";
  const question = options.key
    ? "API key"
    : "Token, as claude setup-token prints it";
  keepCredential(instance, kind, await io.askHidden(question));
  io.log(`The ${kind} is saved. Sessions use it from their next start.`);
  return undefined;
}

/** Asks how sessions should sign in, then sets that up. */
export async function setUp(io: Io): Promise<number | undefined> {
  if (!io.isInteractive) {
    throw new Failure("usage", "Cannot ask: stdin is not a terminal", {
      hint: "Save a key or token: claudy login --key <FILE",
    });
  }
  const chosen = await io.choose("How should sessions sign in?", [
    "with your Claude account, in the browser",
    "with an API key of the Anthropic Console",
    "with a long-lived token, from claude setup-token",
  ]);
  return await login(io, { key: chosen === 1, token: chosen === 2 });
}

/** Logs in with the CLI in a container whose Claude home is the instance's login. */
async function loginWithCli(io: Io): Promise<number> {
  const instance = await openInstance(io.env, io.log);
  refuseWithoutTerminal(
    io,
    "Run it in a terminal, or save a key: claudy login --key <FILE",
    "Cannot log in",
  );
  ensureHome(instance);
  const { home, hostHome, owner, settings } = instance;
  ensureDirectory(home.login, 0o700, owner);
  const user = await userInContainers(instance.docker, owner, home.home);
  const { remapsUsers } = await engineInfo(instance.docker);
  const code = await runDocker([
    "run",
    "--rm",
    "--interactive",
    "--tty",
    ...hardenedFlags(instance),
    ...await seccompOptions(instance, io.log),
    `--user=${user.uid}:${user.gid}`,
    ...(remapsUsers ? ["--userns=host"] : []),
    `--mount=type=bind,source=${hostHome.login},target=${insideWorker.claudeHome}`,
    ...["passwd", "group"].map((file) =>
      `--mount=type=bind,source=${
        ensureAccounts(instance, user)
      }/${file},target=/etc/${file},readonly`
    ),
    workerImage(settings),
    "claude",
    "auth",
    "login",
  ]);
  if (code === 0 && isLoggedIn(home)) {
    io.log("Logged in. Sessions use it from their next start.");
    return 0;
  }
  // The CLI was at its prompt.
  if (io.showsProgress) io.stderr.write("\n");
  throw new Failure("failed", "The login was not completed", {
    hint: "Try again, or save a key: claudy login --key",
  });
}

export function loginCommand(io: Io): CAC {
  const cli = command("claudy login");
  cli.command(
    "",
    "Save the credentials of all sessions (default: log in with the CLI)",
  )
    .option("--key", "Save an API key (prompt or stdin)")
    .option("--token", "Save a token of claude setup-token (prompt or stdin)")
    .option("--api-key <key>", "Rejected: ps and shell history would show it")
    .example("claudy login --key <key.txt")
    .action((options: LoginOptions) => login(io, options));
  return cli;
}

export function logoutCommand(io: Io): CAC {
  const cli = command("claudy logout");
  cli.command("", "Delete the saved credentials")
    .option("--yes", "Do not ask")
    .action(async ({ yes }: { yes?: boolean }) => {
      const instance = await openWithHome(io);
      await io.confirm("Delete the saved credentials?", yes);
      // If the engine does not answer, no session can be used.
      const workers = await listWorkers(instance).catch(() => []);
      forgetCredentials(instance);
      forgetSettings(instance, new Set(workers.map(({ session }) => session)));
      io.log(
        "Logged out. Running sessions that do not use the relay keep their " +
          "credentials until they stop.",
      );
    });
  return cli;
}
