// Reads a file that `docker save` has written, and compares all its contents with their
// digests: the engine loads a damaged file in part.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { posix } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Headers } from "tar-stream";
import * as v from "valibot";
import { messageOf } from "../std/errors.ts";

/** An image in a file. */
export interface FileImage {
  tags: string[];
  labels: Record<string, string>;
  /** Docker's name, such as "amd64". */
  architecture: string;
}

/** The file is damaged, or not one of images; `message` is why. */
export class BadImageFile extends Error {}

const listSchema = v.pipe(
  v.array(v.object({
    Config: v.string(),
    RepoTags: v.nullish(v.array(v.string()), []),
    Layers: v.array(v.string()),
  })),
  v.minLength(1),
);

const configSchema = v.object({
  architecture: v.string(),
  config: v.optional(
    v.object({ Labels: v.nullish(v.record(v.string(), v.string())) }),
    {},
  ),
  rootfs: v.object({ diff_ids: v.array(v.string()) }),
});

/** Read by containerd's image store in place of manifest.json. */
const indexSchema = v.object({
  manifests: v.array(v.object({
    annotations: v.optional(v.record(v.string(), v.string()), {}),
  })),
});

const nameAnnotation = "io.containerd.image.name";

/** Bounds for hostile files: ours have about 60 entries, and JSON of a few kilobytes. */
const maxEntries = 5000;
const maxJsonBytes = 512 * 1024;
const maxKeptBytes = 64 * 1024 * 1024;

/** Reads a file to its end. Throws BadImageFile if anything in it is wrong. */
export async function readImageFile(file: Readable): Promise<FileImage[]> {
  const contents = await readEntries(file);
  const list = contents.json("manifest.json", listSchema);
  const images = list.map(({ Config, RepoTags, Layers }) => {
    const { architecture, config, rootfs } = contents.json(
      Config,
      configSchema,
    );
    const [digest = ""] = /[0-9a-f]{64}(?=(\.json)?$)/.exec(Config) ?? [];
    contents.check(Config, digest);
    const { diff_ids } = rootfs;
    if (diff_ids.length !== Layers.length) {
      throw new BadImageFile(`${Config} has other layers`);
    }
    // The blobs of containerd are compressed, and named by their own digest.
    diff_ids.forEach((id, at) => contents.check(Layers[at] ?? "", bare(id)));
    const labels = config.Labels ?? {};
    return { tags: RepoTags ?? [], labels, architecture };
  });
  const listed = images.flatMap(({ tags }) => tags);
  const more = contents.indexedNames().filter((name) => !listed.includes(name));
  return more.length === 0
    ? images
    : [...images, { tags: more, labels: {}, architecture: "" }];
}

const bare = (digest: string) => digest.replace(/^sha256:/, "");

class Contents {
  readonly #digests = new Map<string, string>();
  readonly #links = new Map<string, string>();
  readonly #kept = new Map<string, Buffer>();
  #keptBytes = 0;

  get size(): number {
    return this.#digests.size + this.#links.size;
  }

  add(name: string, digest: string, kept: Buffer | undefined): void {
    this.#digests.set(name, digest);
    if (!kept) return;
    this.#kept.set(name, kept);
    this.#keptBytes += kept.length;
    if (this.#keptBytes > maxKeptBytes) {
      throw new BadImageFile("it has too many files");
    }
  }

  /** Docker before 25, and Podman, link to layers that images share. */
  link(name: string, target: string): void {
    this.#links.set(name, posix.join(posix.dirname(name), target));
  }

  /** Throws if a file is missing, or has another digest than its name or its image says. */
  check(path: string, digest: string): void {
    const name = this.#links.get(path) ?? path;
    const found = this.#digests.get(name);
    if (found === undefined) throw new BadImageFile(`${path} is missing`);
    if (found === digest || name === `blobs/sha256/${found}`) return;
    throw new BadImageFile(`${path} has changed`);
  }

  json<T extends v.GenericSchema>(name: string, schema: T): v.InferOutput<T> {
    const bytes = this.#kept.get(name);
    if (!bytes) throw new BadImageFile(`${name} is missing`);
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString("utf8"));
    } catch {
      throw new BadImageFile(`${name} is no JSON`);
    }
    const parsed = v.safeParse(schema, value);
    if (parsed.success) return parsed.output;
    throw new BadImageFile(`${name} is not of an image`);
  }

  indexedNames(): string[] {
    if (!this.#kept.has("index.json")) return [];
    return this.json("index.json", indexSchema).manifests
      .flatMap(({ annotations }) => annotations[nameAnnotation] ?? [])
      .map((name) => name.replace(/^docker\.io\/(library\/)?/, ""));
  }
}

async function readEntries(file: Readable): Promise<Contents> {
  const contents = new Contents();
  const entries = extract();
  entries.on("entry", (header, body, next) => {
    readEntry(contents, header, body).then(
      () => next(),
      (error) => entries.destroy(error),
    );
  });
  try {
    await pipeline(file, entries);
  } catch (error) {
    // Such as "Unexpected end of data".
    throw error instanceof BadImageFile
      ? error
      : new BadImageFile(messageOf(error), { cause: error });
  }
  return contents;
}

async function readEntry(
  contents: Contents,
  { name, type, size = 0, linkname }: Headers,
  body: Readable,
): Promise<void> {
  if (contents.size >= maxEntries) {
    throw new BadImageFile("it has too many files");
  }
  const hash = createHash("sha256");
  const parts: Buffer[] | undefined = size <= maxJsonBytes ? [] : undefined;
  for await (const bytes of body) {
    hash.update(bytes);
    parts?.push(bytes);
  }
  if (type === "symlink" || type === "link") {
    contents.link(name, linkname ?? "");
  } else if (type === "file") {
    contents.add(name, hash.digest("hex"), parts && Buffer.concat(parts));
  }
}
