// Creating and starting a worker.

import type { Readable } from "node:stream";
import { linkArchive } from "../std/archive.ts";
import {
  createContainer,
  type Docker,
  inspectContainer,
  inspectImage,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { label } from "../instance/labels.ts";
import { gatePassed } from "./gate.ts";
import { firstLine, firstLineIn } from "../docker/streams.ts";
import { insideWorker } from "../instance/paths.ts";
import { waitFor } from "../std/wait.ts";

/**
 * Creates a worker that is not started; gives its id. With `link` the worker has
 * a link to the project at that path.
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
    throw engineFailure(error, `Cannot lay ${link} in worker "${name}"`);
  }
}

/**
 * Starts a worker that was created, or leaves nothing of it behind. An idle one
 * has passed its gate by then; one with a command ends with the gate's refusal.
 */
export async function startWorker(
  docker: Docker,
  name: string,
  id: string,
  { announces = false } = {},
): Promise<void> {
  const subject = `Cannot start worker "${name}"`;
  try {
    const container = docker.getContainer(id);
    await container.start();
    if (announces) await untilPassed(container, subject);
  } catch (error) {
    await removeContainer(docker, id);
    throw error instanceof Failure ? error : engineFailure(error, subject);
  }
}

const gateMs = 15_000;

async function untilPassed(
  container: Docker.Container,
  subject: string,
): Promise<void> {
  const output = { stdout: true, stderr: true } as const;
  const log = await container.logs({
    ...output,
    follow: true,
    abortSignal: AbortSignal.timeout(gateMs),
  }) as unknown as Readable;
  // What is followed may end before the last that was written.
  const line = await firstLine(log) ||
    firstLineIn(await container.logs({ ...output, follow: false }));
  if (line === gatePassed) return;
  const reason = line.replace(/^error: /, "") || "it ended at once";
  throw new Failure("unsafe", `${subject}: ${reason}`, {
    hint: "Look at what is there now, then try again.",
  });
}

async function creationFailure(
  docker: Docker,
  name: string,
  error: unknown,
  spec: Docker.ContainerCreateOptions,
): Promise<Failure> {
  const subject = `Cannot start worker "${name}"`;
  if (statusOf(error) === 409) {
    const holder = await untilKnown(docker, name);
    const own = spec.Labels?.[label.instance];
    const other = holder?.Config.Labels?.[label.instance];
    const taken = `${subject}: the name is taken`;
    if (!holder || other === own) {
      return new Failure("busy", taken, {
        cause: error,
        hint: "Choose another, or stop who has it: coordinator stop NAME",
      });
    }
    const by = other ? `a worker of instance "${other}"` : "another container";
    return new Failure("busy", `${taken} by ${by}`, {
      cause: error,
      hint:
        "Choose another --name: an engine gives each name to one container.",
    });
  }
  const image = spec.Image ?? "";
  if (statusOf(error) === 404 && !await inspectImage(docker, image)) {
    return new Failure("notFound", `${subject}: there is no image ${image}`, {
      cause: error,
      hint: "Build ours with 'make images'; --image takes a full name, as " +
        "docker images shows it.",
    });
  }
  return engineFailure(error, subject);
}

/**
 * The engine gives a name away before it knows the container that got it: only
 * after that can it be told whose home is in use.
 */
async function untilKnown(
  docker: Docker,
  name: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  const enough = Date.now() + 5000;
  const found = await waitFor(
    async () => await inspectContainer(docker, name) ?? Date.now() > enough,
    { for: `the holder of "${name}"`, timeoutMs: 10_000 },
  );
  return found === true ? undefined : found;
}
