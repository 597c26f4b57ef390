// claudy ports: who listens where in the workers' network, and a way in.

import process from "node:process";
import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { forwardPort, isPort } from "../gateway/forward.ts";
import { findParent } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { viewInstance } from "../instance/open.ts";
import { type Listener, listListeners } from "../session/listeners.ts";
import { logToStderr } from "../std/log.ts";
import { portsEach } from "../instance/port-range.ts";
import { readSessions } from "../instance/session-record.ts";
import { columns, printable } from "../std/text.ts";
import { action } from "../cli/options.ts";
import { answer } from "../cli/output.ts";

const open = () => openInstance(process.env, logToStderr);

interface Options {
  json?: boolean;
  allowOther?: boolean;
}

export const portActions = {
  list: async (options: Options) => {
    const instance = await viewInstance(process.env, logToStderr);
    const { listeners, incomplete } = await listListeners(
      instance,
      logToStderr,
    );
    const ranges = readSessions(instance, logToStderr).flatMap(
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
          listener.reservedFor ? `is ${listener.reservedFor}'s port` : "",
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
    answer({ listeners, ranges, incomplete }, text, options.json ?? false);
  },
  open: async (options: Options, port?: unknown, hostPort?: unknown) => {
    const wanted = portOf("PORT", port);
    const here = hostPort === undefined
      ? wanted
      : portOf("HOST_PORT", hostPort);
    const instance = await open();
    const parent = instance.self ?? await findParent(instance);
    if (parent?.State !== "running") {
      throw new Failure("notFound", "The parent is not running", {
        hint: "Start it: claudy daemon start",
      });
    }
    if (!options.allowOther) {
      const { listeners } = await listListeners(instance, logToStderr);
      const there = listeners.filter(({ port }) => port === wanted);
      refuseOther(there);
      logToStderr(describe(wanted, there));
    }
    const stop = new AbortController();
    process.on("SIGTERM", () => stop.abort());
    await forwardPort(
      instance,
      { port: wanted, hostPort: here },
      stop.signal,
      () =>
        logToStderr(
          `http://127.0.0.1:${here} until you press Ctrl-C`,
        ),
    );
  },
};

/** Refuses a session's port that another has taken, and a port whose listener is unknown. */
export function refuseOther(there: Listener[]): void {
  const hidden = there.find(({ container }) => container === null);
  if (hidden && hidden.reservedFor === null) {
    throw new Failure(
      "unsafe",
      `Who listens at ${hidden.port} cannot be told`,
      { hint: "Pass --allow-other to open it all the same." },
    );
  }
  const other = there.find(({ reservedFor }) => reservedFor !== null);
  if (!other) return;
  throw new Failure(
    "unsafe",
    `Port ${other.port} is for session "${other.reservedFor}", but ${
      other.container === null
        ? "a process of no session"
        : `"${other.container}"`
    } listens there`,
    { hint: "See claudy ports. Pass --allow-other to open it all the same." },
  );
}

function describe(port: number, there: Listener[]): string {
  const holders = there.map(({ process, container }) =>
    `${process ?? "a process"} in ${container ?? "no container of ours"}`
  );
  return holders.length === 0
    ? `Nothing listens at ${port} yet`
    : `At ${port} listens ${holders.join(" and ")}`;
}

/** Adds claudy ports. */
export function addPorts(cli: CAC): void {
  cli.command(
    "ports [action] [port] [host_port]",
    "list (default) who listens; open one to the host",
  )
    .option("--json", "list: print it as JSON")
    .option(
      "--allow-other",
      "open: do not look who listens (default: refuse another session, and who is unknown)",
    )
    .example("claudy ports open 3000")
    .action(
      async (
        name: string | undefined,
        port: unknown,
        hostPort: unknown,
        options: Options,
      ) =>
        await action("ports", portActions, name ?? "list")(
          options,
          port,
          hostPort,
        ),
    );
}

function portOf(name: string, value: unknown): number {
  const port = Number(value);
  if (isPort(port)) return port;
  throw new Failure(
    "usage",
    value === undefined
      ? `ports open needs a ${name}`
      : `${name} must be a port from 1 to 65535, got "${value}"`,
  );
}
