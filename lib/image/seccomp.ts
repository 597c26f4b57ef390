// The seccomp profile of everything that runs a worker's image: the engine's own,
// less what leaves set-uid files on the host or gets around these rules.

import { createHash } from "node:crypto";
import * as v from "valibot";
import { inspectImage } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { runHelper } from "../helper/helper.ts";
import { workerImage } from "./recipes.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { readJson } from "../std/json.ts";
import { writeAtomic } from "../std/owned.ts";
import { ensureHome } from "../instance/volumes.ts";
import engineProfile from "../../docker/seccomp-default.json" with {
  type: "json",
};

interface Argument {
  index: number;
  value: number;
  valueTwo?: number;
  op: string;
}

interface Rule {
  names: string[];
  action: string;
  args?: Argument[] | null;
  errnoRet?: number;
  includes?: Condition;
  excludes?: Condition;
}

interface Condition {
  caps?: string[];
  arches?: string[];
  minKernel?: string;
}

export interface Profile {
  defaultAction: string;
  archMap: { architecture: string; subArchitectures?: string[] | null }[];
  syscalls: Rule[];
}

/**
 * Which argument of a call holds the mode of a file, and which the flags. Not
 * mkdir: the kernel takes neither bit from it, inode(7).
 */
const modeArguments: { name: string; mode: number; flags?: number }[] = [
  { name: "chmod", mode: 1 },
  { name: "fchmod", mode: 1 },
  { name: "fchmodat", mode: 2 },
  { name: "creat", mode: 1 },
  { name: "mknod", mode: 1 },
  { name: "mknodat", mode: 2 },
  { name: "open", mode: 2, flags: 1 },
  { name: "openat", mode: 3, flags: 2 },
];

/**
 * Their arguments are in memory, where no filter sees them. As if the kernel were
 * older: programs then use the calls above.
 */
const hiddenArguments = [
  "openat2",
  "fchmodat2",
  "io_uring_setup",
  "io_uring_enter",
  "io_uring_register",
];

const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const O_CREAT = 0o100;
const O_TMPFILE = 0o20000000;
const AF_ALG = 38;
const AF_VSOCK = 40;
const ENOSYS = 38;

const allow = (name: string, ...args: Argument[]): Rule => ({
  names: [name],
  action: "SCMP_ACT_ALLOW",
  args,
});

const without = (index: number, bits: number): Argument => ({
  index,
  value: bits,
  valueTwo: 0,
  op: "SCMP_CMP_MASKED_EQ",
});

/**
 * The rules of a worker, from those of the engine. Calls with a mode that has
 * set-uid or set-gid give EPERM; without O_CREAT open ignores its mode, and what
 * is in the register then means nothing. Other ABIs (32-bit programs) are left
 * out: they have the same calls under other numbers, and socketcall besides.
 */
export function workerProfile(engine: Profile): Profile {
  const replaced = new Set([
    ...modeArguments.map(({ name }) => name),
    ...hiddenArguments,
    "socket",
    "socketcall",
  ]);
  const kept = engine.syscalls
    // Rules for who has capabilities; workers have none.
    .filter(({ includes }) => !includes?.caps?.length)
    .map((rule) => ({
      ...rule,
      names: rule.names.filter((name) => !replaced.has(name)),
    }))
    .filter(({ names }) => names.length > 0);
  return {
    defaultAction: engine.defaultAction,
    archMap: engine.archMap.map(({ architecture }) => ({ architecture })),
    syscalls: [
      ...kept,
      ...modeArguments.flatMap(({ name, mode, flags }) => [
        allow(name, without(mode, S_ISUID | S_ISGID)),
        ...(flags === undefined
          ? []
          : [allow(name, without(flags, O_CREAT | O_TMPFILE))]),
      ]),
      { names: hiddenArguments, action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
      // Rules for one call are alternatives.
      allow("socket", { index: 0, value: AF_ALG, op: "SCMP_CMP_LT" }),
      allow("socket", { index: 0, value: AF_ALG + 1, op: "SCMP_CMP_EQ" }),
      allow("socket", { index: 0, value: AF_VSOCK, op: "SCMP_CMP_GT" }),
    ],
  };
}

let made: { text: string; digest: string } | undefined;

/** The profile as the engine takes it, and its digest. */
export function workerProfileText(): { text: string; digest: string } {
  if (made) return made;
  const text = JSON.stringify(workerProfile(engineProfile as Profile));
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 16);
  return made = { text, digest };
}

const trialSchema = v.object({
  version: v.literal(1),
  /** Digest of the profile that was tried. */
  profile: v.string(),
  /** The versions that it was tried with. */
  engine: v.string(),
  /** Why it is not used; null where it is. */
  fault: v.nullable(v.string()),
});

export type SeccompTrial = v.InferOutput<typeof trialSchema>;

type Home = Pick<Instance, "home">;

/** How the present profile was found to work here, undefined before a trial. */
export function readTrial({ home }: Home): SeccompTrial | undefined {
  const trial = readJson(home.seccompTrial, trialSchema);
  return trial?.profile === workerProfileText().digest ? trial : undefined;
}

/**
 * The profile of a container that runs a worker's image; undefined for the
 * engine's own, where that was chosen or ours does not work. Tried first where
 * that was never done.
 */
export async function workerSeccomp(
  instance: Instance,
  log: Log,
): Promise<string | undefined> {
  if (instance.settings.WORKER_SECCOMP === "engine") return undefined;
  const trial = readTrial(instance) ?? await tryProfile(instance, log);
  return trial && trial.fault !== null ? undefined : workerProfileText().text;
}

/** The same as options of `docker run`, whose client reads a file. */
export async function seccompOptions(
  instance: Instance,
  log: Log,
): Promise<string[]> {
  const text = await workerSeccomp(instance, log);
  if (text === undefined) return [];
  const { home, owner } = instance;
  ensureHome(instance);
  writeAtomic(home.seccompProfile, text, owner);
  return [`--security-opt=seccomp=${home.seccompProfile}`];
}

/** Tries the profile again where it failed, or the engine is another since. */
export async function ensureSeccompTried(
  instance: Instance,
  log: Log,
): Promise<void> {
  if (instance.settings.WORKER_SECCOMP === "engine") return;
  const before = readTrial(instance);
  const same = before?.engine === await engineVersions(instance);
  if (same && before?.fault === null) return;
  await tryProfile(instance, log);
}

async function engineVersions({ docker }: Instance): Promise<string> {
  const { Version, KernelVersion, Components } = await docker.version();
  const parts = (Components ?? []).map(({ Name, Version }) =>
    `${Name} ${Version}`
  );
  return [Version, KernelVersion, ...parts].join(", ");
}

const trialScript = `cd /tmp && : >file && chmod 755 file || exit
chmod 4755 file 2>/dev/null && echo set || echo refused`;

/** Undefined where it cannot be tried. */
async function tryProfile(
  instance: Instance,
  log: Log,
): Promise<SeccompTrial | undefined> {
  const { docker, settings, home, owner } = instance;
  ensureHome(instance);
  let image: string | undefined;
  const parent = `${settings.HAL9000_IMAGE_REPO}:parent`;
  for (const name of [parent, workerImage(settings)]) {
    image ??= (await inspectImage(docker, name))?.Id;
  }
  if (image === undefined) return undefined;
  const { text, digest } = workerProfileText();
  let output: string;
  try {
    output = await runHelper(instance, {
      subject: "Cannot try the seccomp profile",
      image,
      command: ["bash", "-c", trialScript],
      user: "65534:65534",
      security: [`seccomp=${text}`],
    });
  } catch (error) {
    output = messageOf(error);
    // An engine that is busy or out of memory has not judged the profile.
    if (!/seccomp|security.opt/i.test(output)) throw error;
  }
  const fault = faultIn(output.trim());
  const engine = await engineVersions(instance);
  const trial: SeccompTrial = { version: 1, profile: digest, engine, fault };
  writeAtomic(home.seccompTrial, JSON.stringify(trial, null, 2) + "\n", owner);
  if (fault !== null) {
    log(`warning: Workers get the engine's own seccomp profile: ${fault}`);
  }
  return trial;
}

/** Why the profile is of no use, of what a trial printed; null where it works. */
export function faultIn(output: string): string | null {
  if (output === "refused") return null;
  if (output === "set") return "it has no effect";
  return `programs do not run with it: ${output.slice(0, 200) || "no output"}`;
}
