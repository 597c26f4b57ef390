// Which files a session has changed in its copy since it left the user's branch, and which the
// user's directory has changed since then.

import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../../std/errors.ts";
import { takeSettings } from "./clone-config.ts";
import { changesOf } from "./clone-files.ts";
import { bothSchema, openBoth } from "./diff.ts";
import { gitList, type Place, run, view, withoutCaches } from "./git.ts";
import { Limits } from "./limits.ts";
import { type Source, SourceConfig, type SourcePlaces } from "./source.ts";

export const changedRequestSchema = v.object({
  do: v.literal("changed"),
  ...bothSchema.entries,
});

export const changedResultSchema = v.object({
  /** Paths, also of what is not committed. */
  session: v.array(v.string()),
  /** Empty if the user's working tree is not to be looked at. */
  project: v.array(v.string()),
});

export async function changed(
  request: v.InferOutput<typeof changedRequestSchema>,
): Promise<v.InferOutput<typeof changedResultSchema>> {
  const both = await openBoth(request, new Limits(request.maxBytes));
  const { place, source, head, files, from } = both;
  const since = async (tip: string | null) =>
    tip === null ? [] : await gitList(place, [
      ...["diff", "--no-ext-diff", "--no-renames", "--name-only", "-z"],
      ...[from, tip, "--"],
    ], { maxBytes, config: withoutCaches });
  const places = request.source;
  const looks = source && places && places.tree !== null;
  return {
    session: bounded([
      ...await since(head),
      ...files.map(({ path }) => path),
    ]),
    project: looks
      ? bounded([
        ...await since(source.head),
        ...await uncommitted(source, places, request),
      ])
      : [],
  };
}

/** Paths of the user's working tree that differ from its HEAD. */
async function uncommitted(
  source: Source,
  places: SourcePlaces,
  { scratch, format }: { scratch: string; format: "sha1" | "sha256" },
): Promise<string[]> {
  const { tree } = places;
  if (tree === null) return [];
  const place: Place = await view(join(scratch, "project"), {
    objects: [source.objects],
    format,
    shallow: source.shallow,
  });
  const config = new SourceConfig(places.common, places.own);
  await takeSettings(config, place, places);
  if (source.head !== null) {
    await run(place, ["update-ref", "--no-deref", "HEAD", source.head]);
  }
  const files = await changesOf(source, tree, places.own, {
    ...place,
    workTree: tree,
  });
  return files.map(({ path }) => path);
}

function bounded(paths: string[]): string[] {
  const unique = [...new Set(paths)];
  const length = unique.reduce((sum, path) => sum + path.length, 0);
  if (length <= maxBytes) return unique;
  throw new Failure("failed", "Too many files were changed to compare them");
}

const maxBytes = 8 * 1024 ** 2;
