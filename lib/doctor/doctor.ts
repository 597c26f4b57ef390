// Runs all checks; each finding names the command that fixes it.

import { messageOf } from "../std/errors.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { examineMcp } from "./mcp.ts";
import {
  examineChromadb,
  examineDashboard,
  examineHost,
  examineNetwork,
  examineNsenter,
  examineParent,
  examinePool,
  examineSockets,
} from "./daemon.ts";
import { examineEgress } from "./egress.ts";
import { examineRelay } from "./relay.ts";
import { fail, type Finding } from "./findings.ts";
import { examineInotify } from "./inotify.ts";
import { examineDiskUse, examineLimits } from "./limits.ts";
import {
  examineCredentials,
  examineHome,
  examineLeftovers,
  examineMounts,
  examineMove,
  examineOwner,
  examineProjects,
  examineRecords,
} from "./kept.ts";
import {
  examineCli,
  examineClock,
  examineDisk,
  examineEngine,
  examineImages,
  examineMemory,
  examineSeccomp,
} from "./machine.ts";

export interface Check extends Finding {
  name: string;
}

type Examine = (
  instance: Instance,
  env: NodeJS.ProcessEnv,
  build: string,
) => Promise<Finding> | Finding;

interface Examination {
  name: string;
  run: Examine;
  /** Skipped if no engine answers. */
  engine?: boolean;
  /** Of the parent's services: skipped if it does not run, which has a check of its own. */
  service?: boolean;
  /** About the machine; other checks are skipped for a foreign instance. */
  machine?: boolean;
}

/** Each check runs even if another failed. */
const examinations: Examination[] = [
  { name: "engine", run: examineEngine, machine: true },
  { name: "cli", run: examineCli, engine: true, machine: true },
  { name: "owner", run: examineOwner, engine: true, machine: true },
  { name: "home", run: examineHome },
  { name: "move", run: examineMove },
  { name: "disk", run: examineDisk, machine: true },
  { name: "memory", run: examineMemory, engine: true, machine: true },
  { name: "clock", run: examineClock, engine: true, machine: true },
  { name: "images", run: examineImages, engine: true, machine: true },
  { name: "network", run: examineNetwork, engine: true },
  { name: "host", run: examineHost, engine: true },
  { name: "seccomp", run: examineSeccomp },
  { name: "parent", run: examineParent, engine: true },
  { name: "chromadb", run: examineChromadb, engine: true, service: true },
  { name: "sockets", run: examineSockets, engine: true, service: true },
  { name: "egress", run: examineEgress, engine: true, service: true },
  { name: "relay", run: examineRelay, engine: true, service: true },
  { name: "pool", run: examinePool, engine: true, service: true },
  { name: "nsenter", run: examineNsenter, engine: true, service: true },
  { name: "dashboard", run: examineDashboard, engine: true, service: true },
  { name: "mcp", run: examineMcp },
  { name: "credentials", run: examineCredentials },
  { name: "records", run: examineRecords, engine: true },
  { name: "projects", run: examineProjects },
  { name: "leftovers", run: examineLeftovers, engine: true },
  { name: "limits", run: examineLimits, engine: true },
  { name: "disk use", run: examineDiskUse, engine: true },
  { name: "inotify", run: examineInotify, engine: true },
  { name: "mounts", run: examineMounts },
];

/** `build` is the digest of this command's sources. */
export async function examine(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  build: string,
): Promise<Check[]> {
  const checks: Check[] = [];
  let answers = true;
  let own = true;
  let served: boolean | undefined;
  for (const { name, run, engine, service, machine } of examinations) {
    if ((engine && !answers) || (!machine && !own)) continue;
    if (service) {
      served ??= await parentRuns(instance);
      if (!served) continue;
    }
    let finding: Finding;
    try {
      finding = await run(instance, env, build);
    } catch (error) {
      finding = fail(messageOf(error), "claudy doctor --verbose");
    }
    if (name === "engine") answers = finding.state !== "fail";
    if (name === "owner") own = finding.state !== "fail";
    checks.push({ name, ...finding });
  }
  return checks;
}

/** Whether there is a running parent; it may be paused. */
async function parentRuns(instance: Instance): Promise<boolean> {
  const parent = instance.self ?? await findParent(instance);
  return parent !== undefined &&
    ["running", "paused", "restarting"].includes(parent.State);
}
