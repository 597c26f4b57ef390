// The hosts, resolv.conf and hostname files of the workers' network namespace. The
// engine's files belong to the net container, and every container in the namespace would
// share them writable. Workers mount read-only copies instead.

import { Buffer } from "node:buffer";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { type Docker, holderOf } from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import { apiHost } from "../relay/names.ts";
import { netFileNames, relayHosts } from "./spec.ts";

type Home = Pick<Instance, "docker" | "home" | "hostHome" | "owner">;

/**
 * Creates the copies if one is missing; returns their directory on the host. `network`
 * is the network mode of the workers.
 */
export async function ensureNetFiles(
  instance: Home,
  network: string,
): Promise<string> {
  const { home, hostHome } = instance;
  const present = [...netFileNames, relayHosts].every((name) =>
    existsSync(join(home.netFiles, name))
  );
  if (!present) {
    await refreshNetFiles(instance, holderOf(network) ?? network);
  }
  return hostHome.netFiles;
}

/** Copies the files of the container that owns the namespace. */
export async function refreshNetFiles(
  { docker, home, owner }: Home,
  container: string,
): Promise<void> {
  ensureDirectory(home.netFiles, 0o700, owner);
  for (const name of netFileNames) {
    const path = join(home.netFiles, name);
    const text = await readFromContainer(docker, container, `/etc/${name}`);
    if (!existsSync(path)) writeAtomic(path, text, owner, 0o644);
    else if (!readFileSync(path).equals(text)) overwrite(path, text);
    if (name === "hosts") writeRelayHosts({ home, owner }, text);
  }
}

function writeRelayHosts(
  { home, owner }: Pick<Instance, "home" | "owner">,
  hosts: Buffer,
): void {
  const path = join(home.netFiles, relayHosts);
  const text = Buffer.from(
    `${hosts.toString("latin1").trimEnd()}\n127.0.0.1\t${apiHost}\n`,
    "latin1",
  );
  if (!existsSync(path)) writeAtomic(path, text, owner, 0o644);
  else if (!readFileSync(path).equals(text)) overwrite(path, text);
}

/** In place: containers that have mounted the file would not see a replacement. */
function overwrite(path: string, text: Uint8Array): void {
  const file = openSync(path, "r+");
  try {
    writeSync(file, text, 0, text.length, 0);
    ftruncateSync(file, text.length);
  } finally {
    closeSync(file);
  }
}

const maxBytes = 256 * 1024;

async function readFromContainer(
  docker: Docker,
  container: string,
  path: string,
): Promise<Buffer> {
  const subject = `Cannot read ${path} of the workers' network`;
  try {
    const stream = await docker.getContainer(container).getArchive({ path });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of stream) {
      bytes += chunk.length;
      if (bytes > maxBytes) {
        throw new Failure("failed", `${subject}: too large`);
      }
      chunks.push(chunk as Buffer);
    }
    return firstFileIn(Buffer.concat(chunks));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw engineFailure(error, subject);
  }
}

const blockBytes = 512;

/** Content of the first regular file in a tar archive; throws if there is none. */
export function firstFileIn(archive: Buffer): Buffer {
  for (let at = 0; at + blockBytes <= archive.length;) {
    const header = archive.subarray(at, at + blockBytes);
    const size = parseInt(header.toString("latin1", 124, 136), 8);
    const start = at + blockBytes;
    if (Number.isNaN(size) || start + size > archive.length) break;
    // A pax header (type x) may precede the file.
    const type = header.toString("latin1", 156, 157);
    if (type === "0" || type === "\0") {
      return archive.subarray(start, start + size);
    }
    at = start + Math.ceil(size / blockBytes) * blockBytes;
  }
  throw new Error("no file in the archive");
}
