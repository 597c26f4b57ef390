// claudy ports: lists listening ports in the workers' network, and forwards one.

import process from "node:process";
import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { forwardPort, isPort } from "../gateway/forward.ts";
import { findContainer } from "../docker/docker.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import { type Listener, listListeners } from "../session/listeners.ts";
import { portsEach } from "../instance/port-range.ts";
import { readSessions } from "../instance/session-record.ts";
import { findWorker } from "../worker/workers.ts";
import { columns, printable } from "../std/text.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

interface Options {
  json?: boolean;
  allowOther?: boolean;
  worker?: unknown;
}

export function portsCommand(io: Io): CAC {
  const cli = command("claudy ports");

  cli.command("list", "List listening ports (default)").alias("!")
    .option("--json", "Print it as JSON")
    .action(async ({ json }: Options) => {
      const instance = await viewInstance(io.env, io.log);
      const { listeners, incomplete } = await listListeners(instance, io.log);
      const ranges = readSessions(instance, io.log).flatMap(
        ({ name, portBase }) =>
          portBase === undefined
            ? []
            : [{ session: name, from: portBase, to: portBase + portsEach - 1 }],
      );
      const text = [
        columns([
          ["PORT", "AT", "CONTAINER", "PROCESS", ""],
          ...listeners.map((listener) => [
            String(listener.port),
            listener.address,
            listener.container ?? "unknown",
            listener.process ?? "",
            listener.reservedFor ? `reserved for ${listener.reservedFor}` : "",
          ]),
        ]),
        columns([
          ["RANGE", "SESSION"],
          ...ranges.map(({ session, from, to }) => [`${from}-${to}`, session]),
        ]),
        ...incomplete.map(({ container, reason }) =>
          printable(`${container} ${reason}`)
        ),
      ].join("\n\n");
      io.answer({ listeners, ranges, incomplete }, text, json);
    });

  cli.command("open <port> [host_port]", "Open a port of a worker on this host")
    .option(
      "--allow-other",
      "Do not check which process listens (default: refuse other sessions and unknown processes)",
    )
    .option(
      "--worker <name>",
      "The isolated worker, if several listen on that port",
    )
    .example("claudy ports open 3000")
    .action((port: unknown, hostPort: unknown, options: Options) =>
      openPort(io, {
        port: portOf("PORT", port),
        hostPort: portOf("HOST_PORT", hostPort ?? port),
        allowOther: options.allowOther ?? false,
        worker: options.worker === undefined
          ? undefined
          : String(options.worker),
      })
    );

  return cli;
}

async function openPort(
  io: Io,
  { port, hostPort, allowOther, worker }: {
    port: number;
    hostPort: number;
    allowOther: boolean;
    worker: string | undefined;
  },
): Promise<void> {
  const instance = await openInstance(io.env, io.log);
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State !== "running") {
    throw new Failure("notFound", "The parent is not running", {
      hint: "Start it: claudy daemon start",
    });
  }
  const named = worker === undefined
    ? undefined
    : await findWorker(instance, worker);
  if (named && named.network !== "isolated") {
    throw new Failure("usage", `"${named.name}" is not isolated`, {
      hint:
        `Its ports are those of the shared network: claudy ports open ${port}`,
    });
  }
  let isolated = named?.id;
  if (named) {
    io.log(`Port ${port} of ${named.name}`);
  } else if (!allowOther) {
    const { listeners } = await listListeners(instance, io.log);
    const there = listeners.filter((listener) => listener.port === port);
    isolated = onlyNetwork(port, there);
    refuseOther(there);
    io.log(describe(port, there));
  }
  const stop = new AbortController();
  process.on("SIGTERM", () => stop.abort());
  await forwardPort(
    instance,
    { port, hostPort, container: isolated ?? await sharedNetwork(instance) },
    stop.signal,
    () => io.log(`http://127.0.0.1:${hostPort} until you press Ctrl-C`),
  );
}

/** The id of the net container. */
async function sharedNetwork(
  { docker, names }: Pick<Instance, "docker" | "names">,
): Promise<string> {
  return (await findContainer(docker, names.net)).Id;
}

/** The network in which a port is used: an isolated worker's id, or else the shared one. */
function onlyNetwork(port: number, there: Listener[]): string | undefined {
  const networks = new Set(there.map(({ isolated }) => isolated));
  if (networks.size < 2) return there[0]?.isolated ?? undefined;
  const names = there.map(({ container }) => `"${container}"`);
  throw new Failure(
    "usage",
    `Several workers listen on port ${port}: ${names.join(", ")}`,
    { hint: `Name one: claudy ports open ${port} --worker NAME` },
  );
}

/** Refuses a port reserved for another session, and a port with an unknown listener. */
export function refuseOther(there: Listener[]): void {
  const hidden = there.find(({ container }) => container === null);
  if (hidden && hidden.reservedFor === null) {
    throw new Failure(
      "unsafe",
      `Cannot determine which process listens on port ${hidden.port}`,
      { hint: "Pass --allow-other to open it anyway." },
    );
  }
  const other = there.find(({ reservedFor }) => reservedFor !== null);
  if (!other) return;
  throw new Failure(
    "unsafe",
    `Port ${other.port} is reserved for session "${other.reservedFor}", but ${
      other.container === null
        ? "a process outside of all sessions"
        : `"${other.container}"`
    } listens on it`,
    {
      hint:
        "See the listeners: claudy ports. Pass --allow-other to open it anyway.",
    },
  );
}

function describe(port: number, there: Listener[]): string {
  const holders = there.map(({ process, container }) =>
    `${process ?? "a process"} in ${container ?? "an unknown container"}`
  );
  return holders.length === 0
    ? `No process listens on port ${port} yet`
    : `Listening on port ${port}: ${holders.join(" and ")}`;
}

function portOf(name: string, value: unknown): number {
  const port = Number(value);
  if (isPort(port)) return port;
  throw new Failure(
    "usage",
    `${name} must be a port from 1 to 65535, got "${value}"`,
  );
}
