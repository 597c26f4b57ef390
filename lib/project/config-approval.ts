// Decides whether a project's own Claude configuration takes effect, and stores the user's
// approval.

import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import { printable } from "../std/text.ts";
import { type ProjectConfig, readProjectConfig } from "./project-config.ts";

const approvalSchema = v.object({
  version: v.literal(1),
  project: v.string(),
  digest: v.string(),
});

type Home = Pick<Instance, "home" | "owner">;

/** Whether the user has approved this content of this project. */
export function isApproved(
  { home }: Pick<Instance, "home">,
  project: string,
  { digest, fault }: ProjectConfig,
): boolean {
  if (fault !== undefined) return false;
  return isApprovedContent(home.approval(project), { project, digest });
}

/** What an approval is about. */
export interface ApprovedContent {
  project: string;
  digest: string;
}

/** Whether a file of the instance contains the user's approval of this content. */
export function isApprovedContent(
  file: string,
  { project, digest }: ApprovedContent,
): boolean {
  const approval = readJson(file, approvalSchema);
  return approval?.project === project && approval.digest === digest;
}

/** Stores an approval outside of the project, where no worker can write. */
export function approveContent(
  file: string,
  { project, digest }: ApprovedContent,
  owner: Instance["owner"],
): void {
  writeAtomic(file, JSON.stringify({ version: 1, project, digest }), owner);
}

export function approve(
  { home, owner }: Home,
  project: string,
  { digest }: ProjectConfig,
): void {
  approveContent(home.approval(project), { project, digest }, owner);
}

/** Whether a project's configuration takes effect, and which variables to override. */
export interface ConfigVerdict {
  approved: boolean;
  forbidden: string[];
}

/**
 * Decides before Claude starts whether the configuration takes effect. `ask` returns
 * whether the user approves it now. Logs a warning if it does not take effect.
 */
export async function judgeProjectConfig(
  instance: Home & Pick<Instance, "host">,
  project: string,
  ask: (config: ProjectConfig) => Promise<boolean>,
  log: Log,
  /** The user's project, if this is a session's copy of it: its approval holds here too. */
  copyOf?: string,
): Promise<ConfigVerdict> {
  const config = readProjectConfig(project, instance.host);
  // Not approved: files that are added while Claude runs must have no effect either.
  if (!config) return { approved: false, forbidden: [] };
  const { fault, forbidden } = config;
  let approved = isApproved(instance, project, config) ||
    copyOf !== undefined && isApproved(instance, copyOf, config);
  if (!approved && fault === undefined && await ask(config)) {
    // The user approved what was shown. It may have changed since.
    const now = readProjectConfig(project, instance.host);
    if (now?.digest !== config.digest) {
      throw new Failure(
        "busy",
        `The configuration of ${project} has changed since it was shown`,
        { hint: "Run the command again." },
      );
    }
    approve(instance, project, config);
    approved = true;
  }
  if (!approved && config.gitPrograms) {
    const why = fault ?? "they are not approved";
    // A configuration that cannot be reviewed can be accepted, but only for this start.
    if (fault === undefined || !await ask(config)) {
      throw new Failure(
        "unsafe",
        `Cannot start Claude on ${project}: git may run programs of the project, and ${why}`,
        {
          hint:
            "Read its .git/config, then accept it with --trust-project or at a terminal.",
        },
      );
    }
  }
  if (fault !== undefined) {
    log(
      `warning: ${project}'s own Claude configuration is not in effect: ${fault}`,
    );
  } else if (!approved) {
    log(
      `warning: ${project}'s own Claude configuration is not in effect: it is not approved`,
    );
    log(
      "Approve it with --trust-project, or open the session at a terminal. It contains:",
    );
    for (const line of shortened(config)) log(`  ${line}`);
  } else if (forbidden.length > 0) {
    log(
      `warning: ${project} sets ${
        forbidden.join(", ")
      }, which a project must not set; this has no effect`,
    );
  }
  return { approved, forbidden };
}

/** Decides before anything is created, but only if git may run programs of the project. */
export async function judgeConfigEarly(
  instance: Home & Pick<Instance, "host">,
  project: string,
  ask: (config: ProjectConfig) => Promise<boolean>,
  log: Log,
  copyOf?: string,
): Promise<ConfigVerdict | undefined> {
  return readProjectConfig(project, instance.host)?.gitPrograms
    ? await judgeProjectConfig(instance, project, ask, log, copyOf)
    : undefined;
}

const minLines = 40;

/** The lines to show to the user: all that run programs, and some of the others. */
export function shortened(
  { summary, running }: Pick<ProjectConfig, "summary" | "running">,
): string[] {
  const count = Math.max(minLines, running);
  const rest = summary.length - count;
  const first = summary.slice(0, count).map(printable);
  return rest > 0
    ? [...first, `... and ${rest} more: read them before you approve them`]
    : first;
}
