// The seccomp profile of all containers that run a worker's image: the engine's default
// profile without calls that create set-uid files on the host or bypass these rules.

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
 * The position of the mode and flags arguments. Not mkdir: the kernel ignores both bits
 * there, see inode(7).
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
 * Calls with arguments in memory, which filters cannot see. They return ENOSYS as on an
 * older kernel, so that programs use the calls above.
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
 * Derives the workers' profile from the engine's. Calls with a set-uid or set-gid mode
 * return EPERM. Without O_CREAT, open ignores the mode, whose register may contain
 * anything. Other ABIs (32-bit programs) are not allowed: they have other numbers for
 * these calls, and socketcall.
 */
export function workerProfile(engine: Profile): Profile {
  const replaced = new Set([
    ...modeArguments.map(({ name }) => name),
    ...hiddenArguments,
    "socket",
    "socketcall",
  ]);
  const kept = engine.syscalls
    // Rules that need capabilities; workers have none.
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
      // A call is allowed if any of its rules matches.
      allow("socket", { index: 0, value: AF_ALG, op: "SCMP_CMP_LT" }),
      allow("socket", { index: 0, value: AF_ALG + 1, op: "SCMP_CMP_EQ" }),
      allow("socket", { index: 0, value: AF_VSOCK, op: "SCMP_CMP_GT" }),
    ],
  };
}

let made: { text: string; digest: string } | undefined;

/** The profile in the engine's format, and its digest. */
export function workerProfileText(): { text: string; digest: string } {
  if (made) return made;
  const text = JSON.stringify(workerProfile(engineProfile as Profile));
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 16);
  return made = { text, digest };
}

const trialSchema = v.object({
  version: v.literal(1),
  /** Digest of the tested profile. */
  profile: v.string(),
  /** The versions of the engine, its components and the kernel in the test. */
  engine: v.string(),
  /** Why the profile is not used; null if it works. */
  fault: v.nullable(v.string()),
  /** Whether the engine gets the path of the profile: Podman reads it from a file. */
  file: v.optional(v.boolean()),
});

export type SeccompTrial = v.InferOutput<typeof trialSchema>;

type Home = Pick<Instance, "home">;

/** The result of testing the current profile; undefined if it was not tested. */
export function readTrial({ home }: Home): SeccompTrial | undefined {
  const trial = readJson(home.seccompTrial, trialSchema);
  return trial?.profile === workerProfileText().digest ? trial : undefined;
}

/**
 * The profile for containers that run a worker's image, as the engine gets it; undefined
 * for the engine's default profile, if that is configured or ours does not work. Tests the
 * profile if that was not done yet.
 */
export async function workerSeccomp(
  instance: Instance,
  log: Log,
): Promise<string | undefined> {
  const trial = await trialOf(instance, log);
  if (!trial?.works) return undefined;
  return trial.file ? writeProfile(instance) : workerProfileText().text;
}

/**
 * The profile as options of `docker run`, which reads it from a file, and sends only its
 * content.
 */
export async function seccompOptions(
  instance: Instance,
  log: Log,
): Promise<string[]> {
  const trial = await trialOf(instance, log);
  if (!trial?.works || trial.file) return [];
  writeProfile(instance);
  return [`--security-opt=seccomp=${instance.home.seccompProfile}`];
}

/** Whether to use the profile, also untested if there is no image to test it with. */
async function trialOf(
  instance: Instance,
  log: Log,
): Promise<{ works: boolean; file?: boolean | undefined } | undefined> {
  if (instance.settings.WORKER_SECCOMP === "engine") return undefined;
  const trial = readTrial(instance) ?? await tryProfile(instance, log);
  return { works: (trial?.fault ?? null) === null, file: trial?.file };
}

/** Writes the profile to a file; returns its path on the engine's machine. */
function writeProfile(instance: Instance): string {
  const { home, hostHome, owner } = instance;
  ensureHome(instance);
  writeAtomic(home.seccompProfile, workerProfileText().text, owner);
  return hostHome.seccompProfile;
}

/** Tests the profile, also again if it failed or the engine has changed. */
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

async function engineVersions(
  { docker }: Pick<Instance, "docker">,
): Promise<string> {
  const { Version, KernelVersion, Components } = await docker.version();
  const parts = (Components ?? []).map(({ Name, Version }) =>
    `${Name} ${Version}`
  );
  return [Version, KernelVersion, ...parts].join(", ");
}

const trialScript = `cd /tmp && : >file && chmod 755 file || exit
chmod 4755 file 2>/dev/null && echo set || echo refused`;

/** Tests the profile; undefined if there is no image to test it with. */
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
  const asText = await tryWith(instance, image, text);
  const file = asText.refused &&
    (await tryWith(instance, image, writeProfile(instance))).fault === null;
  const trial: SeccompTrial = {
    version: 1,
    profile: digest,
    engine: await engineVersions(instance),
    ...(file ? { fault: null, file } : { fault: asText.fault }),
  };
  writeAtomic(home.seccompTrial, JSON.stringify(trial, null, 2) + "\n", owner);
  if (trial.fault !== null) {
    log(
      `warning: Workers use the engine's default seccomp profile: ${trial.fault}`,
    );
  }
  return trial;
}

/** Tries the profile, as text or as a path: its fault, and whether the engine refuses it. */
async function tryWith(
  instance: Instance,
  image: string,
  profile: string,
): Promise<{ fault: string | null; refused?: boolean }> {
  try {
    const output = await runHelper(instance, {
      // Without the words that are looked for below.
      subject: "Cannot test the workers' profile",
      image,
      command: ["bash", "-c", trialScript],
      user: "65534:65534",
      security: [`seccomp=${profile}`],
    });
    return { fault: faultIn(output.trim()) };
  } catch (error) {
    const message = messageOf(error);
    // Other errors, such as a busy engine, say nothing about the profile.
    if (!/seccomp|security.opt/i.test(message)) throw error;
    return { fault: faultIn(message), refused: true };
  }
}

/** Why the profile does not work, from the output of the test; null if it works. */
export function faultIn(output: string): string | null {
  if (output === "refused") return null;
  if (output === "set") return "it has no effect";
  return `programs cannot run with it: ${output.slice(0, 200) || "no output"}`;
}
