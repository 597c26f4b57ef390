// What git runs of a project as soon as it looks at the project's files, which Claude
// has it do when it starts. A filter may have any name, so none can be switched off
// beforehand. Hooks and the file system monitor Claude switches off itself. Whatever
// cannot be followed as git would is not taken for nothing, but for unjudged.

import { Buffer } from "node:buffer";
import { lstatSync, realpathSync } from "node:fs";
import { join, normalize } from "node:path";
import { isWithin } from "../std/hostpath.ts";
import { readPlain, Unreviewable } from "../std/plain-below.ts";
import { insideWorker } from "../instance/paths.ts";

const maxBytes = 1024 * 1024;
/** Of a file that holds a path. */
const maxPathBytes = 8192;

/** A git directory: `name` below `root`, both without links in them. */
interface Place {
  root: string;
  name: string;
}

/** The sections that run programs, by the name of their file. Throws Unreviewable. */
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
  return text.replace(/\\\r?\n/g, "\\ ") // a value goes on in the next line
    .split(/^(?=[ \t]*\[)/m)
    .filter((section) => {
      // So a header is spelled, and no other way.
      if (/\[include(if)?[\s".\]]/i.test(section)) {
        throw new Unreviewable(`${path} includes other files`);
      }
      return /\[filter[\s".\]]/i.test(section) && !gitLfs.test(section);
    }).join("");
}

/** As `git lfs install --local` has it: no program of the project. */
const gitLfs =
  /^\s*\[filter "lfs"\]\s*(\s(required = true|(clean|smudge) = git-lfs (clean|smudge) (--skip )?-- %f|process = git-lfs filter-process( --skip)?)\s*)+$/;

/** Where git finds configuration: the project's own, and its repository's. */
function gitDirectories(project: string, mount: string): Place[] {
  const root = mount + project;
  const stat = (name: string) =>
    lstatSync(join(root, name), { throwIfNoEntry: false });
  const found: Place[] = [];
  const git = stat(".git");
  if (git?.isDirectory()) found.push({ root, name: ".git" });
  else if (git?.isFile()) {
    const text = readText({ root, name: ".git" }) ?? "";
    // Anything else git refuses.
    if (text.startsWith("gitdir: ")) {
      found.push(...placesOf(text.slice(8), ".git", { root, name: "" }));
    }
  } else if (git) throw new Unreviewable(".git is a link");
  // Without a .git that git accepts the project may itself be one.
  if (stat("HEAD") && (stat("commondir") || stat("objects") && stat("refs"))) {
    found.push({ root, name: "" });
  }
  const common = found.flatMap((place) => {
    const name = join(place.name, "commondir");
    const lead = readText({ ...place, name });
    return lead === undefined ? [] : placesOf(lead, name, place);
  });
  return [...found, ...common];

  /** Where `lead`, which `file` has, leads from a place; none if nothing is there. */
  function placesOf(lead: string, file: string, from: Place): Place[] {
    const path = lead.replace(/[\r\n]+$/, "");
    const parts = path.split("/");
    // What stands before .. could be a link, and control characters end a path for git.
    const climbs = parts.some((part, at) =>
      part === ".." && parts.slice(0, at).some((one) => one !== "..")
    );
    // deno-lint-ignore no-control-regex
    if (climbs || /[\x00-\x1f\x7f]/.test(path)) {
      throw new Unreviewable(`${file} leads no usual way`);
    }
    const isOwn = from.root === root;
    const below = (top: string) =>
      normalize(path.startsWith("/") ? path : join(top, from.name, path));
    // In the worker the project is at another place, and what is above it is not there.
    const inWorker = below(isOwn ? insideWorker.workspace : "/");
    const onHost = below(isOwn ? project : "/");
    for (
      const [at, top] of [[inWorker, insideWorker.workspace], [onHost, project]]
    ) {
      if (isWithin(at!, top!)) {
        return [{ root, name: at!.slice(top!.length + 1) }];
      }
    }
    // These lead back to anywhere.
    if (/^\/(proc|sys|dev)(\/|$)/.test(inWorker)) {
      throw new Unreviewable(`${file} leads no usual way`);
    }
    try {
      const real = realpathSync(mount + onHost).slice(mount.length);
      return [{ root: mount || "/", name: real.slice(1) }];
    } catch {
      return []; // nothing that could be mounted
    }
  }
}

function readText({ root, name }: Place): string | undefined {
  const bytes = readPlain(root, name, maxPathBytes);
  try {
    return bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Unreviewable(`${name} is no text`);
  }
}
