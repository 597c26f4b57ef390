// Copies files and objects. Where the file system can, copies share their blocks until one
// of them is changed; they are never hard links.

import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { Failure } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { namesIn } from "../../std/names-in.ts";
import { type ProgramOptions, runProgram } from "../../std/program.ts";
import { measureTrees } from "../../std/remove-tree.ts";
import { megabytes } from "../../std/units.ts";
import { minShownBytes, showWritten } from "./progress.ts";

const copyCommand = ["cp", "-R", "-P", "--reflink=auto"];

/** Throws a Failure with the first error of a program. */
async function must(
  command: string[],
  options: ProgramOptions = {},
): Promise<void> {
  const { exitCode, stderr } = await runProgram(command, options);
  if (exitCode === 0) return;
  const [line = ""] = stderr.split("\n");
  const full = /No space left on device/.test(line);
  throw new Failure(full ? "resources" : "failed", line || "cp failed");
}

/**
 * With its times: of a file that is as old as the index, git reads the content, since it may
 * have been changed in the same second.
 */
export async function copyFile(from: string, to: string): Promise<void> {
  mkdirSync(dirname(to), { recursive: true });
  const kept = "--preserve=mode,timestamps";
  await must(["cp", "-P", "--reflink=auto", kept, "--", from, to]);
}

/** Copies files of a directory, with the directories that they are in. */
export async function copyTree(
  from: string,
  to: string,
  paths: string[],
): Promise<void> {
  if (paths.length === 0) return;
  await must([
    ...["env", `--chdir=${from}`, "xargs", "-0", ...copyCommand],
    ...["--parents", "--preserve=mode,timestamps", `--target-directory=${to}`],
    "--",
  ], { input: paths.map((path) => `${path.replace(/\/$/, "")}\0`).join("") });
}

/** More than it takes if the repository is packed in the meantime. */
const attempts = 5;

/**
 * Copies all objects of a repository, also while others work in it: git removes an object
 * only when it is in a pack, so packs are copied last, until none was added or removed.
 */
export async function copyObjects(
  from: string,
  to: string,
  log: Log,
): Promise<void> {
  const bytes = (await measureTrees([from])).get(from) ?? 0;
  if (bytes > minShownBytes) {
    log(`Copying ${megabytes(bytes)} of objects`);
  }
  mkdirSync(join(to, "pack"), { recursive: true });
  for (
    const name of namesIn(from).filter((name) => /^[0-9a-f]{2}$/.test(name))
  ) {
    // It may be removed in the meantime.
    const copy = [...copyCommand, "--remove-destination", "--"];
    await must([...copy, join(from, name), to]).catch((error) => {
      if (existsSync(join(from, name))) throw error;
    });
  }
  for (let attempt = 1;; attempt++) {
    const before = packsIn(from);
    const done = new Set(namesIn(join(to, "pack")));
    const missing = before.filter((name) => !done.has(name));
    const failed = await showWritten(
      log,
      { what: "Copying objects", bytes },
      (started) =>
        must([
          ...["xargs", "-0", "-r", "cp", "-P", "--reflink=auto"],
          ...[`--target-directory=${join(to, "pack")}`, "--"],
        ], {
          input: missing.map((name) => `${join(from, "pack", name)}\0`)
            .join(""),
          started,
        }),
    ).then(() => undefined, (error) => error);
    if (!failed && `${packsIn(from)}` === `${before}`) return;
    if (failed?.kind === "resources" || attempt === attempts) {
      throw failed ?? new Failure("busy", "It is being packed", {
        hint: "Try again.",
      });
    }
  }
}

function packsIn(objects: string): string[] {
  return namesIn(join(objects, "pack"))
    .filter((name) => /^pack-[0-9a-f]+\.(pack|idx|rev|mtimes)$/.test(name))
    .sort();
}
