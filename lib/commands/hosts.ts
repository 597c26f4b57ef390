// claudy host: other machines, and what they do for commands here.

import type { CAC } from "cac";
import * as v from "valibot";
import { command, version } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { inspectImage } from "../docker/docker.ts";
import { checkHost, type HostCheck } from "../hosts/check.ts";
import { faultOf, sessionsElsewhere } from "../hosts/elsewhere.ts";
import { hostRepository } from "../hosts/git.ts";
import {
  checkHostName,
  type Host,
  readHosts,
  removeHost,
  requireHost,
  saveHost,
  targetOf,
} from "../hosts/hosts.ts";
import { installProgram, sendImages, type Sent } from "../hosts/install.ts";
import { askHost, claudyThere, runOnHost } from "../hosts/remote.ts";
import { ownNames } from "../image/transfer.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome, openInstance } from "../instance/open.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { columns } from "../std/text.ts";
import { binarySize, span } from "../std/units.ts";

interface Options {
  home?: unknown;
  program?: unknown;
  head?: unknown;
  format?: unknown;
  json?: boolean;
  "--"?: string[];
}

export function hostCommand(io: Io): CAC {
  const cli = command("claudy host");
  const open = () => openHome(io.env, io.log);

  cli.command("list", "List the hosts and whether they answer (default)")
    .alias("!")
    .option("--json", "Print them as JSON")
    .action(async ({ json }: Options) => {
      const instance = await open();
      const seen = await sessionsElsewhere(instance, io.env);
      const hosts = readHosts(instance.home).map((host) => {
        const { seenAt = null, fault = null, sessions = [] } =
          seen.find((one) => one.host === host.name) ?? {};
        return { ...host, seenAt, fault, sessions: sessions.length };
      });
      if (hosts.length === 0 && !json) {
        return io.log(
          "There are no hosts. Add one: claudy host add NAME ssh://USER@MACHINE",
        );
      }
      const rows = hosts.map(({ name, url, seenAt, fault, sessions }) => [
        name,
        fault === null
          ? "answers"
          : seenAt === null
          ? `never answered: ${fault}`
          : `answered ${span(Date.now() - Date.parse(seenAt))} ago: ${fault}`,
        String(sessions),
        url,
      ]);
      io.answer(
        hosts,
        columns([["HOST", "STATE", "SESSIONS", "ADDRESS"], ...rows]),
        json,
      );
    });

  cli.command("add <name> <url>", "Add a host: ssh://USER@MACHINE:PORT")
    .option("--home <dir>", "HAL9000_HOME there (default: ~/.hal9000)")
    .option(
      "--program <path>",
      "The program there (default: the one on its PATH)",
    )
    .option("--json", "Print what was found there as JSON")
    .example("claudy host add box ssh://me@box.example.com")
    .action(async (name: unknown, url: unknown, options: Options) => {
      const instance = await open();
      const host: Host = {
        name: checkHostName(String(name)),
        url: String(url),
        home: options.home === undefined ? null : absolute(options.home),
        program: options.program === undefined
          ? null
          : absolute(options.program),
      };
      targetOf(host);
      const found = await checkHost(host, io.env);
      saveHost(instance, { ...host, program: found.program });
      showCheck(io, host, found, options.json);
    });

  cli.command("rm <name>", "Forget a host; its sessions go on there")
    .action(async (name: unknown) => {
      removeHost(await open(), String(name));
      io.answer(null, String(name));
    });

  cli.command("check <name>", "Check what a host has and what is missing")
    .option("--json", "Print it as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await open();
      const host = requireHost(instance, String(name));
      const found = await checkHost(host, io.env);
      if (found.program !== host.program) {
        saveHost(instance, { ...host, program: found.program });
      }
      return showCheck(io, host, found, json);
    });

  cli.command(
    "install <name>",
    "Install this program and its images on a host, and start the daemon there",
  )
    .option("--json", "Print what was sent as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await openInstance(io.env, io.log);
      const host = requireHost(instance, String(name));
      const sent = await installOn(instance, host, io.env, io.log);
      const installed = { ...host, program: sent.program };
      const steps = host.program === null
        ? [["daemon", "start"]]
        : [["upgrade"], ["daemon", "start"]];
      for (const words of steps) {
        const code = await runThere(io, installed, words, {
          output: json ? "stderr" : "stdout",
        });
        if (code !== 0) return code;
      }
      const text = sent.images.length === 0
        ? `Nothing was missing on ${host.name}`
        : `Sent to ${host.name}: ${sent.images.join(", ")}, ${
          binarySize(sent.bytes)
        }`;
      io.answer(sent, text, json);
      return 0;
    });

  cli.command(
    "run <name> [...words]",
    "Run a command of this program on a host",
  )
    .usage("run <name> -- <command...>")
    .example("claudy host run box -- login")
    .action(async (name: unknown, words: string[], options: Options) => {
      const instance = await open();
      const host = requireHost(instance, String(name));
      const argv = [...words, ...options["--"] ?? []];
      return await runThere(io, host, argv, { input: true });
    });

  // Used by claudy --on of another machine.
  cli.command(
    "repository <id>",
    "Create the repository of a project that another machine sends",
  )
    .option("--head <branch>", "The branch that its sessions begin with")
    .option("--format <name>", "Of its objects: sha1 or sha256")
    .action(async (id: unknown, { head = "main", format }: Options) => {
      const instance = await open();
      const path = await hostRepository(instance, String(id), {
        head: String(head),
        format: format === "sha256" ? "sha256" : "sha1",
      });
      io.answer({ path, version }, "", true);
    });

  return cli;
}

const configSchema = v.array(v.object({ key: v.string(), text: v.string() }));

async function installOn(
  instance: Instance,
  host: Host,
  env: NodeJS.ProcessEnv,
  log: (line: string) => void,
): Promise<Sent & { program: string }> {
  const found = await checkHost(host, env);
  if (found.engine === null) {
    throw new Failure("engine", `Host "${host.name}" has no Docker engine`, {
      hint: found.missing.join("\n"),
    });
  }
  const program = await installProgram(host, found, env, log);
  const installed = { ...host, program };
  saveHost(instance, installed);
  const line = claudyThere(installed, ["config", "show", "--json"]);
  const reply = await askHost(installed, line, { env, timeoutMs: 30_000 });
  if (reply.exitCode !== 0) throw faultOf(reply.stderr);
  const config = parseJson(configSchema, reply.stdout);
  const repository = config?.find(({ key }) => key === "HAL9000_IMAGE_REPO");
  if (!repository) throw new Failure("failed", "Its settings cannot be read");
  const images = await Promise.all(
    ownNames(instance).map(async (name) => {
      const image = await inspectImage(instance.docker, name);
      if (image) return { name, id: image.Id };
      throw new Failure("notFound", `There is no image ${name}`, {
        hint: "Build it: claudy up",
      });
    }),
  );
  const sent = await sendImages(
    instance.docker,
    installed,
    { images, repository: repository.text },
    env,
    log,
  );
  return { ...sent, program };
}

function absolute(path: unknown): string {
  if (String(path).startsWith("/")) return String(path);
  throw new Failure("usage", `Not an absolute path: "${path}"`, {
    hint: "Write the whole path that it has on that machine.",
  });
}

/** Runs claudy there, at this terminal if there is one. */
export async function runThere(
  io: Io,
  host: Host,
  argv: readonly string[],
  { input = false, output = "stdout" }: {
    input?: boolean;
    output?: "stdout" | "stderr";
  } = {},
): Promise<number> {
  return await runOnHost(host, claudyThere(host, argv), {
    env: io.env,
    terminal: io.isInteractive && io.showsOutput && output === "stdout",
    input,
    output,
  });
}

function showCheck(
  io: Io,
  host: Host,
  found: HostCheck,
  json: boolean | undefined,
): number {
  const rows = [
    ["system", found.system],
    ["engine", found.engine ?? "none"],
    ["git", found.git ?? "none"],
    ["claudy", found.version ?? "none"],
    ["disk free", found.diskBytes === null ? "" : binarySize(found.diskBytes)],
    [
      "memory free",
      found.memoryBytes === null ? "" : binarySize(found.memoryBytes),
    ],
  ];
  io.answer({ host: host.name, ...found }, columns(rows), json);
  for (const line of found.missing) io.log(line);
  return found.missing.length === 0 ? 0 : 4;
}
