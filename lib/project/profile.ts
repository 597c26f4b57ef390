// What kind of worker a project wants: by name, by its own settings, or by the
// files that it has.

import { existsSync, lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { parseConf } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import { type HostView, isSmallFile, readSmallFile } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { didYouMean } from "../std/nearest.ts";
import type { HomePaths } from "../instance/paths.ts";

/** The plain worker. */
export const baseProfile = "base";

/** Those that come with us, besides the plain one. */
export const shippedProfiles = ["python", "node", "java"] as const;

/** A profile by one of these names is whatever the project's files say. */
export const detected = "auto";

/** What nobody's own profile can be called. */
const reserved: string[] = [baseProfile, detected];

export interface Profile {
  name: string;
  /** Debian packages that the project wants besides. */
  packages: string[];
}

/** The first that a project has one of, in the project's own directory. */
const signs: [name: string, files: string[]][] = [
  ["java", ["pom.xml", "build.gradle", "build.gradle.kts"]],
  ["python", ["pyproject.toml", "Pipfile", "requirements.txt"]],
  ["node", ["package.json"]],
];

/** The profile that a project's files ask for. */
export function detectProfile(project: string, { mount }: HostView): string {
  const found = signs.find(([, files]) =>
    files.some((file) => isPlainFile(join(mount + project, file)))
  );
  return found?.[0] ?? baseProfile;
}

/** Links are not followed: the answer would tell which files the host has. */
function isPlainFile(path: string): boolean {
  try {
    return lstatSync(path).isFile();
  } catch {
    return false; // there is none, or it cannot be looked at
  }
}

/** What a project says of itself: a file of our settings in its directory. */
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
 * https://www.debian.org/doc/debian-policy/ch-controlfields.html#source, but for a
 * dash at the end, by which apt-get is told to remove.
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
 * The settings in a project. A worker may have written them: they are text to be
 * checked, and name packages of Debian's archive and nothing else.
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
    log(`warning: ${path} is no plain small file; it is passed over`);
  }
  for (
    const [key, { text, place }] of parseConf(readSmallFile(mount + path), path)
  ) {
    const schema = Object.hasOwn(projectSettings, key)
      ? projectSettings[key]
      : undefined;
    if (!schema) {
      const near = didYouMean(key, Object.keys(projectSettings));
      log(`${place}: ${key} is no setting of a project. ${near}`.trimEnd());
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

/** The profile of a project: the chosen one, else its own, else as detected. */
export function profileOf(
  project: string,
  host: HostView,
  chosen: string | undefined,
  log: Log,
): Profile {
  const asked = readProjectConf(project, host, log);
  const wanted = chosen === detected ? undefined : chosen;
  const name = wanted ?? asked.HAL9000_PROFILE ?? detected;
  return {
    name: name === detected ? detectProfile(project, host) : name,
    packages: asked.HAL9000_APT ?? [],
  };
}

/** Throws a Failure for what is no profile, shipped or in HAL9000_HOME/profiles. */
export function checkProfile(name: unknown, home: HomePaths): string {
  const text = String(name);
  const { success, issues } = v.safeParse(nameSchema, text);
  if (!success) {
    throw new Failure("usage", `--profile ${issues[0].message}, got "${text}"`);
  }
  const known = [
    ...new Set([baseProfile, ...shippedProfiles, ...userProfiles(home)]),
  ];
  if (text === detected || known.includes(text)) return text;
  throw new Failure("notFound", `There is no profile "${text}"`, {
    hint: `${didYouMean(text, known)}Available: ${known.join(", ")}. ` +
      `Your own: ${home.profile("NAME")}/Dockerfile. ` +
      "A session forgets it with --profile auto.",
  });
}

/** A person's own: directories with a Dockerfile in HAL9000_HOME/profiles. */
export function userProfiles(home: HomePaths): string[] {
  if (!existsSync(home.profiles)) return [];
  return readdirSync(home.profiles)
    .filter((name) => v.is(nameSchema, name) && isUserProfile(name, home))
    .sort();
}

/** One that comes with us may be replaced by a person's own. */
export function isUserProfile(name: string, home: HomePaths): boolean {
  if (reserved.includes(name)) return false;
  try {
    return statSync(join(home.profile(name), "Dockerfile")).isFile();
  } catch {
    return false; // there is none, or no directory for it
  }
}
