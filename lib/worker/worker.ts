// Creates and starts the container of a worker.

import type { Readable } from "node:stream";
import { linkArchive } from "../std/archive.ts";
import {
  createContainer,
  type Docker,
  inspectContainer,
  inspectImage,
  isNameTaken,
  readLog,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { progressOf } from "../docker/progress.ts";
import { Failure } from "../std/errors.ts";
import { label } from "../instance/labels.ts";
import { gatePassed, noServices } from "./gate.ts";
import { firstLine, firstLineIn } from "../docker/streams.ts";
import { insideWorker } from "../instance/paths.ts";
import { waitFor } from "../std/wait.ts";

/**
 * Creates a worker without starting it; returns its id. If `link` is given, creates a
 * symlink at that path in the worker that points to the project.
 */
export async function createWorker(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
  link?: string,
): Promise<string> {
  let container: Docker.Container;
  try {
    container = await createContainer(docker, name, spec);
  } catch (error) {
    throw await creationFailure(docker, name, error, spec);
  }
  if (link === undefined) return container.id;
  try {
    const archive = linkArchive(link, insideWorker.workspace);
    await container.putArchive(archive, { path: "/" });
    return container.id;
  } catch (error) {
    await removeContainer(docker, container.id);
    throw engineFailure(
      error,
      `Cannot create the link ${link} in worker "${name}"`,
    );
  }
}

/**
 * Starts a created worker; removes the container if that fails. With `announces`, the
 * gate prints a line on success, and this waits for it. A worker with a command
 * does not announce; if its gate refuses, the worker exits with the gate's exit code.
 */
export async function startWorker(
  docker: Docker,
  name: string,
  id: string,
  { announces = false } = {},
): Promise<void> {
  const subject = `Cannot start worker "${name}"`;
  try {
    await docker.getContainer(id).start();
    if (announces) await waitForGate(docker, id, subject);
  } catch (error) {
    // Another attempt to remove it follows in the caller, or in the reconciliation.
    await removeContainer(docker, id).catch(() => {});
    throw error instanceof Failure ? error : engineFailure(error, subject);
  }
}

const gateTimeoutMs = 15_000;

async function waitForGate(
  docker: Docker,
  id: string,
  subject: string,
): Promise<void> {
  const isProgressing = progressOf(docker, id, gateTimeoutMs);
  let line = await announcement(docker, id);
  while (line === undefined && await isProgressing()) {
    line = await announcement(docker, id);
  }
  if (line === gatePassed) return;
  if (line === undefined) {
    throw new Failure(
      "failed",
      `${subject}: no progress within ${gateTimeoutMs / 1000} s`,
      {
        hint: "Try again when the machine is less busy, or use another image.",
      },
    );
  }
  const reason = line.replace(/^error: /, "") || "it exited at once";
  if (reason === noServices) {
    throw new Failure("failed", `${subject}: its services were not opened`, {
      hint: "See why: claudy doctor",
    });
  }
  throw new Failure("unsafe", `${subject}: ${reason}`, {
    hint: "Check the mounted paths, then try again.",
  });
}

/** The first line of a worker's log, "" if it ended without; undefined after the timeout. */
async function announcement(
  docker: Docker,
  id: string,
): Promise<string | undefined> {
  const timeout = AbortSignal.timeout(gateTimeoutMs);
  const log = await docker.getContainer(id).logs({
    stdout: true,
    stderr: true,
    follow: true,
    abortSignal: timeout,
  }) as unknown as Readable;
  let followed = "";
  try {
    followed = await firstLine(log);
  } catch (error) {
    if (!timeout.aborted) throw error;
  }
  // A followed log may end before the last line: read it again.
  const line = followed ||
    firstLineIn(await readLog(docker, id));
  return timeout.aborted && line === "" ? undefined : line;
}

async function creationFailure(
  docker: Docker,
  name: string,
  error: unknown,
  spec: Docker.ContainerCreateOptions,
): Promise<Failure> {
  const subject = `Cannot start worker "${name}"`;
  if (await isNameTaken(docker, name, error)) {
    const holder = await findNameHolder(docker, name);
    const own = spec.Labels?.[label.instance];
    const other = holder?.Config.Labels?.[label.instance];
    const taken = `${subject}: the name is taken`;
    if (!holder || other === own) {
      return new Failure("busy", taken, {
        cause: error,
        hint: "Choose another --name, or stop that worker: claudy stop NAME",
      });
    }
    const by = other ? `a worker of instance "${other}"` : "another container";
    return new Failure("busy", `${taken} by ${by}`, {
      cause: error,
      hint: "Choose another --name: container names are unique per engine.",
    });
  }
  const image = spec.Image ?? "";
  if (statusOf(error) === 404 && !await inspectImage(docker, image)) {
    return new Failure("notFound", `${subject}: there is no image ${image}`, {
      cause: error,
      hint: "Build the default images: claudy up. --image takes a full name, " +
        "as shown by docker images.",
    });
  }
  return engineFailure(error, subject);
}

/**
 * The container that has the name. The engine reserves a name before the container can
 * be inspected, so this waits for it; undefined if it does not appear in time.
 */
async function findNameHolder(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  const giveUpAt = Date.now() + 5000;
  const found = await waitFor(
    async () => await inspectContainer(docker, name) ?? Date.now() > giveUpAt,
    { for: `the holder of "${name}"`, timeoutMs: 10_000 },
  );
  return found === true ? undefined : found;
}
