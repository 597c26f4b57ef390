// What the agent of a session is told of where it runs: as the managed memory of
// the CLI, which the worker's image looks for in the session's home.

import { join } from "node:path";
import type { Docker } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { type Owner, replaceFile } from "../std/owned.ts";
import { portsEach } from "../instance/port-range.ts";
import { binarySize } from "../std/units.ts";
import type { Limits } from "../worker/spec.ts";

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

/**
 * Claude reads none of a project's files by itself where its configuration is not in
 * effect; its memory only informs, and is imported.
 */
const projectMemory = `
@/workspace/CLAUDE.md
@/workspace/.claude/CLAUDE.md
@/workspace/CLAUDE.local.md
`;

/** Writes it for the CLI that is about to start. */
export function writeContext(
  { settings }: Pick<Instance, "settings">,
  claudeHome: string,
  owner: Owner,
  { container, portBase, approved }: {
    container: Docker.ContainerInspectInfo | undefined;
    portBase: number | undefined;
    approved: boolean;
  },
): void {
  const { Memory = 0, NanoCpus = 0, PidsLimit } = container?.HostConfig ?? {};
  const text = contextText({
    limits: { memoryBytes: Memory, cpus: NanoCpus / 1e9, pids: PidsLimit ?? 0 },
    chromadbPort: settings.CHROMADB_PORT,
    portBase,
  }) + (approved ? "" : projectMemory);
  const path = join(claudeHome, "hal9000-context.md");
  replaceFile(path, text, owner, { sync: false });
}
