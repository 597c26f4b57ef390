// Collects everything from which a devcontainer's image is built. The user approves these
// bytes, and the image is built from them: what a worker writes meanwhile has no effect.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { lstatSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { parse } from "jsonc-parser";
import type { HostView } from "../std/hostpath.ts";
import { isTooComplex } from "../std/json.ts";
import { entriesOf, readPlain, Unreviewable } from "../std/plain-below.ts";
import { binarySize } from "../std/units.ts";
import {
  type Devcontainer,
  readDevcontainer,
  shownCommand,
} from "./devcontainer.ts";
import { copiedPaths } from "./dockerfile.ts";

export interface StagedFile {
  bytes: Buffer;
  executable: boolean;
}

/** A devcontainer with all its files, as the user reviews it. */
export interface DevcontainerReview {
  project: string;
  devcontainer: Devcontainer;
  /** By path in the directory that devcontainer.json is staged in. */
  files: Map<string, StagedFile>;
  /** SHA-256 of all that has an effect. */
  digest: string;
  /** Lines that describe it to the user. */
  summary: string[];
}

/** Where files are staged; devcontainer.json keeps its own path. */
export const staged = {
  dockerfile: "hal9000/Dockerfile",
  context: "hal9000/context",
} as const;

/** What is written by hand is smaller; a context above it needs a .dockerignore. */
const maxFileBytes = 8 * 1024 ** 2;
const maxTotalBytes = 32 * 1024 ** 2;
const maxEntries = 2000;
const maxDepth = 16;
const maxShownLength = 200_000;

/** Throws Unreviewable if it cannot be used. */
export async function reviewDevcontainer(
  { project, file }: { project: string; file: string },
  { mount }: HostView,
): Promise<DevcontainerReview> {
  const root = mount + project;
  const devcontainer = readDevcontainer(root, file);
  const files = new Map<string, StagedFile>();
  const sourceLines = await collectSource(root, devcontainer, files);
  const featureLines = Object.keys(devcontainer.features).flatMap((id) =>
    collectFeature(root, devcontainer, id, files)
  );
  const { unused, ...effective } = devcontainer;
  const hash = createHash("sha256").update(JSON.stringify(effective));
  for (const [name, { bytes, executable }] of files) {
    hash.update(`\0${name}\0${executable}\0${bytes.length}\0`).update(bytes);
  }
  const summary = [
    ...sourceLines,
    ...featureLines,
    ...Object.entries(devcontainer.env).map(([key, value]) =>
      `variable in the worker: ${key}=${value}`
    ),
    ...devcontainer.postCreate.map((words) =>
      `runs in each new worker: ${shownCommand(words)}`
    ),
    ...unused.map((line) => `not used: ${line}`),
  ];
  if (summary.join("").length > maxShownLength) {
    throw new Unreviewable("its description is too long to be reviewed");
  }
  return {
    project,
    devcontainer,
    files,
    digest: hash.digest("hex"),
    summary,
  };
}

/** The Dockerfile and the part of the context that it copies; returns lines to show. */
async function collectSource(
  root: string,
  { file, source }: Devcontainer,
  files: Map<string, StagedFile>,
): Promise<string[]> {
  if ("image" in source) return [`image: ${source.image}`];
  const dockerfile = below(file, source.dockerfile, "build.dockerfile");
  const found = plainFile(root, dockerfile);
  if (!found) throw new Unreviewable(`${dockerfile} is missing`);
  files.set(staged.dockerfile, { ...found, executable: false });
  const text = found.bytes.toString("utf8");
  const context = below(file, source.context, "build.context");
  const collected = new Collection(root, context, staged.context, files);
  const copied = copiedPaths(text);
  if (copied?.length !== 0) await collected.ignoreFiles();
  for (const path of copied ?? [""]) collected.add(path);
  return [
    `builds ${dockerfile}${
      source.target ? `, stage ${source.target}` : ""
    }, as root and with a network:`,
    ...linesOf(text),
    ...Object.entries(source.args).map(([key, value]) =>
      `with the argument ${key}=${value}`
    ),
    ...collected.lines(),
  ];
}

/** Also comments: those at the beginning of a Dockerfile have an effect. */
function linesOf(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => line.trim() !== "")
    .map((line) => `  ${line}`);
}

/** A feature in a directory of the project; returns lines to show. */
function collectFeature(
  root: string,
  { file, features }: Devcontainer,
  id: string,
  files: Map<string, StagedFile>,
): string[] {
  const directory = below(file, id, `the feature ${id}`);
  if (!directory.startsWith(".devcontainer/")) {
    throw new Unreviewable(`the feature ${id} is not below .devcontainer`);
  }
  const collected = new Collection(root, directory, directory, files);
  collected.add("");
  const metadata = files.get(`${directory}/devcontainer-feature.json`);
  const script = files.get(`${directory}/install.sh`);
  if (!metadata || !script) {
    throw new Unreviewable(
      `${directory} has no ${
        metadata ? "install.sh" : "devcontainer-feature.json"
      }`,
    );
  }
  refuseDependencies(directory, metadata.bytes.toString("utf8"));
  return [
    `runs ${directory}/install.sh, as root and with a network:`,
    ...linesOf(script.bytes.toString("utf8")),
    ...optionsOf(features[id]).map(([key, value]) =>
      `with the option ${key}=${value}`
    ),
    ...collected.lines(),
  ];
}

/** A single value is the option "version". */
function optionsOf(
  given: Devcontainer["features"][string] = {},
): [string, string | boolean][] {
  return Object.entries(typeof given === "object" ? given : { version: given });
}

/** A dependency would be fetched from a registry without a review. */
function refuseDependencies(directory: string, jsonc: string): void {
  const metadata = isTooComplex(jsonc) ? undefined : parse(jsonc);
  if (typeof metadata !== "object" || metadata === null) {
    throw new Unreviewable(
      `${directory}/devcontainer-feature.json is not a JSON object`,
    );
  }
  if ("dependsOn" in metadata) {
    throw new Unreviewable(
      `${directory} depends on other features, which cannot be reviewed`,
    );
  }
}

/** The files of a directory that are sent to a build. */
class Collection {
  readonly #root: string;
  readonly #directory: string;
  readonly #target: string;
  readonly #files: Map<string, StagedFile>;
  readonly #names: string[] = [];
  #isSent: (path: string) => boolean = () => true;
  /** Whether files in an excluded directory may be sent. */
  #hasExceptions = false;
  #entries = 0;
  #bytes = 0;

  constructor(
    root: string,
    directory: string,
    target: string,
    files: Map<string, StagedFile>,
  ) {
    this.#root = root;
    this.#directory = directory;
    this.#target = target;
    this.#files = files;
  }

  /** Leaves out what .dockerignore excludes. */
  async ignoreFiles(): Promise<void> {
    const name = join(this.#directory, ".dockerignore");
    const rules = readPlain(this.#root, name, maxFileBytes);
    if (!rules) return;
    this.#hasExceptions = /^\s*!/m.test(rules.toString("utf8"));
    const { default: { default: ignore } } = await import(
      "@balena/dockerignore"
    );
    const filter = ignore({ ignorecase: false }).add(rules.toString("utf8"))
      .createFilter();
    this.#isSent = (path) => filter(path);
  }

  /** Adds a file, or a directory with all its files; nothing if it is missing. */
  add(path: string, depth = 0): void {
    if (path === ".git") return; // it changes with every commit
    const sent = path === "" || this.#isSent(path);
    if (!sent && !this.#hasExceptions) return;
    const name = join(this.#directory, path).replace(/\/$/, "");
    const kind = name === "." ? "directory" : kindOf(this.#root, name);
    if (kind === undefined) return;
    if (++this.#entries > maxEntries || depth > maxDepth) {
      throw this.#tooMuch(`more than ${maxEntries} files`);
    }
    if (kind === "directory") {
      for (const { name: entry } of entriesOf(this.#root, name, maxEntries)) {
        this.add(join(path, entry), depth + 1);
      }
      return;
    }
    if (!sent || this.#names.includes(path)) return;
    const found = plainFile(this.#root, name);
    if (!found) return; // it was just removed
    this.#bytes += found.bytes.length;
    if (this.#bytes > maxTotalBytes) {
      throw this.#tooMuch(`more than ${binarySize(maxTotalBytes)}`);
    }
    this.#names.push(path);
    this.#files.set(join(this.#target, path), found);
  }

  #tooMuch(what: string): Unreviewable {
    return new Unreviewable(
      `${this.#directory} has ${what}; exclude files in .dockerignore, ` +
        "or name files in COPY",
    );
  }

  lines(): string[] {
    return this.#names.map((name) => `uses ${join(this.#directory, name)}`);
  }
}

function kindOf(root: string, name: string): "directory" | "file" | undefined {
  try {
    // Links, pipes and so on are refused when they are opened as files.
    return lstatSync(join(root, name)).isDirectory() ? "directory" : "file";
  } catch {
    return undefined; // missing
  }
}

function plainFile(root: string, name: string): StagedFile | undefined {
  const bytes = readPlain(root, name, maxFileBytes);
  if (!bytes) return undefined;
  const stat = lstatSync(join(root, name), { throwIfNoEntry: false });
  return { bytes, executable: ((stat?.mode ?? 0) & 0o111) !== 0 };
}

/** A path of devcontainer.json as a path in the project; throws if it leads out of it. */
function below(file: string, path: string, what: string): string {
  const inside = normalize(join(dirname(file), path)).replace(/\/$/, "");
  if (path.startsWith("/") || inside === ".." || inside.startsWith("../")) {
    throw new Unreviewable(`${what} is outside of the project: ${path}`);
  }
  return inside;
}
