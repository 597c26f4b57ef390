// Runs all checks; each finding names the command that fixes it.

import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { examineMcp } from "./mcp.ts";
import {
  examineChromadb,
  examineDashboard,
  examineMounter,
  examineNetwork,
  examineParent,
  examinePool,
  examineSockets,
} from "./daemon.ts";
import { fail, type Finding } from "./findings.ts";
import { examineInotify } from "./inotify.ts";
import {
  examineCredentials,
  examineHome,
  examineLeftovers,
  examineMounts,
  examineMove,
  examineOwner,
  examineRecords,
} from "./kept.ts";
import {
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
  look: Examine;
  /** Skipped if no engine answers. */
  engine?: boolean;
  /** About the machine; other checks are skipped for a foreign instance. */
  machine?: boolean;
}

/** Each check runs even if another failed. */
const examinations: Examination[] = [
  { name: "engine", look: examineEngine, machine: true },
  { name: "owner", look: examineOwner, engine: true, machine: true },
  { name: "home", look: examineHome },
  { name: "move", look: examineMove },
  { name: "disk", look: examineDisk, machine: true },
  { name: "memory", look: examineMemory, engine: true, machine: true },
  { name: "clock", look: examineClock, engine: true, machine: true },
  { name: "images", look: examineImages, engine: true, machine: true },
  { name: "network", look: examineNetwork, engine: true },
  { name: "seccomp", look: examineSeccomp },
  { name: "parent", look: examineParent, engine: true },
  { name: "chromadb", look: examineChromadb, engine: true },
  { name: "sockets", look: examineSockets, engine: true },
  { name: "pool", look: examinePool, engine: true },
  { name: "mounter", look: examineMounter, engine: true },
  { name: "dashboard", look: examineDashboard, engine: true },
  { name: "mcp", look: examineMcp },
  { name: "credentials", look: examineCredentials },
  { name: "records", look: examineRecords, engine: true },
  { name: "leftovers", look: examineLeftovers, engine: true },
  { name: "inotify", look: examineInotify, engine: true },
  { name: "mounts", look: examineMounts },
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
  for (const { name, look, engine, machine } of examinations) {
    if ((engine && !answers) || (!machine && !own)) continue;
    let finding: Finding;
    try {
      finding = await look(instance, env, build);
    } catch (error) {
      finding = fail(messageOf(error), "claudy doctor --verbose");
    }
    if (name === "engine") answers = finding.state !== "fail";
    if (name === "owner") own = finding.state !== "fail";
    checks.push({ name, ...finding });
  }
  return checks;
}
