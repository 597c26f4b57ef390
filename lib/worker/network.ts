// The network of a worker: shared with the other workers, or isolated, with nothing but a
// localhost. nsenter opens the services in both.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import type { Docker } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { configuredServers } from "../mcp/offer.ts";
import { relayPort } from "../relay/names.ts";
import { namesIn } from "../std/names-in.ts";

/** Docker's network mode of an isolated worker: a namespace with only a loopback. */
export const isolatedMode = "none";

/** A service on the localhost of workers. */
export interface Service {
  port: number;
  /**
   * The MCP server whose socket at the gateway leads there.
   * @default PORT.sock in the directory of services
   */
  server?: string | undefined;
}

/** The services of a network. An isolated one has all whose sockets exist. */
export function servicesOf(
  instance: Pick<Instance, "home" | "settings">,
  network: "shared" | "isolated",
): Service[] {
  const { home, settings } = instance;
  const servers = [...configuredServers(instance, () => {})];
  const crosses = !existsSync(home.tunnel);
  const services: Service[] = [
    { port: settings.CHROMADB_PORT },
    ...(usesRelay(instance) ? [{ port: relayPort }] : []),
    ...servers.map(([server, { port }]) =>
      crosses ? { port, server } : { port }
    ),
  ];
  if (network === "shared") return services;
  const known = services.map(({ port }) => port);
  const others = portsIn(home).filter((port) => !known.includes(port));
  return [...services, ...others.map((port) => ({ port }))]
    .sort((a, b) => a.port - b.port);
}

/** Sessions that use the relay keep it after the setting was turned off. */
function usesRelay(
  { home, settings }: Pick<Instance, "home" | "settings">,
): boolean {
  return settings.HAL9000_RELAY === "on" ||
    namesIn(home.relayGrants).length > 0;
}

function portsIn({ services }: Pick<HomePaths, "services">): number[] {
  return namesIn(services).flatMap((name) => {
    const port = Number(/^(\d{1,5})\.sock$/.exec(name)?.[1]);
    return port >= 1 && port <= 65535 ? [port] : [];
  });
}

/** The variable by which nsenter recognizes a container's processes. */
const markName = "HAL9000_WORKER_MARK";

/** KEY=VALUE, with a random value. */
export function newMark(): string {
  return `${markName}=${randomBytes(16).toString("hex")}`;
}

/** Undefined for a container of an earlier version, or a shared worker that was spawned cold. */
export function markOf(
  { Env }: Docker.ContainerInspectInfo["Config"],
): string | undefined {
  return Env.find((variable) => variable.startsWith(`${markName}=`));
}
