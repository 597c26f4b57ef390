// Checks that the host's MCP servers answer, at the gateway and from the workers.

import { existsSync } from "node:fs";
import { createConnection } from "node:net";
import { inspectContainer } from "../docker/docker.ts";
import { type Finding, ok, warn } from "./findings.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readParentState } from "../instance/parent-state.ts";
import { askGateway } from "../mcp/client.ts";
import { readServers } from "../mcp/config.ts";
import { forwardAnswers, openPort } from "../gateway/forward.ts";
import { greet } from "../gateway/greet.ts";
import { serverGroups } from "../gateway/processes.ts";

interface McpCheck {
  name: string;
  ok: boolean;
  says: string;
}

/** Checks the gateway, nsenter, and each server. */
export async function checkMcp(instance: Instance): Promise<McpCheck[]> {
  const { docker, home, names, settings } = instance;
  const gateway = await askGateway(home, "status").catch(() => undefined);
  if (!gateway) {
    return [{
      name: "gateway",
      ok: !existsSync(home.mcpConfig),
      says: "not running; start it: claudy mcp start",
    }];
  }
  const net = await inspectContainer(docker, names.net);
  const opens = net?.State.Running && await forwardAnswers(instance);
  const greeted = async (name: string, port: number) => {
    const says = await greet(() => createConnection(home.mcpSocket(name)));
    if (!opens) return says;
    try {
      await greet(() => openPort(instance, net.Id, port));
      return says;
    } catch (error) {
      const why = messageOf(error);
      throw new Error(`workers cannot reach 127.0.0.1:${port}: ${why}`);
    }
  };
  const taken = readParentState(instance)?.shared?.taken ?? [];
  const checks = [...readServers(home, settings)].map(
    async ([name, { port, api }]) => {
      if (taken.includes(port)) {
        const says = `port ${port} is occupied by a process in a worker`;
        return { name, ok: false, says };
      }
      // An API gateway has no greeting.
      const { state, lastError } =
        gateway.servers.find((served) => served.name === name) ?? {};
      if (api) {
        return {
          name,
          ok: state === "ready",
          says: state === "ready" ? "API gateway" : lastError ?? "not served",
        };
      }
      try {
        return { name, ok: true, says: await greeted(name, port) };
      } catch (error) {
        const why = messageOf(error);
        return { name, ok: false, says: `${why} (claudy mcp logs ${name})` };
      }
    },
  );
  const nsenterCheck = {
    name: "nsenter",
    ok: opens || !net?.State.Running,
    says: opens
      ? "opens the servers on the workers' 127.0.0.1"
      : net?.State.Running
      ? "not running; start it: claudy daemon start"
      : "starts with the daemon",
  };
  return [nsenterCheck, ...await Promise.all(checks)];
}

/** A quick check that does not call each server, unlike claudy mcp doctor. */
export async function examineMcp(
  { home }: Pick<Instance, "home">,
): Promise<Finding> {
  const status = existsSync(home.mcpConfig)
    ? await askGateway(home, "status")
    : undefined;
  if (!status) {
    const groups = await serverGroups(home.home);
    if (groups.length > 0) {
      const pids = groups.join(", ");
      return warn(
        `servers of a killed gateway are still running: ${pids}`,
        "claudy mcp stop",
      );
    }
    if (!existsSync(home.mcpConfig)) return ok("off");
    // The gateway was stopped, or has not started yet.
    return warn("the gateway is not running", "claudy mcp start");
  }
  const down = status.servers
    .filter(({ state }) => state === "failing" || state === "missing")
    .map(({ name, lastError }) => `${name}: ${lastError}`);
  return down.length === 0
    ? ok(`${status.servers.length} servers of the host`)
    : warn(down.join("; "), "claudy mcp doctor");
}
