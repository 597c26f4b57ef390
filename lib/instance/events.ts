// Follows Docker's events of an instance's containers.

import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import type { Instance } from "./instance.ts";
import { instanceFilter, label, type Role } from "./labels.ts";

export interface ContainerEvent {
  action: string;
  /** The container's id. */
  id: string;
  name: string;
  role: string;
  /** Whether it is an isolated worker. */
  isolated: boolean;
  at: Date;
}

interface DockerEvent {
  Action: string;
  time: number;
  Actor: { ID: string; Attributes: Record<string, string> };
}

interface Followed {
  actions: string[];
  role?: Role;
  stop: AbortSignal;
}

/** Pause before the stream is opened again. */
const reopenMs = 1000;

/**
 * Calls `act` for each event until `stop` is aborted; opens an interrupted stream again,
 * and then calls `missed`.
 */
export async function keepFollowing(
  instance: Pick<Instance, "docker" | "prefix">,
  options: Followed,
  { act, missed = () => {}, log }: {
    act: (event: ContainerEvent) => void;
    missed?: () => void;
    log: Log;
  },
): Promise<void> {
  const { stop } = options;
  while (!stop.aborted) {
    try {
      await followEvents(instance, options, act);
    } catch (error) {
      if (stop.aborted) return;
      log(`The event stream from Docker was interrupted: ${messageOf(error)}`);
    }
    await sleep(reopenMs, undefined, { signal: stop }).catch(() => {});
    if (!stop.aborted) missed();
  }
}

/** Calls `act` for each event until `stop` is aborted or the stream ends. */
export async function followEvents(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
  options: Followed,
  act: (event: ContainerEvent) => void,
): Promise<void> {
  const { stop } = options;
  const stream = await docker.getEvents({
    filters: {
      type: ["container"],
      event: options.actions.flatMap((action) =>
        action === "destroy" ? [action, podmanDestroy] : [action]
      ),
      ...instanceFilter(prefix, options.role),
    },
  }) as NodeJS.ReadableStream & { destroy(): void };
  const close = () => stream.destroy();
  stop.addEventListener("abort", close);
  let rest = "";
  try {
    for await (const chunk of stream) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) act(containerEvent(JSON.parse(line)));
    }
  } finally {
    stop.removeEventListener("abort", close);
  }
}

/** Podman's name of the event that Docker calls "destroy". */
const podmanDestroy = "remove";

function containerEvent({ Action, time, Actor }: DockerEvent): ContainerEvent {
  return {
    action: Action === podmanDestroy ? "destroy" : Action,
    id: Actor.ID,
    name: Actor.Attributes["name"] ?? "",
    role: Actor.Attributes[label.role] ?? "",
    isolated: Actor.Attributes[label.network] === "isolated",
    at: new Date(time * 1000),
  };
}
