// Mounts the socket of the user's ssh-agent in a worker.

import { lookFromHelper } from "../helper/helper.ts";
import type { Instance } from "../instance/instance.ts";
import { noCrossing, socketsCross } from "../instance/parent-socket.ts";
import { insideWorker } from "../instance/paths.ts";
import type { WorkerMount } from "../project/mount.ts";
import { resolveGiven } from "../project/project.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";

/**
 * Where a virtual machine may offer the user's ssh-agent.
 * https://docs.docker.com/desktop/features/networking/#ssh-agent-forwarding
 */
const relayedAgent = "/run/host-services/ssh-auth.sock";

/**
 * The mount of an agent's socket; unlike other mounts it may be in /run. If unix sockets do
 * not cross to the engine's machine, that machine's way to the agent is mounted.
 */
export async function agentMount(
  instance: Instance,
  path: string,
): Promise<WorkerMount> {
  const crosses = socketsCross(instance) !== false;
  const found = crosses
    ? await resolveGiven(instance, {
      path,
      cwd: "/",
      as: "ssh-agent",
      allowAny: true,
    })
    : await lookForRelay(instance);
  if (found.kind !== "other") {
    throw new Failure("usage", `Cannot use "${found.path}" as ssh-agent`, {
      hint:
        "It is not a socket. Start an agent and set SSH_AUTH_SOCK: eval $(ssh-agent)",
    });
  }
  return {
    source: found.path,
    target: insideWorker.sshAgent,
    readOnly: false,
    inode: found.inode,
    // It belongs to root, and to a group that may connect.
    ...(crosses ? {} : { group: found.gid }),
  };
}

async function lookForRelay(instance: Instance): Promise<HostPath> {
  try {
    return await lookFromHelper(instance, relayedAgent);
  } catch (error) {
    const isMissing = ["ENOENT", "ENOTDIR"].includes(
      (error as NodeJS.ErrnoException).code ?? "",
    );
    const why = isMissing
      ? `it has no ${relayedAgent}`
      : `${relayedAgent}: ${messageOf(error)}`;
    throw new Failure(
      "notFound",
      `Cannot reach your ssh-agent from the engine's machine: ${noCrossing}, and ${why}`,
      {
        cause: error,
        hint: "Docker Desktop has one. Elsewhere, open the session without " +
          "--ssh-agent; sign and push on this machine.",
      },
    );
  }
}
