// The lock that allows one move at a time: the name of the mover's container, which
// the engine assigns only once.

import { userInfo } from "node:os";
import process from "node:process";
import {
  createContainer,
  type Docker,
  inspectContainer,
  isNameTaken,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { Failure } from "../std/errors.ts";
import { waitFor } from "../std/wait.ts";

/** How long the mover of a killed process may take to end. */
export const gracePeriodMs = 10_000;

/** The name of a mover's container. */
export function moverName(prefix: string, { volumes }: { volumes: boolean }) {
  return `${prefix}-mover${volumes ? "-volumes" : ""}`;
}

/** Waits a little for the movers of a killed process, which finish their last step. */
export async function moversEnd(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
): Promise<void> {
  const names = [true, false].map((volumes) => moverName(prefix, { volumes }));
  const haveEnded = async () => {
    const found = names.map((name) => inspectContainer(docker, name));
    return !(await Promise.all(found)).some((mover) => mover?.State.Running);
  };
  await waitFor(haveEnded, {
    for: "the movers to end",
    timeoutMs: gracePeriodMs,
    everyMs: 100,
  }).catch(() => {}); // the caller looks again
}

/** Creates a container if its name is free; waits a little for that. */
export async function createExclusive(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<void> {
  const deadline = Date.now() + gracePeriodMs;
  const owner = `process ${process.pid} of ${userInfo().username}`;
  const owned = { ...spec, Labels: { ...spec.Labels, [label.owner]: owner } };
  await waitFor(async () => {
    try {
      return await createContainer(docker, name, owned);
    } catch (error) {
      if (!await isNameTaken(docker, name, error)) {
        throw engineFailure(error, `Cannot create ${name}`);
      }
    }
    const present = await inspectContainer(docker, name);
    if (!present) return undefined;
    const { State, Config, Created } = present;
    const holder = Config.Labels?.[label.owner];
    if (holder === undefined) {
      throw new Failure(
        "busy",
        `Container "${name}" does not belong to this instance`,
        {
          hint: "Rename it, or set another HAL9000_PREFIX.",
        },
      );
    }
    const ageMs = Date.now() - Date.parse(Created);
    if (!State.Running && ageMs > gracePeriodMs) {
      await removeContainer(docker, name);
    }
    if (State.Running && Date.now() > deadline) {
      throw new Failure(
        "busy",
        `Data of this instance is being moved by ${holder}, since ${
          Created.slice(0, 19)
        }Z`,
        { hint: "Wait until the other process has finished." },
      );
    }
    return undefined;
  }, { for: `the name ${name}`, timeoutMs: 30_000, everyMs: 100 });
}
