// Finds programs that git runs when it reads a project's files. Claude calls git when it
// starts. Filters can have any name, so they cannot be disabled in advance. Claude itself
// disables hooks and the file system monitor. If configuration cannot be followed as git
// would, it is reported as unreviewable instead of being ignored.

import { Buffer } from "node:buffer";
import { lstatSync, realpathSync } from "node:fs";
import { join, normalize } from "node:path";
import { isWithin } from "../std/hostpath.ts";
import { readPlain, Unreviewable } from "../std/plain-below.ts";
import { insideWorker } from "../instance/paths.ts";

const maxBytes = 1024 * 1024;
/** The limit for files that contain a path. */
const maxPathBytes = 8192;

/** A git directory: `name` below `root`, neither of which contains links. */
interface Place {
  root: string;
  name: string;
}

/** The sections that run programs, by file name. Throws Unreviewable. */
export function gitPrograms(
  project: string,
  mount: string,
): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const { root, name } of gitDirectories(project, mount)) {
    for (const file of ["config", "config.worktree"]) {
      const path = join(name, file);
      const bytes = readPlain(root, path, maxBytes);
      const sections = programSections(bytes?.toString("latin1") ?? "", path);
      const shown = root === mount + project ? path : `/${path}`;
      if (sections !== "") found.set(shown, Buffer.from(sections, "latin1"));
    }
  }
  return found;
}

function programSections(text: string, path: string): string {
  return text.replace(/\\\r?\n/g, "\\ ") // a value continues on the next line
    .split(/^(?=[ \t]*\[)/m)
    .filter((section) => {
      // These are the only spellings of the header.
      if (/\[include(if)?[\s".\]]/i.test(section)) {
        throw new Unreviewable(`${path} includes other files`);
      }
      return /\[filter[\s".\]]/i.test(section) && !gitLfs.test(section);
    }).join("");
}

/** The output of `git lfs install --local`, which runs no program of the project. */
const gitLfs =
  /^\s*\[filter "lfs"\]\s*(\s(required = true|(clean|smudge) = git-lfs (clean|smudge) (--skip )?-- %f|process = git-lfs filter-process( --skip)?)\s*)+$/;

/** The directories where git reads configuration: the project's and its repository's. */
function gitDirectories(project: string, mount: string): Place[] {
  const root = mount + project;
  const stat = (name: string) =>
    lstatSync(join(root, name), { throwIfNoEntry: false });
  const found: Place[] = [];
  const git = stat(".git");
  if (git?.isDirectory()) found.push({ root, name: ".git" });
  else if (git?.isFile()) {
    const text = readText({ root, name: ".git" }) ?? "";
    // git rejects anything else.
    if (text.startsWith("gitdir: ")) {
      found.push(...placesOf(text.slice(8), ".git", { root, name: "" }));
    }
  } else if (git) throw new Unreviewable(".git is a link");
  // Without a valid .git, the project may itself be a git directory.
  if (stat("HEAD") && (stat("commondir") || stat("objects") && stat("refs"))) {
    found.push({ root, name: "" });
  }
  const common = found.flatMap((place) => {
    const name = join(place.name, "commondir");
    const lead = readText({ ...place, name });
    return lead === undefined ? [] : placesOf(lead, name, place);
  });
  return [...found, ...common];

  /** Resolves `lead`, the content of `file`, from a place; empty if nothing exists there. */
  function placesOf(lead: string, file: string, from: Place): Place[] {
    const path = lead.replace(/[\r\n]+$/, "");
    const parts = path.split("/");
    // A part before .. could be a link, and git ends a path at a control character.
    const climbs = parts.some((part, at) =>
      part === ".." && parts.slice(0, at).some((one) => one !== "..")
    );
    // deno-lint-ignore no-control-regex
    if (climbs || /[\x00-\x1f\x7f]/.test(path)) {
      throw new Unreviewable(`${file} has an unusual path`);
    }
    const isOwn = from.root === root;
    const below = (top: string) =>
      normalize(path.startsWith("/") ? path : join(top, from.name, path));
    // In the worker the project has another path, and its parent directories do not exist.
    const inWorker = below(isOwn ? insideWorker.workspace : "/");
    const onHost = below(isOwn ? project : "/");
    for (
      const [at, top] of [[inWorker, insideWorker.workspace], [onHost, project]]
    ) {
      if (isWithin(at!, top!)) {
        return [{ root, name: at!.slice(top!.length + 1) }];
      }
    }
    // These can lead to any other path.
    if (/^\/(proc|sys|dev)(\/|$)/.test(inWorker)) {
      throw new Unreviewable(`${file} has an unusual path`);
    }
    try {
      const real = realpathSync(mount + onHost).slice(mount.length);
      return [{ root: mount || "/", name: real.slice(1) }];
    } catch {
      return []; // missing, so it cannot be mounted
    }
  }
}

function readText({ root, name }: Place): string | undefined {
  const bytes = readPlain(root, name, maxPathBytes);
  try {
    return bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Unreviewable(`${name} is not text`);
  }
}
