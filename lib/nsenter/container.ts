// The nsenter: the one container with the right to mount, and its client.

import { ownContainer } from "../instance/container.ts";
import {
  createContainer,
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { bind, serviceSpec } from "../instance/container-spec.ts";
import { ensureDirectory } from "../std/owned.ts";
import { waitFor } from "../std/wait.ts";
import { listWarm } from "../worker/workers.ts";
import type { AttachRequest, ContainerProcess } from "./privileged/attach.ts";
import { Client } from "../std/socket-lines.ts";

/** Where things are inside the nsenter. */
export const insideNsenter = {
  run: "/run/nsenter",
  socket: "/run/nsenter/nsenter.sock",
  /** A mount point for the self-test. */
  scratch: "/tmp/scratch",
} as const;

const memoryBytes = 256 * 1024 ** 2;

/** An answer takes about 1 ms; a nsenter that takes longer than this hangs. */
const answerMs = 1500;

/** Time for the first answer of a new nsenter, and for one of a running nsenter. */
const startMs = 15_000;
const runningMs = 3000;

export function nsenterSpec(
  instance: Pick<Instance, "prefix" | "hostHome" | "host" | "owner">,
  image: string,
): Docker.ContainerCreateOptions {
  const { prefix, hostHome, host, owner } = instance;
  return serviceSpec({ prefix, hostHome }, {
    role: "nsenter",
    image,
    command: ["/scripts/nsenter"],
    user: "0:0",
    env: [
      `HAL9000_PROJECT_ROOTS=${(host.roots ?? []).join(":")}`,
      `NSENTER_HOMES=${hostHome.workers}:${hostHome.claude}`,
      `NSENTER_RUN=${hostHome.nsenter}`,
    ],
    memoryBytes,
    // AppArmor's default profile for containers denies mounts.
    security: ["apparmor=unconfined"],
    rights: {
      // To see the workers' processes and the host's mount namespace.
      PidMode: "host",
      // To mount and enter namespaces, and to look into other users' directories.
      CapAdd: ["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "DAC_READ_SEARCH"],
      // The socket's directory belongs to the owner.
      GroupAdd: [String(owner.gid)],
      Mounts: [bind(hostHome.nsenter, insideNsenter.run)],
    },
  });
}

/** The pool manager's client of the nsenter: one connection, reopened when lost. */
export class Nsenter {
  readonly #instance: Instance;
  #client: Client | undefined;

  constructor(instance: Instance) {
    this.#instance = instance;
  }

  /** Ensures that the nsenter runs. Returns why mounts are impossible, if they are. */
  async ensure(): Promise<string | undefined> {
    const { docker, names, home, owner, self, host } = this.#instance;
    if (host.roots?.length === 0) return noRoots;
    ensureDirectory(home.nsenter, 0o770, owner);
    const image = self?.ImageID ?? "";
    const present = await ownContainer(
      this.#instance,
      names.nsenter,
      "nsenter",
    );
    const spec = nsenterSpec(this.#instance, image);
    // The test enters it as a claim enters a worker.
    const other = await this.#parent();
    const fits = present?.Image === image && present.State.Running &&
      !present.State.Paused &&
      // Such as the project roots, which the parent may have got anew.
      spec.Env?.every((variable) => present.Config.Env.includes(variable));
    if (fits) {
      const answer = await this.#test(other, runningMs).catch(() => undefined);
      if (answer) return answer.fault;
    }
    // A hanging nsenter is replaced, too: it has no state.
    if (present) await removeContainer(docker, present.Id);
    const container = await createContainer(docker, names.nsenter, spec);
    await container.start();
    return (await this.#test(other, startMs)).fault;
  }

  async #parent(): Promise<ContainerProcess> {
    const { docker, names, self } = this.#instance;
    const parent = await inspectContainer(docker, self?.Id ?? names.parent);
    const [mark = ""] = parent?.Config.Env ?? [];
    return { pid: parent?.State.Pid ?? 0, mark };
  }

  /** The result of its self-test, once it listens. */
  #test(
    other: ContainerProcess,
    timeoutMs: number,
  ): Promise<{ fault?: string }> {
    return waitFor(async () => {
      try {
        const request = { op: "test", ...other };
        return await this.#ask(request) as { fault?: string };
      } catch (error) {
        if (isOutOfReach(error)) return undefined; // not listening yet
        throw error;
      }
    }, { for: "the nsenter to answer", timeoutMs });
  }

  /** Attaches directories inside a worker: all of them, or none if it throws. */
  async attach(request: AttachRequest): Promise<void> {
    try {
      await this.#ask({ op: "attach", ...request });
    } catch (error) {
      if (!isOutOfReach(error)) throw error;
      throw new NsenterLost("the nsenter is out of reach", { cause: error });
    }
  }

  /** Whether a worker has anything attached at one of the targets. */
  async isAttached(
    { pid, mark }: ContainerProcess,
    targets: string[],
  ): Promise<boolean> {
    const answer = await this.#ask({ op: "look", pid, mark, targets });
    return (answer as { attached: boolean }).attached;
  }

  async #ask(request: object): Promise<unknown> {
    if (this.#client?.broken) this.#client = undefined;
    this.#client ??= new Client(`${this.#instance.home.nsenter}/nsenter.sock`);
    return await this.#client.ask(request, answerMs);
  }
}

/** As when the parent was started by hand with the engine's socket alone. */
const noRoots = "the parent sees no projects; " +
  "start it with -v DIR:/host/DIR:ro, DIR being the projects' directory";

/** The nsenter has ended or hangs. */
export class NsenterLost extends Error {}

/** Errors that the nsenter reports have no code. */
function isOutOfReach(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code !== undefined;
}

/** Removes what a stopped pool manager leaves: warm workers and the nsenter. */
export async function removePool(instance: Instance): Promise<void> {
  const warm = await listWarm(instance);
  await Promise.all([
    removeNsenter(instance),
    ...warm.map(({ id }) => removeContainer(instance.docker, id)),
  ]);
}

export async function removeNsenter(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  if (!await ownContainer(instance, names.nsenter, "nsenter")) return;
  await removeContainer(docker, names.nsenter);
}
