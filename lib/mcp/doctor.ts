// Whether the host's MCP servers answer: at the gateway, and from where workers are.

import { ownContainer } from "../container.ts";
import { inspectContainer } from "../docker.ts";
import { messageOf } from "../errors.ts";
import { execIn } from "../exec.ts";
import type { Instance } from "../instance.ts";
import { askGateway } from "./client.ts";
import { readServers } from "./config.ts";
import { greet } from "./greet.ts";

export interface McpCheck {
  name: string;
  ok: boolean;
  says: string;
}

/** A check for each server, and one of the way to workers where there are any. */
export async function checkMcp(instance: Instance): Promise<McpCheck[]> {
  const { docker, home, names, settings } = instance;
  const gateway = await askGateway(home, "status").catch(() => undefined);
  const forwarder = await ownContainer(instance, names.forwarder, "forwarder");
  const forwards = forwarder?.State.Running ? forwarder.Id : undefined;
  const greeted = async (name: string, port: number) => {
    if (!gateway) throw new Error("the gateway does not run");
    const says = await greet({ socketPath: home.mcpSocket(name) });
    if (forwards === undefined) return says;
    const command = ["/scripts/mcp-forwarder", "greet", String(port)];
    const { exitCode, output } = await execIn(docker, forwards, command);
    if (exitCode === 0) return says;
    const [line = ""] = output.split("\n");
    throw new Error(`not from workers: ${line.replace("error: ", "")}`);
  };
  const checks = [...readServers(home, settings)].map(
    async ([name, { port }]) => {
      try {
        return { name, ok: true, says: await greeted(name, port) };
      } catch (error) {
        return { name, ok: false, says: messageOf(error) };
      }
    },
  );
  const net = await inspectContainer(docker, names.net);
  const way = net?.State.Running
    ? [{
      name: names.forwarder,
      ok: forwards !== undefined,
      says: forwards === undefined
        ? "it does not run; start it: claudy daemon start"
        : "carries to the workers' 127.0.0.1",
    }]
    : [];
  return [...way, ...await Promise.all(checks)];
}
