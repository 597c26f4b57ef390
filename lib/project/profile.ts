// Determines the profile of a project: by name, by the project's settings, or by its
// files.

import { existsSync, lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { parseConf } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import { type HostView, isSmallFile, readSmallFile } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { didYouMean } from "../std/nearest.ts";
import type { HomePaths } from "../instance/paths.ts";
import type { Settings } from "../instance/settings.ts";

/** The worker image without additions. */
export const baseProfile = "base";

/** Profiles shipped with HAL-9000, besides base. */
export const shippedProfiles = ["python", "node", "java"] as const;

/** The image of the project's devcontainer.json. */
export const devcontainerProfile = "devcontainer";

/** This profile name means: detect the profile from the project's files. */
export const detected = "auto";

/** Names that users cannot give to their own profiles. */
const reserved: string[] = [baseProfile, detected, devcontainerProfile];

export interface Profile {
  name: string;
  /** Additional Debian packages. */
  packages: string[];
  /** Only for a devcontainer: the project, and its devcontainer.json in it. */
  devcontainer?: { project: string; file: string };
}

/** The first profile with one of its files in the project's top directory applies. */
const markers: [name: string, files: string[]][] = [
  ["java", ["pom.xml", "build.gradle", "build.gradle.kts"]],
  ["python", ["pyproject.toml", "Pipfile", "requirements.txt"]],
  ["node", ["package.json"]],
];

/** Detects a profile from the project's files. */
export function detectProfile(project: string, { mount }: HostView): string {
  const found = markers.find(([, files]) =>
    files.some((file) => isPlainFile(join(mount + project, file)))
  );
  return found?.[0] ?? baseProfile;
}

/** Where a project may have it; the specification has more places, to choose from. */
const devcontainerFiles = [
  ".devcontainer/devcontainer.json",
  ".devcontainer.json",
];

/** Does not follow links: the result would reveal which files exist on the host. */
function isPlainFile(path: string): boolean {
  try {
    return lstatSync(path).isFile();
  } catch {
    return false; // missing, or not accessible
  }
}

/** The settings file in a project's directory. */
export const projectConf = ".hal9000.conf";

const maxPackages = 64;

const nameSchema = v.pipe(
  v.string(),
  v.regex(
    /^[a-z][a-z0-9-]{0,30}$/,
    "must be the name of a profile: lower-case letters, digits and dashes",
  ),
);

/**
 * https://www.debian.org/doc/debian-policy/ch-controlfields.html#source, but without a
 * final dash, which makes apt-get remove the package.
 */
const packagePattern = /^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$/;

const packagesSchema = v.pipe(
  v.string(),
  v.transform((text) => text.split(/\s+/).filter((word) => word !== "")),
  v.maxLength(maxPackages, `must be ${maxPackages} packages at most`),
  v.everyItem(
    (name) => packagePattern.test(name),
    "must be names of Debian packages",
  ),
);

const projectSettings: Record<string, v.GenericSchema<string, unknown>> = {
  HAL9000_PROFILE: nameSchema,
  HAL9000_APT: packagesSchema,
};

interface Asked {
  HAL9000_PROFILE?: string;
  HAL9000_APT?: string[];
}

/**
 * The settings of a project. A worker may have written them, so they are validated, and
 * can only name a profile and packages of Debian's archive.
 */
function readProjectConf(
  project: string,
  { mount }: HostView,
  log: Log,
): Asked {
  const path = join(project, projectConf);
  const asked: Record<string, unknown> = {};
  const present = lstatSync(mount + path, { throwIfNoEntry: false });
  if (present && !isSmallFile(present)) {
    log(`warning: ignoring ${path}: it is too large or not a plain file`);
  }
  for (
    const [key, { text, place }] of parseConf(readSmallFile(mount + path), path)
  ) {
    const schema = Object.hasOwn(projectSettings, key)
      ? projectSettings[key]
      : undefined;
    if (!schema) {
      const near = didYouMean(key, Object.keys(projectSettings));
      log(`${place}: ${key} is not a project setting. ${near}`.trimEnd());
      continue;
    }
    const result = v.safeParse(schema, text);
    if (!result.success) {
      throw new Failure(
        "usage",
        `${place}: ${key} ${result.issues[0].message}, got "${text}"`,
      );
    }
    asked[key] = result.output;
  }
  return asked;
}

/**
 * The profile of a project: the chosen, else the configured one, else its devcontainer,
 * else the one detected by other files.
 */
export function profileOf(
  project: string,
  host: HostView,
  chosen: string | undefined,
  log: Log,
  { USE_DEVCONTAINERS = false }: Partial<Settings> = {},
): Profile {
  const asked = readProjectConf(project, host, log);
  const wanted = chosen === detected ? undefined : chosen;
  const name = wanted ?? asked.HAL9000_PROFILE ?? detected;
  const packages = asked.HAL9000_APT ?? [];
  const wantsFile = name === devcontainerProfile ||
    name === detected && USE_DEVCONTAINERS;
  const file = wantsFile
    ? devcontainerFiles.find((file) =>
      isPlainFile(join(host.mount + project, file))
    )
    : undefined;
  if (file !== undefined) {
    return {
      name: devcontainerProfile,
      packages,
      devcontainer: { project, file },
    };
  }
  if (name === devcontainerProfile) {
    throw new Failure("notFound", `${project} has no devcontainer.json`, {
      hint:
        "Create .devcontainer/devcontainer.json, or choose another profile.",
    });
  }
  return {
    name: name === detected ? detectProfile(project, host) : name,
    packages,
  };
}

/** Throws a Failure unless the profile is shipped or in HAL9000_HOME/profiles. */
export function checkProfile(name: unknown, home: HomePaths): string {
  const text = String(name);
  const { success, issues } = v.safeParse(nameSchema, text);
  if (!success) {
    throw new Failure("usage", `--profile ${issues[0].message}, got "${text}"`);
  }
  const known = [
    ...new Set([
      baseProfile,
      ...shippedProfiles,
      devcontainerProfile,
      ...userProfiles(home),
    ]),
  ];
  if (text === detected || known.includes(text)) return text;
  throw new Failure("notFound", `There is no profile "${text}"`, {
    hint: `${didYouMean(text, known)}Available: ${known.join(", ")}. ` +
      `Add your own: ${home.profile("NAME")}/Dockerfile. ` +
      "Reset a session's profile with --profile auto.",
  });
}

/** The user's own profiles: directories with a Dockerfile in HAL9000_HOME/profiles. */
export function userProfiles(home: HomePaths): string[] {
  if (!existsSync(home.profiles)) return [];
  return readdirSync(home.profiles)
    .filter((name) => v.is(nameSchema, name) && isUserProfile(name, home))
    .sort();
}

/** Whether the user has a profile with this name, which may replace a shipped one. */
export function isUserProfile(name: string, home: HomePaths): boolean {
  if (reserved.includes(name)) return false;
  try {
    return statSync(join(home.profile(name), "Dockerfile")).isFile();
  } catch {
    return false; // missing
  }
}
