// How much disk space workers use. It is reported, not limited: no storage driver but few
// can limit a container, and Docker says only when it creates one whether it can.

import { join } from "node:path";
import { type Docker, inspectContainer } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { readRecords } from "../instance/record.ts";
import { measureTrees } from "../std/remove-tree.ts";
import { binarySize } from "../std/units.ts";
import { listWorkers } from "./workers.ts";

export interface DiskUse {
  name: string;
  /** What it wrote in its container, /tmp included; null if that takes too long. */
  containerBytes: number | null;
  /** Its Claude home; null if that takes too long. */
  homeBytes: number | null;
}

/** The disk use of all workers, as far as it can be measured within `timeoutMs`. */
export async function diskUse(
  instance: Instance,
  timeoutMs: number,
): Promise<DiskUse[]> {
  const { docker, home } = instance;
  const records = new Map(
    readRecords(instance).map((record) => [record.container, record]),
  );
  const workers = (await listWorkers(instance)).map(({ id, name }) => {
    const record = records.get(id);
    return { id, name, path: record && join(home.home, record.home) };
  });
  const abortSignal = AbortSignal.timeout(timeoutMs);
  // The types do not have the size.
  const sized: Docker.ContainerInspectOptions = Object.assign(
    { size: true },
    { abortSignal },
  );
  const sizeOf = async (id: string) => {
    try {
      const found = await inspectContainer(docker, id, sized) as
        | Docker.ContainerInspectInfo & { SizeRw?: number }
        | undefined;
      return found?.SizeRw ?? 0;
    } catch (error) {
      if (abortSignal.aborted) return null;
      throw error;
    }
  };
  const [containers, homes] = await Promise.all([
    Promise.all(workers.map(({ id }) => sizeOf(id))),
    measureTrees(workers.flatMap(({ path }) => path ?? []), timeoutMs),
  ]);
  return workers.map(({ name, path }, index) => ({
    name,
    containerBytes: containers[index] ?? null,
    homeBytes: path === undefined ? 0 : homes.get(path) ?? null,
  }));
}

/** Workers that use more than `maxBytes`, and those with too many files to measure. */
export function overDisk(uses: DiskUse[], maxBytes: number): DiskUse[] {
  return uses.filter(({ containerBytes, homeBytes }) =>
    containerBytes === null || homeBytes === null ||
    containerBytes + homeBytes > maxBytes
  );
}

/** For a list of such workers. */
export function diskText({ name, containerBytes, homeBytes }: DiskUse): string {
  const size = (bytes: number | null) =>
    bytes === null ? "not measured in time" : binarySize(bytes);
  return `"${name}": ${size(containerBytes)} in its container, ` +
    `${size(homeBytes)} in its home`;
}
