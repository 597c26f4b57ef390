// Attaches files and directories of the host inside the mount namespace of a running worker.
// The mounts are not visible on the host.

import { readFileSync, readlinkSync, statSync } from "node:fs";
import { normalize } from "node:path";
import process from "node:process";
import { isWithin } from "../../std/hostpath.ts";
import { type ContainerProcess, openNamespace, within } from "./namespaces.ts";
import {
  attachMounts,
  closeDescriptor,
  copyMounts,
  detachMounts,
  openBeneath,
  openPath,
  unshareDirectories,
} from "./calls.ts";

export interface Attachment {
  /** Absolute path on the host, without symlinks. */
  source: string;
  /** In the worker. */
  target: string;
  readOnly: boolean;
  /** Expected owner of the source. */
  uid: number;
  gid: number;
}

export interface AttachRequest extends ContainerProcess {
  attachments: Attachment[];
}

/** One per process, because it switches the mount namespace of the thread. */
export class Attacher {
  readonly #roots: string[];
  readonly #own: number;
  readonly #host: number;

  /** `roots` are the host's directories that sources must be in. */
  constructor(roots: string[]) {
    this.#roots = roots;
    this.#host = openPath(engineNamespace(), "namespace");
    this.#own = openPath("/proc/self/ns/mnt", "namespace");
    unshareDirectories();
  }

  /** Attaches all of them, or none if it throws. */
  attach({ attachments, ...process }: AttachRequest): void {
    const opened: number[] = [];
    const open = (descriptor: number) => {
      opened.push(descriptor);
      return descriptor;
    };
    try {
      const worker = open(openNamespace(process, "mount"));
      const sources = this.#within(this.#host, () => {
        const root = open(openPath("/", "directory"));
        return attachments.map(({ source, readOnly }) => {
          this.#checkSource(source);
          const place = open(openBeneath(root, source.slice(1)));
          return { place, tree: open(copyMounts(place, readOnly)) };
        });
      });
      for (const [index, { place }] of sources.entries()) {
        checkOwner(place, attachments[index] as Attachment);
      }
      this.#within(worker, () => {
        const done: string[] = [];
        try {
          for (const [index, { tree }] of sources.entries()) {
            const { target } = attachments[index] as Attachment;
            attachMounts(tree, target);
            done.push(target);
          }
        } catch (error) {
          for (const target of done.toReversed()) detachMounts(target);
          throw error;
        }
      });
    } finally {
      for (const descriptor of opened) closeDescriptor(descriptor);
    }
  }

  /**
   * Performs all steps of an attach: enters another container, and attaches a directory
   * in this one. Throws if the kernel or a security policy does not allow them.
   */
  test(
    other: ContainerProcess,
    source: string,
    seenHere: string,
    target: string,
  ): void {
    const opened: number[] = [];
    try {
      const namespace = openNamespace(other, "mount");
      opened.push(namespace);
      this.#within(namespace, () => {});
      const tree = this.#within(this.#host, () => {
        const root = openPath("/", "directory");
        opened.push(root);
        const directory = openBeneath(root, source.slice(1));
        opened.push(directory);
        const tree = copyMounts(directory, false);
        opened.push(tree);
        return tree;
      });
      this.#within(this.#own, () => attachMounts(tree, target));
      try {
        const attached = statSync(target);
        const known = statSync(seenHere);
        if (attached.ino !== known.ino || attached.dev !== known.dev) {
          throw new Error("the engine's paths are those of another namespace");
        }
      } finally {
        this.#within(this.#own, () => detachMounts(target));
      }
    } finally {
      for (const descriptor of opened) closeDescriptor(descriptor);
    }
  }

  #checkSource(source: string): void {
    const within = this.#roots.some((root) => isWithin(source, root));
    if (within && normalize(source) === source) return;
    throw new Error(`"${source}" is outside of the project roots`);
  }

  #within<T>(namespace: number, act: () => T): T {
    return within("mount", namespace, this.#own, act);
  }
}

/**
 * The mount namespace that the engine mounts from: that of the process which
 * started this container. The view of the host in this container is not enough:
 * later mounts do not propagate to it, and it shows the directories below them
 * instead.
 */
function engineNamespace(): string {
  const own = readlinkSync("/proc/self/ns/mnt");
  for (let pid = process.pid; pid > 1;) {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    pid = Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
    const namespace = `/proc/${pid}/ns/mnt`;
    if (pid > 0 && readlinkSync(namespace) !== own) return namespace;
  }
  throw new Error("no process of the engine is visible");
}

function checkOwner(place: number, { source, uid, gid }: Attachment): void {
  const found = statSync(`/proc/self/fd/${place}`);
  if (found.uid === uid && found.gid === gid) return;
  throw new Error(
    `"${source}" belongs to ${found.uid}:${found.gid}, not to ${uid}:${gid}`,
  );
}
