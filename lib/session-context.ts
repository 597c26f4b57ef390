// What the agent of a session is told of where it runs: as the managed memory of
// the CLI, which the worker's image looks for in the session's home.

import { join } from "node:path";
import { inspectContainer } from "./docker.ts";
import type { Instance } from "./instance.ts";
import { replaceWhole } from "./owned.ts";
import { portsEach } from "./port-range.ts";
import type { Project } from "./project.ts";
import { binarySize } from "./units.ts";
import type { Limits } from "./worker.ts";
import { sessionHome } from "./worker-home.ts";

export interface Surroundings {
  /** As the worker has them; 0 for none. */
  limits: Limits;
  chromadbPort: number;
  /** Undefined where it shares its network with nobody. */
  portBase: number | undefined;
}

export function contextText(around: Surroundings): string {
  const { memoryBytes, cpus, pids } = around.limits;
  const limits = [
    memoryBytes > 0 ? `${binarySize(memoryBytes)} of memory` : "",
    cpus > 0 ? `${cpus} CPUs` : "",
    pids > 0 ? `${pids} processes` : "",
  ].filter((limit) => limit !== "").join(", ") || "none";
  return `# Where you run

In a container of HAL-9000 that is there for one project, at /workspace. What is
written elsewhere, your home apart, is lost with the container.

- Limits: ${limits}. A process that goes beyond the memory is killed.
${around.portBase === undefined ? "" : shared(around, around.portBase)}`;
}

function shared({ chromadbPort }: Surroundings, first: number): string {
  return `- ChromaDB answers at http://localhost:${chromadbPort}.
- The workers of other projects are on the same localhost. Ports ${first} to ${
    first + portsEach - 1
  } are yours
  (HAL9000_PORT_BASE is the first of them): let servers that you start listen
  there, and touch none of the others'.
- To see such a server the person at the host types: claudy ports open PORT
`;
}

/** Writes it for the CLI that is about to start. */
export async function writeContext(
  instance: Instance,
  session: string,
  worker: string,
  project: Project,
  portBase: number | undefined,
): Promise<void> {
  const { docker, home, settings } = instance;
  const present = await inspectContainer(docker, worker);
  const { Memory = 0, NanoCpus = 0, PidsLimit } = present?.HostConfig ?? {};
  const text = contextText({
    limits: { memoryBytes: Memory, cpus: NanoCpus / 1e9, pids: PidsLimit ?? 0 },
    chromadbPort: settings.CHROMADB_PORT,
    portBase,
  });
  const path = join(home.home, sessionHome(session), "hal9000-context.md");
  replaceWhole(path, text, project, { sync: false });
}
