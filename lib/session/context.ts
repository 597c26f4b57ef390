// Describes the worker to Claude: its limits, ports and services. Written into the
// session's home, from where the worker's image loads it as managed memory.

import { join } from "node:path";
import type { Docker } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { type Owner, replaceFile } from "../std/owned.ts";
import { readRecord } from "../instance/record.ts";
import { portsEach } from "../instance/port-range.ts";
import { binarySize } from "../std/units.ts";
import type { Limits } from "../worker/limits.ts";
import { isolatedMode } from "../worker/network.ts";

export interface WorkerFacts {
  /** The worker's limits; 0 for no limit. */
  limits: Limits;
  chromadbPort: number;
  /** First port of the session's range; undefined if its network is not shared. */
  portBase: number | undefined;
  /** Whether it reaches other hosts through the egress proxy only. */
  isolated: boolean;
  /** Whether git's configuration and hooks are read-only. */
  guarded: boolean;
}

export function contextText(facts: WorkerFacts): string {
  const { memoryBytes, cpus, pids } = facts.limits;
  const limits = [
    memoryBytes > 0 ? `${binarySize(memoryBytes)} of memory` : "",
    cpus > 0 ? `${cpus} CPUs` : "",
    pids > 0 ? `${pids} processes and threads` : "",
  ].filter((limit) => limit !== "").join(", ") || "none";
  return `# Where you run

In a container of HAL-9000 that is there for one project, at /workspace. What is
written elsewhere, your home apart, is lost with the container.

- Limits: ${limits}. A process that goes beyond the memory is killed;
  beyond the processes, starting one fails or hangs.
${networkText(facts)}${facts.guarded ? guardText : ""}`;
}

const guardText =
  `- Read-only, because programs of the host run them: .git/config and .git/hooks, also of
  submodules and nested repositories; .vscode, .idea, .husky, .githooks, .envrc, .mcp.json
  and .claude/settings*.json that existed when you started. Commit, branch, checkout,
  stash, rebase and submodule update work. What writes .git/config does not: git config,
  git remote, git branch -m, git submodule init. It fails with "could not write config
  file: Device or resource busy"; git checkout, push -u and branch -D print that and do
  the rest. Do not work around it. Pass settings with git -c, name remote and branch
  (git push origin BRANCH), get a new submodule with
  git -c submodule.active=. submodule update PATH, and let the person at the host type
  the rest.
`;

function networkText(
  { chromadbPort, isolated, portBase: first }: WorkerFacts,
): string {
  if (first === undefined && !isolated) return "";
  return `- ChromaDB answers at http://localhost:${chromadbPort}. Its database that
  HAL9000_CHROMA_DATABASE names is for this project; default_database is shared by all.
${isolated || first === undefined ? isolatedText : sharedText(first)}\
- To see a server that you start, the person at the host types: claudy ports open PORT
`;
}

const isolatedText =
  `- There is no network but localhost, which is yours alone. Other hosts are reached through
  the proxy that HTTPS_PROXY names. It refuses hosts that are not allowed with status 403
  and a sentence. Do not work around that; tell the person at the host, who can type:
  claudy egress allow HOST
`;

function sharedText(first: number): string {
  return `- The workers of other projects are on the same localhost. Ports ${first} to ${
    first + portsEach - 1
  } are yours
  (HAL9000_PORT_BASE is the first of them): let servers that you start listen
  there, and touch none of the others'.
`;
}

/**
 * If the project's configuration is not approved, Claude loads none of its files. Its
 * memory files contain only text, so they are imported here.
 */
const projectMemory = `
@/workspace/CLAUDE.md
@/workspace/.claude/CLAUDE.md
@/workspace/CLAUDE.local.md
`;

/** Writes the file before the CLI starts. */
export function writeContext(
  instance: Pick<Instance, "settings" | "home" | "owner">,
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
    chromadbPort: instance.settings.CHROMADB_PORT,
    portBase,
    isolated: container?.HostConfig.NetworkMode === isolatedMode,
    guarded: container !== undefined &&
      !readRecord(instance, container.Name.slice(1))?.unguarded,
  }) + (approved ? "" : projectMemory);
  const path = join(claudeHome, "hal9000-context.md");
  replaceFile(path, text, owner, { sync: false });
}
