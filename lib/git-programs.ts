// What git runs of a project as soon as it looks at the project's files, which Claude
// has it do when it starts. A filter may have any name, so none can be switched off
// beforehand. Hooks and the file system monitor Claude switches off itself.

import { Buffer } from "node:buffer";
import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { gitFileText } from "./git-directory.ts";
import { isWithin } from "./hostpath.ts";
import { readPlain } from "./plain-below.ts";
import { inside } from "./worker.ts";

const maxBytes = 1024 * 1024;

/** A git directory: `name` below the directory `root`. */
interface Place {
  root: string;
  name: string;
}

/** The sections that run programs, by the name of their file. Throws Unjudged. */
export function gitPrograms(
  project: string,
  mount: string,
): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const { root, name } of gitDirectories(project, mount)) {
    for (const file of ["config", "config.worktree"]) {
      const path = join(name, file);
      const text = textOf({ root, name: path });
      const sections = text.split(/^(?=\s*\[)/m)
        // So a header is spelled, and no other way.
        .filter((section) => /\[(filter|include(if)?)[\s".\]]/i.test(section));
      if (sections.length === 0) continue;
      const shown = root === mount + project ? path : `/${path}`;
      found.set(shown, Buffer.from(sections.join(""), "latin1"));
    }
  }
  return found;
}

/** Each byte a character. */
function textOf({ root, name }: Place): string {
  return readPlain(root, name, maxBytes)?.toString("latin1") ?? "";
}

/** Where git may find its configuration, the project's own and the repository's. */
function gitDirectories(project: string, mount: string): Place[] {
  const root = mount + project;
  const leads: string[] = [];
  const git = lstatSync(join(root, ".git"), { throwIfNoEntry: false });
  if (git?.isDirectory()) leads.push(".git");
  else if (git?.isSymbolicLink()) leads.push(readlinkSync(join(root, ".git")));
  else if (git?.isFile()) {
    leads.push(gitFileText(textOf({ root, name: ".git" })) ?? "");
  }
  // Without a .git that git accepts the project may itself be one.
  const parts = ["HEAD", "objects", "refs"].map((name) => join(root, name));
  if (parts.every((path) => lstatSync(path, { throwIfNoEntry: false }))) {
    leads.push(".");
  }
  const own = leads.flatMap((lead) => placesOf(lead, inside.workspace));
  const common = own.flatMap((place) => {
    const lead = textOf({ ...place, name: join(place.name, "commondir") });
    const at = place.root === root ? inside.workspace : place.root;
    return lead.trim() === ""
      ? []
      : placesOf(lead.replace(/[\r\n]+$/, ""), join(at, place.name));
  });
  return [...own, ...common];

  /** In the worker, and on the host, where a repository outside is mounted from. */
  function placesOf(lead: string, from: string): Place[] {
    if (lead === "") return [];
    const hostFrom = isWithin(from, inside.workspace)
      ? project + from.slice(inside.workspace.length)
      : from;
    const paths = new Set([resolve(from, lead), resolve(hostFrom, lead)]);
    return [...paths].flatMap((path) => {
      for (const top of [inside.workspace, project]) {
        if (isWithin(path, top)) {
          return { root, name: path.slice(top.length + 1) };
        }
      }
      try {
        const real = realpathSync(mount + path).slice(mount.length);
        return { root: mount || "/", name: real.slice(1) };
      } catch {
        return []; // nothing that could be mounted
      }
    });
  }
}
