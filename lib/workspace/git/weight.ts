// What the files of commits take, without a checkout: each tree is read once, however often it
// is in others. So a tree of ten trees of ten trees, which git would write as billions of
// files, is found at once.

import { Buffer } from "node:buffer";
import { Failure } from "../../std/errors.ts";
import { binarySize } from "../../std/units.ts";
import { type Place, run, withoutCaches } from "./git.ts";
import { type Limits, minFileBytes } from "./limits.ts";

interface Tree {
  /** Of the files in it. */
  bytes: number;
  /** The ids of its directories, each as often as it is there. */
  trees: string[];
}

interface Total {
  bytes: number;
  depth: number;
}

/**
 * Throws a Failure if the files of a commit take more than the limit beyond those of `base`.
 */
export async function requireWeight(
  place: Place,
  tips: Record<string, string>,
  base: string | null,
  limits: Limits,
): Promise<void> {
  const weights = new Weights(place, limits);
  const [before = 0] = base === null ? [] : await weights.of([base]);
  const commits = Object.entries(tips);
  // A history may have a million.
  for (let from = 0; from < commits.length; from += partLength) {
    const part = commits.slice(from, from + partLength);
    const found = await weights.of(part.map(([, id]) => id));
    for (const [at, bytes] of found.entries()) {
      if (bytes - before <= limits.bytes) continue;
      throw limits.exceeded(
        `The files of ${part[at]?.[0]} would take ${binarySize(bytes)}`,
      );
    }
  }
}

const partLength = 10_000;

class Weights {
  readonly #place: Place;
  readonly #limits: Limits;
  readonly #trees = new Map<string, Tree>();
  readonly #sizes = new Map<string, number>();
  readonly #totals = new Map<string, Total>();

  constructor(place: Place, limits: Limits) {
    this.#place = place;
    this.#limits = limits;
  }

  /** Of commits or trees; those that are missing take nothing. */
  async of(ids: string[]): Promise<number[]> {
    if (ids.length === 0) return [];
    const roots = await this.#ask(ids.map((id) => `${id}^{tree}`));
    let unread = roots;
    for (let level = 0; unread.length > 0; level++) {
      if (level > maxDepth) throw tooDeep();
      unread = await this.#read(unread);
    }
    return roots.map(({ id }) => this.#total(id, 0).bytes);
  }

  /** The ids and sizes of objects, in their order; the size is 0 for those that are missing. */
  async #ask(names: string[]): Promise<{ id: string; bytes: number }[]> {
    const { text } = await run(this.#place, [
      "cat-file",
      "--batch-check=%(objectname) %(objectsize)",
    ], {
      input: names.map((name) => `${name}\n`).join(""),
      config: withoutCaches,
    });
    return text.trimEnd().split("\n").map((line) => {
      const [id = "", size = ""] = line.split(" ");
      return { id, bytes: /^\d+$/.test(size) ? Number(size) : 0 };
    });
  }

  /** Reads trees; returns those in them that were not read before. */
  async #read(
    trees: { id: string; bytes: number }[],
  ): Promise<{ id: string; bytes: number }[]> {
    const next = new Set<string>();
    for (const ids of this.#parts(trees)) {
      const { bytes } = await run(this.#place, ["cat-file", "--batch"], {
        input: ids.map((id) => `${id}\n`).join(""),
        config: withoutCaches,
      });
      const entries = new Map(entriesOf(bytes));
      const files = [...entries.values()].flatMap(({ files }) => files);
      await this.#measure(files);
      for (const [id, { files, trees }] of entries) {
        const own = files.reduce(
          (sum, file) =>
            sum + Math.max(this.#sizes.get(file) ?? 0, minFileBytes),
          minFileBytes,
        );
        this.#trees.set(id, { bytes: own, trees });
        for (const tree of trees) if (!this.#trees.has(tree)) next.add(tree);
      }
    }
    return next.size === 0 ? [] : await this.#ask([...next]);
  }

  /** Ids of trees that together are small enough to be read at once. */
  *#parts(trees: { id: string; bytes: number }[]): Generator<string[]> {
    let part: string[] = [];
    let sum = 0;
    for (const { id, bytes } of trees) {
      if (bytes > partBytes) {
        throw this.#limits.exceeded(
          `Directory ${id} has entries of ${binarySize(bytes)}`,
        );
      }
      if (this.#trees.has(id)) continue;
      if (sum + bytes > partBytes) {
        yield part;
        part = [];
        sum = 0;
      }
      part.push(id);
      sum += bytes;
    }
    if (part.length > 0) yield part;
  }

  async #measure(files: string[]): Promise<void> {
    const unknown = [...new Set(files)].filter((id) => !this.#sizes.has(id));
    if (unknown.length === 0) return;
    const found = await this.#ask(unknown);
    for (const [at, { bytes }] of found.entries()) {
      this.#sizes.set(unknown[at] ?? "", bytes);
    }
  }

  #total(id: string, level: number): Total {
    const tree = this.#trees.get(id);
    if (!tree) return { bytes: 0, depth: 0 };
    const known = this.#totals.get(id);
    const total = known ?? { bytes: tree.bytes, depth: 0 };
    if (!known) {
      for (const inner of tree.trees) {
        const { bytes, depth } = level > maxDepth
          ? { bytes: 0, depth: level }
          : this.#total(inner, level + 1);
        total.bytes += bytes;
        total.depth = Math.max(total.depth, depth + 1);
      }
      this.#totals.set(id, total);
    }
    if (total.depth > maxDepth) throw tooDeep();
    return total;
  }
}

function tooDeep(): Failure {
  return new Failure(
    "unsafe",
    `Its directories are more than ${maxDepth} levels deep`,
  );
}

/** Each level is a program of git. */
const maxDepth = 300;
const partBytes = 32 * 1024 ** 2;

/** The trees in an output of `git cat-file --batch`, see git-cat-file(1). */
function* entriesOf(
  output: Buffer,
): Generator<[id: string, { files: string[]; trees: string[] }]> {
  for (let at = 0; at < output.length;) {
    const end = output.indexOf("\n", at);
    const [id = "", kind = "", size = ""] = output.toString("latin1", at, end)
      .split(" ");
    at = end + 1;
    if (kind === "missing") continue;
    const to = at + Number(size);
    if (kind === "tree") yield [id, treeOf(output.subarray(at, to), id.length)];
    at = to + 1;
  }
}

/** Each entry is a mode, a space, a name, a null byte and an id. */
function treeOf(tree: Buffer, idLength: number) {
  const files: string[] = [];
  const trees: string[] = [];
  for (let at = 0; at < tree.length;) {
    const named = tree.indexOf(0, at) + 1;
    if (named === 0) break;
    const id = tree.toString("hex", named, named + idLength / 2);
    // git reads "040000" too.
    const mode = parseInt(tree.toString("latin1", at, at + 8), 8);
    ((mode & 0o170000) === 0o040000 ? trees : files).push(id);
    at = named + idLength / 2;
  }
  return { files, trees };
}
