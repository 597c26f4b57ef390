// Profiles: the options of commands that start a worker, and claudy profile.

import process from "node:process";
import type { CAC, Command } from "cac";
import { Failure } from "../std/errors.ts";
import {
  listProfiles,
  type ProfileWish,
  readyImage,
} from "../image/profiles.ts";
import { openInstance } from "../instance/open.ts";
import { viewInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import { checkProfile, detected } from "../project/profile.ts";
import { columns } from "../std/text.ts";
import { megabytes } from "../std/units.ts";
import { checkout } from "../std/checkout.ts";
import { action } from "../cli/options.ts";
import { answer } from "../cli/output.ts";

export interface ProfileOptions {
  profile?: unknown;
  build?: boolean;
}

/** Adds --profile and --no-build; `otherwise` is the profile without them. */
export function addProfileOptions(
  command: Command,
  otherwise: string,
): Command {
  return command
    .option(
      "--profile <name>",
      "base, python, node, java, one of your own, or auto: as the project's " +
        `files say (default: ${otherwise})`,
    )
    .option("--no-build", "The plain worker where the profile is not built");
}

export function profileWish({ profile, build }: ProfileOptions): ProfileWish {
  return {
    name: profile === undefined ? undefined : String(profile),
    build: build !== false,
    checkout,
  };
}

interface Options {
  json?: boolean;
}

export const profileActions = {
  list: async (_: undefined, { json }: Options) => {
    const profiles = await listProfiles(
      await viewInstance(process.env, logToStderr),
    );
    const rows = profiles.map(({ name, image, sizeBytes, own, warm }) => [
      name,
      sizeBytes === null ? "not built" : megabytes(sizeBytes),
      [own ? "your own" : "", warm ? "kept warm" : ""].filter(Boolean)
        .join(", "),
      image,
    ]);
    const text = columns([["PROFILE", "SIZE", "", "IMAGE"], ...rows]);
    answer(profiles, text, json ?? false);
  },
  build: async (name: string | undefined, { json }: Options) => {
    const instance = await openInstance(process.env, logToStderr);
    if (name === undefined || name === detected) {
      throw new Failure("usage", "profile build needs the name of a profile");
    }
    if (instance.self) {
      throw new Failure("usage", "The parent builds no images", {
        hint: "Run this on the host.",
      });
    }
    const profile = { name: checkProfile(name, instance.home), packages: [] };
    const wish = { build: true, checkout };
    const image = await readyImage(instance, profile, wish, logToStderr);
    answer({ profile: name, image: image.name }, image.name, json ?? false);
  },
};

/** Adds claudy profile. */
export function addProfiles(cli: CAC): void {
  cli.command("profile <action> [name]", "list or build of workers' profiles")
    .option("--json", "Print the result as JSON")
    .example("claudy profile build python")
    .action((name: string, profile: string | undefined, options: Options) =>
      action("profile", profileActions, name)(profile as undefined, options)
    );
}
