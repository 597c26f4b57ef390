// What is well and what is not, with the command that mends it.

import { messageOf } from "../errors.ts";
import type { Instance } from "../instance.ts";
import { examineMcp } from "../mcp/doctor.ts";
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
import {
  examineCredentials,
  examineHome,
  examineLeftovers,
  examineMounts,
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
) => Promise<Finding> | Finding;

/** Each is asked even where another failed; without an engine, only some. */
const examinations: [name: string, needsEngine: boolean, Examine][] = [
  ["engine", false, examineEngine],
  ["home", false, examineHome],
  ["disk", false, examineDisk],
  ["memory", true, examineMemory],
  ["clock", true, examineClock],
  ["images", true, examineImages],
  ["network", true, examineNetwork],
  ["seccomp", false, examineSeccomp],
  ["parent", true, examineParent],
  ["chromadb", true, examineChromadb],
  ["sockets", true, examineSockets],
  ["pool", true, examinePool],
  ["mounter", true, examineMounter],
  ["dashboard", true, examineDashboard],
  ["mcp", false, examineMcp],
  ["credentials", false, examineCredentials],
  ["records", true, examineRecords],
  ["leftovers", true, examineLeftovers],
  ["mounts", false, examineMounts],
];

export async function examine(
  instance: Instance,
  env: NodeJS.ProcessEnv,
): Promise<Check[]> {
  const checks: Check[] = [];
  let engine = true;
  for (const [name, needsEngine, look] of examinations) {
    if (needsEngine && !engine) continue;
    let finding: Finding;
    try {
      finding = await look(instance, env);
    } catch (error) {
      finding = fail(messageOf(error), "claudy doctor --verbose");
    }
    if (name === "engine") engine = finding.state !== "fail";
    checks.push({ name, ...finding });
  }
  return checks;
}
