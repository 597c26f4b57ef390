// Replaces the parent by that of a newer image. The former parent is only set aside: if
// the new one does not become healthy, it is started again. What was done is read from
// the engine, so that a killed upgrade is finished or undone by the next one.

import { stripVTControlCharacters } from "node:util";
import {
  ownContainer,
  startContainer,
  stopParent,
} from "../instance/container.ts";
import {
  type Docker,
  findContainer,
  inspectImage,
  readLog,
  removeContainer,
} from "../docker/docker.ts";
import { statusOf } from "../docker/docker-errors.ts";
import { withoutFrames } from "../docker/streams.ts";
import { nameImage } from "../image/shared.ts";
import { copyTags, formerOf, nextOf, removeTags } from "../image/tags.ts";
import { versionLabel } from "../instance/labels.ts";
import type { Instance } from "../instance/instance.ts";
import { parentAnswers } from "../instance/parent-socket.ts";
import {
  forgetParentState,
  readParentState,
} from "../instance/parent-state.ts";
import { askPool, poolAnswers } from "../pool/client.ts";
import { removePool } from "../nsenter/container.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { startDaemon, waitForChromadb, waitUntilReady } from "./daemon.ts";
import { waitForPorts } from "./services.ts";
import { restartPolicy } from "./specs.ts";

type Inspected = Docker.ContainerInspectInfo;

export interface RunningParent {
  /** Of its image; "unknown" for one without a label. */
  version: string;
  /** Digest of its sources; null if it has not written its state. */
  build: string | null;
}

/** The parent to upgrade, or the one that an interrupted upgrade has set aside. */
export async function parentToUpgrade(
  instance: Instance,
): Promise<RunningParent | undefined> {
  const { former, present } = await parents(instance);
  const parent = former ?? present;
  if (!parent) return undefined;
  const state = readParentState(instance);
  return {
    version: parent.Config.Labels?.[versionLabel] ?? "unknown",
    build: state?.container === parent.Id ? state.build ?? null : null,
  };
}

async function parents(
  instance: Instance,
): Promise<{ present: Inspected | undefined; former: Inspected | undefined }> {
  const { names } = instance;
  const [present, former] = await Promise.all([
    ownContainer(instance, names.parent, "parent"),
    ownContainer(instance, names.formerParent, "parent"),
  ]);
  return { present, former };
}

/**
 * Gives the images that were built the instance's names; the former ones are kept.
 * Returns whether any is another.
 */
export async function useNewImages(instance: Instance): Promise<boolean> {
  const { docker, settings: { HAL9000_IMAGE_REPO: repository } } = instance;
  const kept = formerOf(repository);
  const { present, former } = await parents(instance);
  const runs = (former ?? present)?.Image;
  const image = await inspectImage(docker, `${kept}:parent`);
  // Those that an interrupted upgrade has kept are the former ones already.
  if (!image || image.Id !== runs) await copyTags(docker, repository, kept);
  const changed = await copyTags(docker, nextOf(repository), repository);
  await removeTags(docker, nextOf(repository));
  return changed;
}

/**
 * Replaces the parent, its pool and nsenter by those of the present image; call
 * forgetFormer() when everything is done. Throws a `failed` Failure if the new parent does
 * not become healthy, after the former one has been started again. Returns whether
 * anything was replaced, now or by an upgrade that was interrupted.
 */
export async function replaceParent(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<boolean> {
  const { docker, settings } = instance;
  const image = `${settings.HAL9000_IMAGE_REPO}:parent`;
  const wanted = await docker.getImage(image).inspect();
  const { present, former } = await parents(instance);
  const isNew = present?.Image === wanted.Id;
  const isDone = isNew && !former;
  if (!isNew) await setAside(instance, { present, former }, log);
  try {
    await startDaemon(instance, env, log);
    await waitUntilHealthy(instance);
  } catch (error) {
    // Without a former parent there is nothing to go back to.
    if (isDone) throw error;
    throw await rollBack(instance, error, log);
  }
  return !isDone;
}

/** Removes what is kept for going back. */
export async function forgetFormer(instance: Instance): Promise<void> {
  const { docker, names, settings } = instance;
  if (await ownContainer(instance, names.formerParent, "parent")) {
    await removeContainer(docker, names.formerParent);
  }
  await removeTags(docker, formerOf(settings.HAL9000_IMAGE_REPO));
}

/** Stops the parent and renames it. */
async function setAside(
  instance: Instance,
  { present, former }: Awaited<ReturnType<typeof parents>>,
  log: Log,
): Promise<void> {
  const { docker, names } = instance;
  if (!present) return; // set aside already
  if (former) {
    // A parent of another upgrade, which was interrupted. Keep the one that works.
    if (!await isHealthy(instance, present)) return await stopParent(instance);
    await removeContainer(docker, former.Id);
  }
  await drainPool(instance, log);
  const parent = docker.getContainer(present.Id);
  // An engine that restarts now must not start it beside the new one.
  await parent.update({ RestartPolicy: { Name: "no" } });
  await stop(parent);
  await parent.rename({ name: names.formerParent });
  await removePool(instance);
}

async function stop(container: Docker.Container): Promise<void> {
  try {
    await container.stop({ t: 10 });
  } catch (error) {
    if (statusOf(error) !== 304) throw error; // already stopped
  }
}

/** So that no session waits for a warm worker of a manager that ends. */
async function drainPool(instance: Instance, log: Log): Promise<void> {
  if (!await poolAnswers(instance)) return;
  try {
    await askPool(instance, { op: "drain" });
  } catch (error) {
    // The new parent removes what is left.
    log(`warning: Cannot drain the pool: ${messageOf(error)}`);
  }
}

async function waitUntilHealthy(instance: Instance): Promise<void> {
  await waitForChromadb(instance);
  if (await parentAnswers(instance)) return;
  throw new Failure("failed", `${instance.names.parent} does not answer`);
}

async function isHealthy(
  instance: Instance,
  { Id, State }: Inspected,
): Promise<boolean> {
  const state = readParentState(instance);
  return State.Running && state?.container === Id && state.ready &&
    await parentAnswers(instance);
}

/** Starts the former parent again; returns the Failure to report. */
async function rollBack(
  instance: Instance,
  error: unknown,
  log: Log,
): Promise<Failure> {
  const { docker, names, settings: { HAL9000_IMAGE_REPO: repository } } =
    instance;
  const reason = messageOf(error);
  for (const line of await lastLines(docker, names.parent)) log(line);
  try {
    await stopParent(instance);
    await removePool(instance);
    await copyTags(docker, formerOf(repository), repository);
    const { Id, Image } = await findContainer(docker, names.formerParent);
    // Also if somebody has pruned the former names: the next start would otherwise replace
    // the parent by the one that does not work.
    if (await inspectImage(docker, Image)) {
      await nameImage(docker, Image, `${repository}:parent`);
    }
    const former = docker.getContainer(Id); // its name changes
    await former.rename({ name: names.parent });
    await former.update({ RestartPolicy: restartPolicy });
    forgetParentState(instance);
    await startContainer(docker, names.parent);
    await waitUntilReady(instance);
    await waitForPorts(instance)
      .catch((late) => log(`warning: ${messageOf(late)}`));
    await removeTags(docker, formerOf(repository));
  } catch (second) {
    return new Failure(
      "failed",
      `The new parent failed (${reason}), and so did going back: ${
        messageOf(second)
      }`,
      { hint: "Try again: claudy upgrade", cause: error },
    );
  }
  return new Failure(
    "failed",
    `The new parent does not work, so the former one runs again: ${reason}`,
    {
      hint: "The last lines of the new parent's log are above.",
      cause: error,
    },
  );
}

const shownLines = 20;

async function lastLines(docker: Docker, name: string): Promise<string[]> {
  try {
    const log = await readLog(docker, name, shownLines);
    const text = new TextDecoder().decode(withoutFrames(log));
    return stripVTControlCharacters(text).trimEnd().split("\n");
  } catch {
    return []; // it was not created
  }
}
