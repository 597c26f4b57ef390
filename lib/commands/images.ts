// claudy images: saves the images to a file, and loads them on another machine.

import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { CAC } from "cac";
import { loadImages, saveImages } from "../image/transfer.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { ensureEngine } from "../machine/engine.ts";
import { Failure } from "../std/errors.ts";
import { megabytes } from "../std/units.ts";
import { command, version } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { engineConsent, listOf } from "../cli/options.ts";
import { Steps } from "../cli/steps.ts";
import { imageProfile } from "./profiles.ts";

export function imagesCommand(io: Io): CAC {
  const cli = command("claudy images");

  cli.command("save <file>", "Save the images to a file")
    .option("--profile <name>", "Also the image of a profile; repeatable", {
      type: [String],
    })
    .option("--json", "Print the names of the images as JSON")
    .example("claudy images save hal9000.tar.gz --profile python")
    .action(async (file: unknown, options: SaveOptions) => {
      const instance = await open(io);
      const path = resolve(io.cwd(), String(file));
      const profiles = listOf(options.profile).map((name) =>
        imageProfile(name, instance.home)
      );
      const images = await new Steps(io).run(
        "Saving images",
        () => saveImages(instance, path, profiles),
        () => megabytes(statSync(path).size),
      );
      io.answer({ file: path, images }, images.join("\n"), options.json);
    });

  cli.command("load <file>", "Load the images of a file")
    .option("--json", "Print the names of the images as JSON")
    .example("claudy images load hal9000.tar.gz")
    .action(async (file: unknown, { json }: { json?: boolean }) => {
      const { arch } = await ensureEngine(io.env, io.log, engineConsent(io));
      const instance = await open(io);
      const path = resolve(io.cwd(), String(file));
      const images = await new Steps(io).run(
        "Loading images",
        () => loadImages(instance, path, { version, arch }),
      );
      io.answer({ file: path, images }, images.join("\n"), json);
    });

  return cli;
}

interface SaveOptions {
  profile?: unknown;
  json?: boolean;
}

async function open(io: Io): Promise<Instance> {
  const instance = await openInstance(io.env, io.log);
  if (!instance.self) return instance;
  throw new Failure("usage", "The parent cannot save or load images", {
    hint: "Run this on the host.",
  });
}
