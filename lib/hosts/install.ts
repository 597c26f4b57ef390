// Brings this program and its images to another machine, which needs no registry.

import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import type { Readable } from "node:stream";
import { pipeline, Transform } from "node:stream";
import { finished } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { extract, type Headers, pack } from "tar-stream";
import * as v from "valibot";
import type { Docker } from "../docker/docker.ts";
import { Failure } from "../std/errors.ts";
import { buildDigest } from "../std/build-digest.ts";
import { parseJson } from "../std/json.ts";
import { isAtLeast, shellQuoted } from "../std/text.ts";
import manifest from "../../package.json" with { type: "json" };
import type { HostCheck } from "./check.ts";
import type { Host } from "./hosts.ts";
import { askHost, type Reply } from "./remote.ts";

const { version: ours } = manifest;

/** For hundreds of megabytes over a slow line. */
const sendMs = 3_600_000;

const manifestSchema = v.object({
  name: v.string(),
  bin: v.record(v.string(), v.string()),
});

/**
 * Unpacks the package beside the present one, and then takes its place. $1 is its name, and
 * the others are commands and their files in it.
 */
const unpackScript = [
  "set -eu",
  "name=$1 lib=$HOME/.local/lib/node_modules bin=$HOME/.local/bin",
  "shift",
  'mkdir -p "$lib" "$bin"',
  'new=$(mktemp -d "$lib/.$name.XXXXXX")',
  `trap 'rm -rf "$new"' EXIT`,
  'tar -xz -C "$new"',
  '"$new/$name/dist/bin/claudy.js" --version >/dev/null',
  'if [ -e "$lib/$name" ]; then mv "$lib/$name" "$new/former"; fi',
  'mv "$new/$name" "$lib/$name" || { mv "$new/former" "$lib/$name"; exit 1; }',
  'while [ $# -gt 0 ]; do ln -sfn "../lib/node_modules/$name/$2" "$bin/$1"; shift 2; done',
  'echo "$bin/claudy"',
].join("; "); // some shells accept no quoted line breaks

/** Installs this program there unless it has it; returns the path of claudy. */
export async function installProgram(
  host: Host,
  found: HostCheck,
  env: NodeJS.ProcessEnv,
  log: (line: string) => void,
): Promise<string> {
  const root = packageRoot();
  const build = await buildDigest();
  if (found.program && found.version?.includes(`(build ${build})`)) {
    return found.program;
  }
  requireSameSystem(host, found);
  refuseNewer(host, found);
  const text = readFileSync(join(root, "package.json"), "utf8");
  const described = parseJson(manifestSchema, text);
  if (!described) {
    throw new Failure("failed", `Cannot read ${root}/package.json`);
  }
  log(`Sending the program, build ${build}`);
  const packed = packedDirectory(root);
  const commands = Object.entries(described.bin).flat();
  const words = [unpackScript, "sh", basename(root), ...commands];
  const line = `sh -c ${words.map(shellQuoted).join(" ")}`;
  const reply = await askHost(host, line, {
    env,
    timeoutMs: sendMs,
    input: packed,
  });
  return requireDone(host, reply, "install the program").trim();
}

/** A compressed archive, which fails if a file cannot be read. */
function packedDirectory(path: string): Readable {
  const tar = spawn("tar", ["-c", "-C", dirname(path), basename(path)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const complete = new Transform({
    transform: (part, _encoding, done) => done(null, part),
    flush(done) {
      const end = (code: number | null) =>
        done(code === 0 ? null : new Error(`tar has failed (${code})`));
      if (tar.exitCode !== null) end(tar.exitCode);
      else tar.on("exit", end);
    },
  });
  tar.on("error", (error) => complete.destroy(error));
  tar.stdout.pipe(complete);
  return zipped(complete);
}

/** Where npm has installed this program. Throws a `usage` Failure for a clone. */
function packageRoot(): string {
  const root = /^(.*)\/dist\/bin\/[^/]+$/.exec(process.argv[1] ?? "")?.[1];
  if (root && existsSync(join(root, "package.json"))) return root;
  throw new Failure("usage", "Cannot send a clone of the program", {
    hint: "Use an installed claudy: see docs/dind/INSTALLATION.md",
  });
}

function requireSameSystem({ name }: Host, { system }: HostCheck): void {
  const machines: Record<string, string> = { x64: "x86_64", arm64: "aarch64" };
  const ours = `Linux ${machines[process.arch] ?? process.arch}`;
  if (process.platform === "linux" && system === ours) return;
  throw new Failure(
    "usage",
    `Host "${name}" is of another kind (${system || "unknown"})`,
    {
      hint: "Install the package there with npm: see docs/dind/INSTALLATION.md",
    },
  );
}

/** Throws a `usage` Failure if the program there is of a later version. */
function refuseNewer({ name }: Host, { version }: HostCheck): void {
  const theirs = version?.split(" ")[0] ?? "";
  if (theirs === "" || isAtLeast(ours, theirs)) return;
  throw new Failure(
    "usage",
    `Host "${name}" has version ${theirs}, and this is ${ours}`,
    { hint: "Install that version here." },
  );
}

function requireDone({ name }: Host, reply: Reply, what: string): string {
  if (reply.exitCode === 0) return reply.stdout;
  const why = reply.stderr.trim().split("\n").at(-1) ?? "";
  throw new Failure("failed", `Host "${name}" cannot ${what}: ${why}`);
}

export interface Sent {
  /** Names of the images that were missing there. */
  images: string[];
  bytes: number;
}

interface LocalImage {
  name: string;
  id: string;
}

const thereSchema = v.array(v.object({
  id: v.string(),
  layers: v.array(v.string()),
}));

/** Sends the images that are missing there, without layers that it has. */
export async function sendImages(
  docker: Docker,
  host: Host,
  { images, repository }: {
    images: LocalImage[];
    /** Of the instance there: a name without a tag. */
    repository: string;
  },
  env: NodeJS.ProcessEnv,
  log: (line: string) => void,
): Promise<Sent> {
  const ask = async (script: string, ...words: string[]) =>
    requireDone(
      host,
      await askHost(
        host,
        `sh -c ${[script, "sh", ...words].map(shellQuoted).join(" ")}`,
        { env, timeoutMs: sendMs },
      ),
      "list or name images",
    );
  const listed = await ask(
    `docker image ls --quiet --no-trunc | sort -u | xargs -r docker image inspect ` +
      `--format '{"id":{{json .Id}},"layers":{{json .RootFS.Layers}}}'`,
  );
  const there = parseJson(
    thereSchema,
    `[${listed.trim().replaceAll("\n", ",")}]`,
  );
  if (!there) throw new Failure("failed", "Its list of images cannot be read");
  const ids = new Set(there.map(({ id }) => id));
  const missing = images.filter(({ id }) => !ids.has(id));
  let bytes = 0;
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name);
    log(`Sending images: ${names.join(", ")}`);
    const chains = new Set(there.flatMap(({ layers }) => chainIds(layers)));
    const open = async () =>
      await (docker as Docker & Exporter)
        .getImages({ names });
    const left = await layersToLeave(await open(), chains);
    const input = zipped(
      without(await open(), left),
      (length) => bytes += length,
    );
    const reply = await askHost(host, "docker load --quiet", {
      env,
      timeoutMs: sendMs,
      input,
    });
    requireDone(host, reply, "load images");
  }
  // Its instance may name them differently.
  await ask(
    'while [ $# -gt 0 ]; do docker tag "$1" "$2"; shift 2; done',
    ...images.flatMap(({ name, id }) => [
      id,
      `${repository}:${name.slice(name.lastIndexOf(":") + 1)}`,
    ]),
  );
  return { images: missing.map(({ name }) => name), bytes };
}

/** A local network is faster than a better compression. */
function zipped(
  plain: Readable,
  count: (length: number) => void = () => {},
): Readable {
  const counted = new Transform({
    transform(part: Uint8Array, _encoding, done) {
      count(part.length);
      done(null, part);
    },
  });
  pipeline(plain, createGzip({ level: 1 }), counted, (error) => {
    if (error) counted.destroy(error);
  });
  return counted;
}

interface Exporter {
  getImages(options: { names: string[] }): Promise<Readable>;
}

/** https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid */
export function chainIds(diffIds: readonly string[]): string[] {
  const chains: string[] = [];
  for (const id of diffIds) {
    const former = chains.at(-1);
    chains.push(
      former === undefined
        ? id
        : `sha256:${
          createHash("sha256").update(`${former} ${id}`).digest("hex")
        }`,
    );
  }
  return chains;
}

const listSchema = v.array(v.object({
  Config: v.string(),
  Layers: v.array(v.string()),
}));

const configSchema = v.object({
  rootfs: v.object({ diff_ids: v.array(v.string()) }),
});

const maxJsonBytes = 512 * 1024;

/** Saved images without the layers that an engine with these chains does not read. */
export async function withoutLayers(
  save: () => Promise<Readable>,
  chains: ReadonlySet<string>,
): Promise<Readable> {
  // Which layers an image has comes last.
  const left = await layersToLeave(await save(), chains);
  return without(await save(), left);
}

async function layersToLeave(
  saved: Readable,
  chains: ReadonlySet<string>,
): Promise<Set<string>> {
  const texts = new Map<string, string>();
  const links = new Map<string, string>();
  await throughEntries(
    saved,
    async ({ name, type, size = 0, linkname }, body) => {
      if (type === "symlink") {
        links.set(name, join(dirname(name), linkname ?? ""));
      }
      const parts: Uint8Array[] = [];
      for await (const part of body) {
        if (size <= maxJsonBytes) parts.push(part as Uint8Array);
      }
      texts.set(name, Buffer.concat(parts).toString("utf8"));
    },
  );
  const list = parseJson(listSchema, texts.get("manifest.json") ?? "") ?? [];
  const all = new Set<string>();
  const needed = new Set<string>();
  for (const { Config, Layers } of list) {
    const config = parseJson(configSchema, texts.get(Config) ?? "");
    const ids = chainIds(config?.rootfs.diff_ids ?? []);
    Layers.forEach((layer, at) => {
      all.add(layer);
      if (chains.has(ids[at] ?? "")) return;
      needed.add(layer);
      const target = links.get(layer);
      if (target !== undefined) needed.add(target);
    });
  }
  return new Set([...all].filter((layer) => !needed.has(layer)));
}

async function throughEntries(
  saved: Readable,
  act: (header: Headers, body: Readable) => Promise<void>,
): Promise<void> {
  const entries = extract();
  await new Promise<void>((resolve, reject) => {
    entries.on("entry", (header, body, next) => {
      act(header, body).then(() => next(), (error) => entries.destroy(error));
    });
    pipeline(saved, entries, (error) => error ? reject(error) : resolve());
  });
}

/** The same archive without some files. */
function without(saved: Readable, left: ReadonlySet<string>): Readable {
  const kept = pack();
  throughEntries(saved, async (header, body) => {
    if (left.has(header.name)) return await finished(body.resume());
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    body.pipe(kept.entry(header, (error) => error ? reject(error) : resolve()));
    await promise;
  }).then(
    () => kept.finalize(),
    (error) => kept.destroy(error),
  );
  return kept;
}
