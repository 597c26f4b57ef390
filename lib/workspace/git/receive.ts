// Takes commits from a pack into a repository. They are examined in a directory of their own
// in it, as git receive-pack does, so that the repository gets all of them or none. Git
// removes such a directory if it is left by a kill.

import { randomBytes } from "node:crypto";
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { namesIn } from "../../std/names-in.ts";
import { shellQuoted } from "../../std/text.ts";
import { git, type Place, run, withoutCaches } from "./git.ts";
import { binarySize } from "../../std/units.ts";
import { commitsAmong, newCommits } from "./commits.ts";
import { Limits } from "./limits.ts";
import { objectsIn, refusePipes } from "./pack.ts";
import { isBranchName, parentsOf } from "./refs.ts";
import { SourceConfig } from "./source.ts";
import { requireWeight } from "./weight.ts";

export const receiveRequestSchema = v.object({
  do: v.literal("receive"),
  /** The git directory. */
  common: v.string(),
  pack: v.string(),
  format: v.picklist(["sha1", "sha256"]),
  /** Commits by branch. */
  branches: v.record(v.pipe(v.string(), v.check(isBranchName)), v.string()),
  /** Of the references to set, such as refs/remotes/claudy/NAME/ */
  prefix: v.pipe(v.string(), v.regex(/^refs\/remotes\/.+\/$/)),
  /**
   * Whether it is a copy, where references of before may be removed that are in the way of
   * new ones.
   */
  isCopy: v.boolean(),
  /** The commit that the session began with. */
  base: v.optional(v.nullable(v.string())),
  /** See limits.ts. Those of the user have no limit. */
  maxBytes: v.optional(v.number()),
});

export type ReceiveRequest = v.InferOutput<typeof receiveRequestSchema>;

export const receiveResultSchema = v.object({
  /** The references that have changed. */
  updated: v.array(v.object({
    branch: v.string(),
    ref: v.string(),
    id: v.string(),
    /** Null for a new one. */
    before: v.nullable(v.string()),
    /** Whether that is no ancestor of the new one. */
    forced: v.boolean(),
    commits: v.number(),
  })),
  /** New commits that are in the history of no other one. */
  tips: v.array(v.string()),
});

export type ReceiveResult = v.InferOutput<typeof receiveResultSchema>;

const committer = {
  GIT_COMMITTER_NAME: "claudy",
  GIT_COMMITTER_EMAIL: "claudy@localhost",
};

export async function receive(
  request: ReceiveRequest,
): Promise<ReceiveResult> {
  const { common, pack, format, branches, prefix, isCopy } = request;
  const limits = isCopy ? undefined : new Limits(request.maxBytes);
  if (limits) requireSmall(pack, limits);
  if (isCopy) await refusePipes(dirname(common));
  await requireFormat(common, format);
  const name = `tmp_objdir-claudy-${randomBytes(6).toString("hex")}`;
  const incoming = join(common, "objects", name);
  // A setting of the repository would be a path of the host.
  const place: Place = { gitDir: common, workTree: common };
  mkdirSync(join(incoming, "pack"), { recursive: true });
  try {
    const inside = { ...place, objects: incoming };
    if (objectsIn(pack) > 0) {
      await run(inside, [
        ...["index-pack", "--stdin", "--fix-thin", "--strict"],
        ...(limits ? [`--max-input-size=${limits.bytes}`] : []),
      ], { input: { file: pack, from: 0 } });
    }
    const ids = [...new Set(Object.values(branches))];
    const { present } = await commitsAmong(inside, ids);
    const missing = ids.filter((id) => !present.includes(id));
    if (missing.length > 0) {
      throw new Failure("failed", `Commit ${missing[0]} is missing`);
    }
    // Whether all objects that they refer to are there. Not with --all: a worker may have made
    // references that git refuses.
    const own = [...(await refsBelow(place, "refs/")).values()];
    const has = await commitsAmong(place, own);
    const revisions = [...ids, ...has.present.map((id) => `^${id}`)];
    await run(inside, ["rev-list", "--objects", "--quiet", "--stdin"], {
      input: revisions.map((line) => `${line}\n`).join(""),
      config: withoutCaches,
    });
    const { commits, tips } = await newCommits(inside, ids, has.present);
    if (limits) {
      // Those below a branch too: `git log --patch` reads each of them.
      const all = [
        ...Object.entries(branches).filter(([, id]) => commits.has(id)),
        ...[...commits].map((id) => [`commit ${id}`, id]),
      ];
      const base = request.base ?? null;
      await requireWeight(inside, Object.fromEntries(all), base, limits);
    }
    const before = await refsBelow(place, prefix);
    const former = inTheWay(Object.keys(branches), before, prefix);
    if (former[0] !== undefined && !isCopy) {
      throw new Failure("busy", `${former[0]} of before is in the way`, {
        // Names may have characters that a shell interprets.
        hint: `Remove it: git update-ref -d ${shellQuoted(former[0])}`,
      });
    }
    keep(incoming, join(common, "objects"));
    removeOldLocks(join(common, prefix));
    const changed = Object.entries(branches)
      .map(([branch, id]) => ({ branch, ref: `${prefix}${branch}`, id }))
      .filter(({ ref, id }) => before.get(ref) !== id);
    await run(place, ["update-ref", "--no-deref", "--stdin"], {
      input: former.map((ref) => `delete ${ref}\n`).join(""),
    });
    await run(place, ["update-ref", "--no-deref", "--stdin"], {
      input: changed.map(({ ref, id }) => `update ${ref} ${id}\n`).join(""),
      env: committer,
    });
    return {
      updated: await Promise.all(changed.map(async ({ branch, ref, id }) => {
        const former = before.get(ref) ?? null;
        return {
          branch,
          ref,
          id,
          before: former,
          forced: former !== null &&
            await countCommits(place, former, [id]) > 0,
          commits: await countCommits(
            place,
            id,
            former === null ? has.present : [former],
          ),
        };
      })),
      tips,
    };
  } finally {
    rmSync(incoming, { recursive: true, force: true });
  }
}

function requireSmall(pack: string, limits: Limits): void {
  const { size } = statSync(pack);
  if (size > limits.bytes || objectsIn(pack) > limits.objects) {
    throw limits.exceeded(
      `It has ${objectsIn(pack)} new objects of ${binarySize(size)}`,
    );
  }
}

async function requireFormat(common: string, format: string): Promise<void> {
  const config = new SourceConfig(common, common);
  const own = await config.value("extensions.objectFormat") ?? "sha1";
  if (own === format) return;
  throw new Failure(
    "failed",
    `The repository has ${own} objects, and the copy ${format}`,
  );
}

async function refsBelow(
  place: Place,
  prefix: string,
): Promise<Map<string, string>> {
  const lines = await git(place, [
    ...["for-each-ref", "--format=%(objectname) %(refname)", prefix],
  ]);
  return new Map(
    lines.split("\n").filter(Boolean).map((line) => {
      const at = line.indexOf(" ");
      return [line.slice(at + 1), line.slice(0, at)] as const;
    }),
  );
}

/** References of before, such as "a" if there is now "a/b", or the other way round. */
function inTheWay(
  branches: string[],
  before: Map<string, string>,
  prefix: string,
): string[] {
  const now = new Set(branches);
  const above = new Set(branches.flatMap(parentsOf));
  return [...before.keys()].filter((ref) => {
    const name = ref.slice(prefix.length);
    return above.has(name) || parentsOf(name).some((parent) => now.has(parent));
  });
}

/** Moves the packs; their indexes come last, since git looks for these. */
function keep(incoming: string, objects: string): void {
  const order = (name: string) => name.endsWith(".idx") ? 1 : 0;
  const names = namesIn(join(incoming, "pack"))
    .filter((name) => name.startsWith("pack-"))
    .sort((a, b) => order(a) - order(b));
  if (names.length > 0) mkdirSync(join(objects, "pack"), { recursive: true });
  for (const name of names) {
    renameSync(join(incoming, "pack", name), join(objects, "pack", name));
  }
}

/** Nobody else writes references there, so an old lock was left by a kill. */
function removeOldLocks(directory: string): void {
  for (const name of namesBelow(directory)) {
    const path = join(directory, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    const isOld = stat && Date.now() - stat.mtimeMs > lockMs;
    if (name.endsWith(".lock") && stat?.isFile() && isOld) rmSync(path);
  }
}

const lockMs = 10_000;

function namesBelow(directory: string): string[] {
  return lstatSync(directory, { throwIfNoEntry: false })?.isDirectory()
    ? readdirSync(directory, { recursive: true }).map(String)
    : [];
}

/** The commits that a reference has got, or that the repository did not have. */
async function countCommits(
  place: Place,
  id: string,
  without: string[],
): Promise<number> {
  const input = [id, ...without.map((known) => `^${known}`)]
    .map((line) => `${line}\n`).join("");
  return Number(
    await git(place, ["rev-list", "--count", "--stdin"], { input }),
  );
}
