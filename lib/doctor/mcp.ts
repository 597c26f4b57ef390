// Whether the host's MCP servers answer: at the gateway, and from where workers are.

import { existsSync } from "node:fs";
import { ownContainer } from "../instance/container.ts";
import { inspectContainer } from "../docker/docker.ts";
import { type Finding, ok, warn } from "./findings.ts";
import { messageOf } from "../std/errors.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { askGateway } from "../mcp/client.ts";
import { readServers } from "../mcp/config.ts";
import { greet } from "../gateway/greet.ts";
import { serverGroups } from "../gateway/processes.ts";

interface McpCheck {
  name: string;
  ok: boolean;
  says: string;
}

/** A check of the gateway, of the way to workers, and of each server. */
export async function checkMcp(instance: Instance): Promise<McpCheck[]> {
  const { docker, home, names, settings } = instance;
  const gateway = await askGateway(home, "status").catch(() => undefined);
  if (!gateway) {
    return [{
      name: "gateway",
      ok: !existsSync(home.mcpConfig),
      says: "it does not run; start it: claudy mcp start",
    }];
  }
  const forwarder = await ownContainer(instance, names.forwarder, "forwarder");
  const forwards = forwarder?.State.Running ? forwarder.Id : undefined;
  const greeted = async (name: string, port: number) => {
    const says = await greet({ socketPath: home.mcpSocket(name) });
    if (forwards === undefined) return says;
    const command = ["/scripts/mcp-forwarder", "greet", String(port)];
    const { exitCode, output } = await execIn(docker, forwards, command);
    if (exitCode === 0) return says;
    const [line = ""] = output.split("\n");
    const why = line.replace("error: ", "");
    throw new Error(`not at 127.0.0.1:${port} of the workers: ${why}`);
  };
  const checks = [...readServers(home, settings)].map(
    async ([name, { port }]) => {
      try {
        return { name, ok: true, says: await greeted(name, port) };
      } catch (error) {
        const why = messageOf(error);
        return { name, ok: false, says: `${why} (claudy mcp logs ${name})` };
      }
    },
  );
  const net = await inspectContainer(docker, names.net);
  const way = {
    name: "forwarder",
    ok: forwards !== undefined || !net?.State.Running,
    says: forwards !== undefined
      ? "carries from the workers' 127.0.0.1"
      : net?.State.Running
      ? "it does not run; start it: claudy daemon start"
      : "comes with the daemon",
  };
  return [way, ...await Promise.all(checks)];
}

/** What is known without asking each; claudy mcp doctor does. */
export async function examineMcp({ home }: Instance): Promise<Finding> {
  const status = existsSync(home.mcpConfig)
    ? await askGateway(home, "status")
    : undefined;
  if (!status) {
    const groups = await serverGroups(home.home);
    if (groups.length > 0) {
      const pids = groups.join(", ");
      return warn(
        `servers of a gateway that was killed still run: ${pids}`,
        "claudy mcp stop",
      );
    }
    if (!existsSync(home.mcpConfig)) return ok("off");
    // It was stopped, or has yet to come with the daemon.
    return warn("the gateway does not run", "claudy mcp start");
  }
  const down = status.servers
    .filter(({ state }) => state === "failing" || state === "missing")
    .map(({ name, lastError }) => `${name}: ${lastError}`);
  return down.length === 0
    ? ok(`${status.servers.length} servers of the host`)
    : warn(down.join("; "), "claudy mcp doctor");
}
