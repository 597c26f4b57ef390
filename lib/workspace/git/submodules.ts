// Copies submodules whose repositories are there. Nothing is fetched.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { git, gitList, init, type Place, run } from "./git.ts";
import { copyObjects } from "./objects.ts";
import { readSource, urlForWorkers } from "./source.ts";

/**
 * `from` are the git directories of the user that may have their repositories. Returns the
 * commits that they have.
 */
export async function copySubmodules(
  from: string[],
  copy: Place & { workTree: string },
  notices: string[],
  log: Log,
): Promise<string[]> {
  const known: string[] = [];
  const file = join(copy.workTree, ".gitmodules");
  if (!existsSync(file)) return known;
  const entries = await gitList(copy, [
    ...["config", "--file", file, "--no-includes", "--null"],
    ...["--get-regexp", "^submodule\\..*\\.(path|url)$"],
  ], { accept: [0, 1] });
  const modules = new Map<string, { path?: string; url?: string }>();
  for (const entry of entries) {
    const [, name = "", key = "", value = ""] =
      /^submodule\.(.+)\.(path|url)\n(.*)$/s.exec(entry) ?? [];
    modules.set(name, { ...modules.get(name), [key]: value });
  }
  for (const [name, { path, url }] of modules) {
    if (!isPlain(name) || path === undefined || !isPlain(path)) continue;
    const link = await git(copy, ["ls-files", "--stage", "--", path]);
    const id = /^160000 ([0-9a-f]+) /.exec(link)?.[1];
    if (id === undefined) continue;
    const place = from.map((directory) => join(directory, "modules", name))
      .find((directory) => existsSync(join(directory, "HEAD")));
    if (place === undefined) {
      notices.push(`Submodule ${path} is not in your repository`);
      continue;
    }
    try {
      const { module, ids } = await copyModule(
        place,
        copy,
        { name, path, id },
        log,
      );
      known.push(...ids);
      const kept = url === undefined ? undefined : urlForWorkers(url);
      if (kept) await run(copy, ["config", `submodule.${name}.url`, kept]);
      await run(copy, ["config", `submodule.${name}.active`, "true"]);
      known.push(...await copySubmodules([place], module, notices, log));
    } catch (error) {
      notices.push(`Submodule ${path} is not in the copy: ${messageOf(error)}`);
    }
  }
  return known;
}

async function copyModule(
  place: string,
  copy: Place & { workTree: string },
  { name, path, id }: { name: string; path: string; id: string },
  log: Log,
): Promise<{ module: Place & { workTree: string }; ids: string[] }> {
  const source = await readSource({ common: place, own: place, tree: null });
  const gitDir = join(copy.gitDir, "modules", name);
  const workTree = join(copy.workTree, path);
  await init(gitDir, { format: source.format, bare: false });
  await copyObjects(source.objects, join(gitDir, "objects"), log);
  const module = { gitDir, workTree };
  mkdirSync(workTree, { recursive: true });
  await run({ gitDir }, [
    ...["config", "core.worktree", relative(gitDir, workTree)],
  ]);
  writeFileSync(
    join(workTree, ".git"),
    `gitdir: ${relative(workTree, gitDir)}\n`,
  );
  const lines = source.refs.filter(({ target }) => target === "")
    .map(({ name, id }) => `update ${name} ${id}\n`);
  await run(module, ["update-ref", "--stdin"], { input: lines.join("") });
  await run(module, ["checkout", "--quiet", "--force", "--detach", id]);
  return { module, ids: [id, ...source.refs.map(({ id }) => id)] };
}

/** Whether a name or path stays in its directory. */
function isPlain(path: string): boolean {
  return path !== "" && !/^[-/]/.test(path) &&
    !path.split("/").some((part) => ["", ".", "..", ".git"].includes(part));
}
