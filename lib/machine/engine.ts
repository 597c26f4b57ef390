// Uses the engine of this machine if it is running. Otherwise installs and starts one on
// Debian or Ubuntu, if permitted.

import { existsSync, readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { $, quote } from "zx/core";
import { asRoot } from "./as-root.ts";
import { connect, engineVersion } from "../docker/connection.ts";
import {
  cliFailure,
  type CliVersion,
  cliVersion,
} from "../docker/docker-cli.ts";
import { type Endpoint, endpointHint, endpointOf } from "../docker/endpoint.ts";
import { connectionFault, hintOf } from "../docker/docker-errors.ts";
import { apiFailure } from "../docker/engine-info.ts";
import { checkout } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";

/** The files of an engine that was started here. */
export const engineFiles = {
  pid: "/run/hal9000-engine.pid",
  log: "/var/log/hal9000-engine.log",
} as const;

export interface EngineVersion {
  version: string;
  api: string;
  /** The oldest API that it accepts; 20.10 and Podman may not tell. */
  minimumApi?: string | undefined;
  arch: string;
}

/** The engine's version, or why it cannot be reached, and perhaps what to do. */
export type EngineAnswer =
  | EngineVersion
  | { fault: string; hint?: string | undefined };

/** Facts about this machine that the plan is based on. */
export interface EngineFacts {
  endpoint: Endpoint;
  answer: EngineAnswer;
  /** The docker command, if there is one. */
  cli: CliVersion | undefined;
  env: NodeJS.ProcessEnv;
  debian: boolean;
  root: boolean;
  sudo: boolean;
  systemd: boolean;
  installed: boolean;
  /** Who the user is, and whether /etc/group lists them in group docker. */
  user: string;
  inDockerGroup: boolean;
}

export type EnginePlan =
  | { do: "use"; engine: EngineVersion }
  | {
    do: "start";
    install: boolean;
    by: "systemd" | "dockerd";
    /** Who is added to group docker. */
    join?: string;
  }
  | { do: "regroup" }
  | { do: "refuse"; message: string; hint: string };

/** Decides what to do about the engine. Has no side effects. */
export function planEngine(facts: EngineFacts): EnginePlan {
  const { answer, endpoint } = facts;
  if (!("fault" in answer)) {
    const engine = {
      Version: answer.version,
      ApiVersion: answer.api,
      MinAPIVersion: answer.minimumApi,
    };
    const failure = apiFailure(engine) ??
      (facts.cli && cliFailure(facts.cli, engine, facts.env));
    if (failure) {
      const { message, hint = "" } = failure;
      return { do: "refuse", message, hint };
    }
    return { do: "use", engine: answer };
  }
  if (answer.fault === "permission denied" && facts.inDockerGroup) {
    return { do: "regroup" };
  }
  const out = `Cannot reach an engine at ${endpoint.host}: ${answer.fault}`;
  if (answer.fault === "permission denied" || endpoint.from !== "default") {
    const hint = answer.hint ?? endpointHint(endpoint.from, answer.fault);
    return { do: "refuse", message: out, hint };
  }
  if (!facts.debian) {
    return {
      do: "refuse",
      message: out,
      hint:
        "Install Docker 20.10 or later and start it: https://docs.docker.com/engine/install/",
    };
  }
  if (!facts.root && !facts.sudo) {
    return {
      do: "refuse",
      message: out,
      hint: facts.installed
        ? "Start it: sudo systemctl start docker, or: sudo dockerd"
        : "Install it: sudo apt-get install docker.io iptables",
    };
  }
  return {
    do: "start",
    install: !facts.installed,
    by: facts.systemd ? "systemd" : "dockerd",
    ...(facts.root || facts.installed ? {} : { join: facts.user }),
  };
}

/** What is asked before an engine is installed. */
export function installQuestion({ join }: { join?: string }): string {
  const group = join === undefined
    ? ""
    : ` and add ${join} to group docker, whose members can act as root`;
  return `There is no Docker engine. Install docker.io with apt-get${group}?`;
}

/** The user is in group docker, but this process is not. */
export class NotYetInGroup extends Failure {
  constructor() {
    super("engine", "This shell is not yet in group docker", {
      hint: "Log in again, or run: newgrp docker",
    });
  }
}

/**
 * Makes sure that an engine runs, and logs what was done. `consent` is asked before one is
 * installed; it throws if the user does not agree. Throws `engine` Failures.
 */
export async function ensureEngine(
  env: NodeJS.ProcessEnv,
  log: Log,
  consent: (question: string) => Promise<void> = () => Promise.resolve(),
): Promise<EngineVersion> {
  const facts = await gatherFacts(env);
  const plan = planEngine(facts);
  if (plan.do === "refuse") {
    throw new Failure("engine", plan.message, { hint: plan.hint });
  }
  if (plan.do === "regroup") throw new NotYetInGroup();
  if (plan.do === "use") return plan.engine;
  if (plan.install) {
    await consent(installQuestion(plan));
    await installEngine(plan.join, log);
  }
  await (plan.by === "systemd" ? startBySystemd(log) : startDockerd(log));
  return await waitForEngine(env);
}

/**
 * How to stop the engine without this program, if ensureEngine() started it; undefined
 * otherwise.
 */
export function engineStopCommand(
  note: string = engineFiles.pid,
): string | undefined {
  const started = readText(note)?.trim();
  if (started === "systemd") {
    return "sudo systemctl stop docker.socket docker.service";
  }
  // The pid may be that of another process by now.
  return started !== undefined && processName(started) === "dockerd"
    ? `sudo kill ${Number(started)}`
    : undefined;
}

/** Removes the note that ensureEngine() started the engine, which keeps running. */
export async function forgetEngine(): Promise<void> {
  try {
    await asRoot(`rm -f ${engineFiles.pid}`);
  } catch {
    // It does no harm, and sudo needs a password.
  }
}

/** Stops the engine if ensureEngine() started it; otherwise logs that it did not. */
export async function stopEngine(log: Log): Promise<void> {
  const started = readText(engineFiles.pid)?.trim();
  if (started === undefined) {
    log("No engine was stopped: HAL-9000 has not started it");
    return;
  }
  if (started === "systemd") {
    await asRoot("systemctl stop docker.socket docker.service");
  } else if (processName(started) === "dockerd") {
    await asRoot(`kill ${Number(started)}`);
    await waitFor(() => processName(started) !== "dockerd", {
      for: "the engine to stop",
      timeoutMs: 60_000,
    });
  }
  await asRoot(`rm -f ${engineFiles.pid}`);
  log("Engine stopped");
}

/** The engine's version, or why it cannot be reached. */
export async function askEngine(
  env: NodeJS.ProcessEnv,
): Promise<EngineAnswer> {
  try {
    const docker = await connect(env);
    const { Version, ApiVersion, MinAPIVersion, Arch } = await engineVersion(
      docker,
      endpointOf(env),
    );
    return {
      version: Version,
      api: ApiVersion,
      minimumApi: MinAPIVersion,
      arch: Arch,
    };
  } catch (error) {
    const fault = connectionFault(error);
    if (fault === undefined) throw error;
    return { fault, hint: hintOf(error) };
  }
}

async function gatherFacts(env: NodeJS.ProcessEnv): Promise<EngineFacts> {
  const quiet = $({ nothrow: true, quiet: true });
  const user = userName();
  const [answer, cli, sudo, dockerd] = await Promise.all([
    askEngine(env),
    cliVersion(env),
    quiet`sudo -n true`,
    quiet`PATH="$PATH:/usr/sbin:/sbin" command -v dockerd`,
  ]);
  return {
    endpoint: endpointOf(env),
    answer,
    cli,
    env,
    debian: /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(
      readText("/etc/os-release") ?? "",
    ),
    root: process.getuid?.() === 0,
    sudo: sudo.exitCode === 0,
    systemd: existsSync("/run/systemd/system"),
    installed: dockerd.exitCode === 0,
    user,
    inDockerGroup: inGroup(user, "docker"),
  };
}

async function installEngine(
  user: string | undefined,
  log: Log,
): Promise<void> {
  log("No engine found: installing docker.io with apt-get");
  const script = join(checkout, "scripts", "install-engine");
  try {
    await asRoot('sh "$@"', script, ...(user === undefined ? [] : [user]));
  } catch (error) {
    throw new Failure("failed", "Cannot install docker.io", {
      cause: error,
      hint: `See why: sudo sh ${quote(script)}`,
    });
  }
}

async function startBySystemd(log: Log): Promise<void> {
  log("Starting the engine: systemctl start docker");
  await asRoot(
    `systemctl start docker.service && echo systemd > ${engineFiles.pid}`,
  );
}

/**
 * Bash code that closes all inherited descriptors above stderr. Otherwise the daemon keeps
 * its caller's pipes open, and their readers never see the end.
 */
const closeInherited = "for fd in $(ls /proc/$$/fd); do " +
  '[ "$fd" -le 2 ] || eval "exec $fd>&-"; done';

/**
 * Starts dockerd detached. A killed engine leaves pid files, and dockerd does not start if
 * the process in such a file exists. That may be another process after a reboot, or a
 * zombie. Only a live process has an executable, so that is checked.
 */
async function startDockerd(log: Log): Promise<void> {
  log(`Starting the engine: dockerd, log in ${engineFiles.log}`);
  await asRoot(`
    export PATH="$PATH:/usr/sbin:/sbin"
    drop_stale() {
      [ -f "$1" ] || return 0
      case $(readlink "/proc/$(cat "$1")/exe") in */"$2"*) ;; *) rm -f "$1" ;; esac
    }
    drop_stale /var/run/docker.pid dockerd
    drop_stale /var/run/docker/containerd/containerd.pid containerd
    setsid bash -c '${closeInherited}; exec dockerd' \\
      >>${engineFiles.log} 2>&1 </dev/null &
    echo $! >${engineFiles.pid}
  `);
}

async function waitForEngine(env: NodeJS.ProcessEnv): Promise<EngineVersion> {
  return await waitFor(async () => {
    const answer = await askEngine(env);
    if (!("fault" in answer)) return answer;
    if (answer.fault === "permission denied") {
      if (inGroup(userName(), "docker")) throw new NotYetInGroup();
      throw new Failure(
        "engine",
        "The engine is running, but you may not use it",
        {
          hint: endpointHint("default", answer.fault),
        },
      );
    }
    return undefined;
  }, {
    for: "the engine to answer",
    timeoutMs: 60_000,
    everyMs: 100,
    hint: `See ${engineFiles.log}, or: journalctl -u docker`,
  });
}

/** The name of this process's user; its number if it has no account. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.());
  }
}

/** Whether /etc/group lists the user; a process has the groups of its login. */
function inGroup(user: string, group: string): boolean {
  const line = readText("/etc/group")?.split("\n")
    .find((line) => line.startsWith(`${group}:`));
  return line?.split(":")[3]?.split(",").includes(user) ?? false;
}

/** The name of a running process; undefined if it has exited. */
function processName(pid: string): string | undefined {
  const status = readText(`/proc/${Number(pid)}/status`);
  if (status === undefined || /^State:\s+[ZX]/m.test(status)) return undefined;
  return /^Name:\s+(.*)$/m.exec(status)?.[1];
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
