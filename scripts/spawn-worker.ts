#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// spawn-worker: starts a worker on a project; prints its id, or attaches to it.

import { type Flags, homeOf, readSettings } from "../lib/instance/config.ts";
import { Failure } from "../lib/std/errors.ts";
import { reachOf } from "../lib/instance/parent-socket.ts";
import { homePaths } from "../lib/instance/paths.ts";
import {
  callerVariableNames,
  certificateVariables,
} from "../lib/home/caller-variables.ts";
import { claimFor } from "../lib/pool/client.ts";
import type { ClaimReply } from "../lib/pool/protocol.ts";
import type { SpawnRequest } from "../lib/worker/request.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { flagsOf, listOf } from "../lib/cli/options.ts";
import { Io } from "../lib/cli/io.ts";
import { askDevcontainer, repositoryConsent } from "../lib/commands/trust.ts";
import {
  addProfileOptions,
  cachesOption,
  limitsOption,
  networkOption,
  profileChoice,
  startSettings,
  trustImageOption,
  unguardedOption,
  worktreeOption,
} from "../lib/commands/start-options.ts";

const limitOptions = {
  memory: "WORKER_MEMORY",
  cpus: "WORKER_CPUS",
  pidsLimit: "WORKER_PIDS_LIMIT",
  requireLimits: "REQUIRE_LIMITS",
} as const;

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-spawn-worker");

  addProfileOptions(
    cli.command(
      "[project_dir]",
      "Start a worker on a project (default: the current directory)",
    ),
    "base",
  )
    .usage("[options] [project_dir] [-- command...]")
    .option("-n, --name <name>", "Name of the worker (default: generated)")
    .option(
      "-d, --detach",
      "Run in the background and print the id (default: attach)",
    )
    .option(
      "-i, --image <image>",
      "Image (default: WORKER_IMAGE, else :worker)",
    )
    .option("--rm", "Remove the worker when it ends, keep its log (default)")
    .option("--no-rm", "Keep the worker when it ends")
    .option("--memory <size>", "Memory limit (default: WORKER_MEMORY)")
    .option("--cpus <n>", "CPU limit (default: WORKER_CPUS)")
    .option(
      "--pids-limit <n>",
      "Limit of processes and threads; auto: 100, or 2048 with a profile " +
        "(default: WORKER_PIDS_LIMIT)",
    )
    .option("--no-limits", "No limits on memory, CPUs and processes")
    .option(...limitsOption)
    .option(...networkOption)
    .option(...cachesOption)
    .option(
      "--env <KEY=VALUE>",
      "Environment variable, visible in docker inspect; repeatable",
      {
        type: [String],
      },
    )
    .option(
      "--secret <NAME[=FILE]>",
      "File /run/secrets/NAME, from FILE or the variable NAME; repeatable",
      { type: [String] },
    )
    .option("--mount <SRC:DST[:ro]>", "Additional mount; repeatable", {
      type: [String],
    })
    .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
    .option("--allow-worktree", worktreeOption)
    .option(...unguardedOption)
    .option(...trustImageOption)
    .option("--standalone", "A network of its own: no parent, no ChromaDB")
    .option("--cold", "With --detach: start a new worker, claim no warm one")
    .option("--warm-only", "With --detach: claim a warm worker or fail")
    .option("--json", "With --detach: print id, name, project and more as JSON")
    .example("hal9000-spawn-worker -d -n my-worker ~/code/app")
    .example("hal9000-spawn-worker ~/code/app -- git status")
    .action(async (directory: string | undefined, options) => {
      refuseContradictions(options);
      const flags = flagsOf(options, { ...limitOptions, ...startSettings });
      const request = requestOf(io, directory, options);
      // A claim does not need it, and loading it is most of the start.
      const load = once(() => loadSpawning(io, flags));
      if (options.profile !== undefined) {
        Object.assign(
          request,
          await imageOf(io, request, options, await load()),
        );
      }
      const secrets = listOf(options.secret);
      const given = [...listOf(options.env), ...secrets];
      const claimed = options.detach && !options.cold
        ? await claimWarm(io, request, flags, secrets.length > 0)
        : undefined;
      if (claimed?.start === "warm") {
        const { worker, start } = claimed;
        tellOfVariables(io, given);
        return io.answer({ ...worker, start }, worker.id, options.json);
      }
      const reason = claimed?.reason ?? "asked for";
      if (options.warmOnly) {
        throw new Failure("resources", `No warm worker to claim: ${reason}`, {
          hint: "See claudy pool status, or omit --warm-only.",
        });
      }
      const { instance, readSecrets, runAttached, spawnWorker } = await load();
      const { env } = io;
      request.secrets = readSecrets(secrets, env, instance.host, request.cwd);
      if (!options.detach) {
        const code = await runAttached(instance, request, io.log);
        if (code === 127 && request.image === undefined) io.log(baseHint);
        if (code !== 0) tellOfVariables(io, given);
        return code;
      }
      const worker = await spawnWorker(instance, request, io.log);
      tellOfVariables(io, given);
      if (options.verbose) io.log(`Started a cold worker: ${reason}`);
      io.answer({ ...worker, start: "cold", reason }, worker.id, options.json);
    });

  return await runCli(cli, argv, io);
}

// deno-lint-ignore no-explicit-any -- as cac hands them over
type Options = Record<string, any>;

function refuseContradictions(options: Options): void {
  const limits = Object.keys(limitOptions).some((option) =>
    options[option] !== undefined
  );
  const contradictions: [boolean, string][] = [
    [
      options["limits"] === false && limits,
      "--no-limits excludes --memory, --cpus, --pids-limit and --require-limits",
    ],
    [
      options["profile"] !== undefined && options["image"] !== undefined,
      "--profile and --image exclude each other",
    ],
    [
      options["standalone"] && options["network"] !== undefined,
      "--standalone and --network exclude each other",
    ],
    [options["json"] && !options["detach"], "--json needs --detach"],
    [options["warmOnly"] && !options["detach"], "--warm-only needs --detach"],
    [
      options["warmOnly"] && options["cold"],
      "--cold and --warm-only exclude each other",
    ],
  ];
  const found = contradictions.find(([applies]) => applies);
  if (found) throw new Failure("usage", found[1]);
}

function requestOf(
  io: Io,
  directory: string | undefined,
  options: Options,
): SpawnRequest {
  return {
    directory: directory ?? ".",
    cwd: io.cwd(),
    name: options["name"],
    image: options["image"] === undefined
      ? undefined
      : String(options["image"]),
    limited: options["limits"] !== false,
    keep: options["rm"] === false,
    standalone: options["standalone"] ?? false,
    allowAnyPath: options["allowAnyPath"] ?? false,
    repository: repositoryConsent(io, options["allowWorktree"]),
    mounts: listOf(options["mount"]),
    env: listOf(options["env"]),
    command: options["--"]?.length > 0 ? options["--"] : undefined,
  };
}

/** After a command that a shell or the worker's first process has not found. */
const baseHint =
  "The command was not found in the plain worker. For the project's tools, pass --profile auto.";

/** Only sessions get the caller's proxy, certificates and so on. */
function tellOfVariables({ env, log }: Io, given: string[]): void {
  const names = callerVariableNames(env)
    .filter((name) => !given.some((one) => one.split("=")[0] === name));
  if (names.length === 0) return;
  log(
    `Not passed to a worker without a session: ${names.join(", ")}. ` +
      "Pass --env or --secret, or open a session: claudy",
  );
  const certificates = names.find((name) => certificateVariables.has(name));
  if (certificates === undefined) return;
  log(
    "For certificates, pass the file and its path in the worker: " +
      `--secret ca=FILE --env ${certificates}=/run/secrets/ca`,
  );
}

/** An instance, and what a spawn in it needs. */
async function loadSpawning(io: Io, flags: Flags) {
  const spawning = await import("../lib/worker/spawning.ts");
  const instance = await spawning.openInstance(io.env, io.log, flags);
  return { ...spawning, instance };
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => made ??= make();
}

/** The image of the selected profile, built if necessary, and the resolved project. */
async function imageOf(
  io: Io,
  { directory, cwd, allowAnyPath: allowAny = false }: SpawnRequest,
  options: Options,
  { instance, projectImage, resolveProject }: Awaited<
    ReturnType<typeof loadSpawning>
  >,
): Promise<Pick<SpawnRequest, "image" | "imageId" | "resolved">> {
  const given = { path: directory, cwd, as: "project", allowAny };
  const resolved = await resolveProject(instance, given);
  const image = await projectImage(
    instance,
    resolved.path,
    profileChoice(options, askDevcontainer(io, options["trustProject"])),
    io.log,
  );
  return { image: image.name, imageId: image.id, resolved };
}

/** Claims a warm worker; otherwise returns the reason why there is none. */
async function claimWarm(
  io: Io,
  request: SpawnRequest,
  flags: Flags,
  secret: boolean,
): Promise<ClaimReply> {
  const { env } = io;
  // Warnings about the settings are printed by the cold spawn.
  const warnings: string[] = [];
  const warn = (line: string) => warnings.push(line);
  const settings = readSettings(env, { flags, warn });
  const home = homePaths(homeOf(env));
  const unfit = secret ? "secrets" : undefined;
  const reach = { ...reachOf(env, home), settings, env };
  const reply = await claimFor(reach, request, unfit);
  if (reply.start === "warm") {
    [...warnings, ...reply.notices ?? []].forEach(io.log);
  }
  return reply;
}

if (import.meta.main) await execute(main);
