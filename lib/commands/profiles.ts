// claudy profile: lists and builds the profiles of workers.

import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { listProfiles, readyImage } from "../image/profiles.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import type { HomePaths } from "../instance/paths.ts";
import {
  checkProfile,
  detected,
  devcontainerProfile,
} from "../project/profile.ts";
import { columns } from "../std/text.ts";
import { megabytes } from "../std/units.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

export function profileCommand(io: Io): CAC {
  const cli = command("claudy profile");

  cli.command("list", "List the profiles")
    .option("--json", "Print them as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const profiles = await listProfiles(await viewInstance(io.env, io.log));
      const rows = profiles.map((
        { name, image, sizeBytes, own, warm, project = "" },
      ) => [
        name,
        sizeBytes === null ? "not built" : megabytes(sizeBytes),
        [own ? "your own" : "", warm ? "kept warm" : "", project]
          .filter(Boolean).join(", "),
        image,
      ]);
      const text = columns([["PROFILE", "SIZE", "", "IMAGE"], ...rows]);
      io.answer(profiles, text, json);
    });

  cli.command("build <name>", "Build the image of a profile")
    .option("--json", "Print its name as JSON")
    .example("claudy profile build python")
    .action(async (given: unknown, { json }: { json?: boolean }) => {
      const instance = await openInstance(io.env, io.log);
      const name = imageProfile(String(given), instance.home);
      if (instance.self) {
        throw new Failure("usage", "The parent cannot build images", {
          hint: "Run this on the host.",
        });
      }
      const profile = { name, packages: [] };
      const image = await readyImage(
        instance,
        profile,
        { build: true },
        io.log,
      );
      io.answer({ profile: name, image: image.name }, image.name, json);
    });

  return cli;
}

/** Checks the name of a profile that has an image without a project. */
export function imageProfile(name: string, home: HomePaths): string {
  if (name === detected) {
    throw new Failure(
      "usage",
      `Profile "${detected}" has no image: it stands for the one that fits a project`,
      { hint: "Choose one of: claudy profile list" },
    );
  }
  if (name === devcontainerProfile) {
    throw new Failure("usage", "A devcontainer belongs to a project", {
      hint: "Its image is built when the project is opened: claudy DIRECTORY",
    });
  }
  return checkProfile(name, home);
}
