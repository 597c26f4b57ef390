// Follows Docker's events of an instance's containers.

import type { Instance } from "./instance.ts";
import { instanceFilter, label, type Role } from "./labels.ts";

export interface ContainerEvent {
  action: string;
  /** The container's id. */
  id: string;
  name: string;
  role: string;
  at: Date;
}

interface DockerEvent {
  Action: string;
  time: number;
  Actor: { ID: string; Attributes: Record<string, string> };
}

/** Calls `act` for each event until `stop` is aborted or the stream ends. */
export async function followEvents(
  { docker, prefix }: Pick<Instance, "docker" | "prefix">,
  options: { actions: string[]; role?: Role; stop: AbortSignal },
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
    at: new Date(time * 1000),
  };
}
