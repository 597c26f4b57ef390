// The nsenter container: the one with the rights to enter workers' namespaces, to mount
// and to listen there. And its client.

import { setTimeout as sleep } from "node:timers/promises";
import {
  createOnce,
  ownContainer,
  startContainer,
} from "../instance/container.ts";
import {
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { bind, serviceSpec } from "../instance/container-spec.ts";
import { ensureDirectory } from "../std/owned.ts";
import { Client } from "../std/socket-lines.ts";
import { waitFor } from "../std/wait.ts";
import { listWarm } from "../worker/workers.ts";
import type { AttachRequest } from "./privileged/attach.ts";
import type { OpenRequest, SharedStatus } from "./privileged/listeners.ts";
import type { ContainerProcess } from "./privileged/namespaces.ts";

/** Where things are inside the container. */
export const insideNsenter = {
  run: "/run/nsenter",
  socket: "/run/nsenter/nsenter.sock",
  connect: "/run/nsenter/connect.sock",
  /** A mount point for the self-test. */
  scratch: "/tmp/scratch",
  services: "/services",
  service: (port: number) => `/services/${port}.sock`,
  /** The gateway's sockets. */
  mcp: "/mcp",
  server: (name: string) => `/mcp/${name}.sock`,
} as const;

const memoryBytes = 512 * 1024 ** 2;

/** An answer takes about 1 ms; a container that takes longer than this hangs. */
const answerMs = 1500;

/** Time for the first answer of a new container, and for one of a running container. */
const startMs = 15_000;
const runningMs = 3000;

/** How long a started container may take to run its own process. */
const settleMs = 3000;

export function nsenterSpec(
  instance: Pick<Instance, "prefix" | "hostHome" | "host" | "owner">,
  image: string,
): Docker.ContainerCreateOptions {
  const { prefix, hostHome, host, owner } = instance;
  return serviceSpec({ prefix, hostHome }, {
    role: "nsenter",
    image,
    command: ["/scripts/nsenter"],
    // The group of the owner, who may connect to the workers' ports.
    user: `0:${owner.gid}`,
    env: [
      `HAL9000_PROJECT_ROOTS=${(host.roots ?? []).join(":")}`,
      `NSENTER_SOURCES=${
        [
          ...[hostHome.workers, hostHome.claude, hostHome.workspaces],
          hostHome.netFiles,
        ].join(":")
      }`,
      `NSENTER_RUN=${hostHome.nsenter}`,
    ],
    memoryBytes,
    // AppArmor's default profile for containers denies mounts.
    security: ["apparmor=unconfined"],
    rights: {
      // To see the workers' processes and the host's mount namespace.
      PidMode: "host",
      CapAdd: [
        // To mount, and to enter namespaces.
        ...["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"],
        // To look into other users' directories, and for ports below 1024.
        ...["DAC_READ_SEARCH", "NET_BIND_SERVICE"],
        // To listen as the user for which the shared network's ports are reserved.
        "SETUID",
      ],
      Mounts: [
        bind(hostHome.nsenter, insideNsenter.run),
        bind(hostHome.services, insideNsenter.services, true),
        bind(hostHome.mcp, insideNsenter.mcp, true),
      ],
    },
  });
}

/** What the container is needed for; a machine may allow only one of the two. */
type Purpose = "mounts" | "listeners";

/** A client of the container: one connection, reopened when lost. */
export class Nsenter {
  readonly #instance: Instance;
  #client: Client | undefined;

  constructor(instance: Instance) {
    this.#instance = instance;
  }

  /** Ensures that it runs. Returns why it cannot do what it is needed for, if so. */
  async ensure(purpose: Purpose): Promise<string | undefined> {
    const { docker, names, home, owner, self, host } = this.#instance;
    if (purpose === "mounts" && host.roots?.length === 0) return noRoots;
    ensureDirectory(home.nsenter, 0o770, owner);
    const image = self?.ImageID ?? "";
    const [present, former] = await Promise.all([
      ownContainer(this.#instance, names.nsenter, "nsenter"),
      ownContainer(this.#instance, names.formerNsenter, "mounter"),
    ]);
    if (former) await removeContainer(docker, former.Id);
    const spec = nsenterSpec(this.#instance, image);
    // The test enters it as a claim enters a worker.
    const other = { ...await this.#parent(), for: purpose };
    const fits = present?.Image === image && !present.State.Paused &&
      // Such as the project roots, which the parent may have got anew.
      spec.Env?.every((variable) => present.Config.Env.includes(variable));
    if (fits && present.State.Running) {
      const answer = await this.#test(other, runningMs).catch(() => undefined);
      if (answer) return answer.fault;
    }
    // A hanging one is replaced, too. The parent or the pool manager may be starting one.
    if (present && !(fits && present.State.Status === "created")) {
      await removeContainer(docker, present.Id);
    }
    await createOnce(docker, names.nsenter, spec);
    await startContainer(docker, names.nsenter);
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
    other: ContainerProcess & { for: Purpose },
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
    }, { for: `${this.#instance.names.nsenter} to answer`, timeoutMs });
  }

  /** Attaches directories inside a worker: all of them, or none if it throws. */
  async attach(request: AttachRequest): Promise<void> {
    await this.#do({ op: "attach", ...request });
  }

  /** Whether a worker has anything attached at one of the targets. */
  async isAttached(
    { pid, mark }: ContainerProcess,
    targets: string[],
  ): Promise<boolean> {
    const answer = await this.#do({ op: "look", pid, mark, targets });
    return (answer as { attached: boolean }).attached;
  }

  /**
   * Opens services in a container; returns the ports that are occupied. Idempotent. By
   * default, tries again for a moment: right after its start, a container's process is still
   * the runtime's own.
   */
  async open(request: OpenRequest, settles = true): Promise<number[]> {
    const deadline = Date.now() + (settles ? settleMs : 0);
    while (true) {
      try {
        const answer = await this.#do({ op: "open", ...request });
        return (answer as { taken: number[] }).taken;
      } catch (error) {
        if (error instanceof NsenterLost || Date.now() >= deadline) throw error;
      }
      await sleep(20);
    }
  }

  /** Closes what it has opened in other containers than these. */
  async keep(ids: string[]): Promise<void> {
    await this.#do({ op: "keep", ids });
  }

  /** Throws NsenterLost if there is no answer. */
  async #do(request: object): Promise<unknown> {
    try {
      return await this.#ask(request);
    } catch (error) {
      if (!isOutOfReach(error)) throw error;
      throw new NsenterLost("nsenter is out of reach", { cause: error });
    }
  }

  /** Closes the connection, which would keep the process from ending. */
  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  async #ask(request: object): Promise<unknown> {
    if (this.#client?.broken) this.#client = undefined;
    this.#client ??= new Client(`${this.#instance.home.nsenter}/nsenter.sock`);
    return await this.#client.ask(request, answerMs);
  }
}

/** In the parent: what is open in the shared network. Throws if nsenter does not answer. */
export async function sharedStatus(
  { nsenter }: Pick<HomePaths, "nsenter">,
): Promise<SharedStatus> {
  const client = new Client(`${nsenter}/nsenter.sock`);
  try {
    return await client.ask({ op: "shared" }, answerMs) as SharedStatus;
  } finally {
    client.close();
  }
}

/** As when the parent was started by hand with the engine's socket alone. */
const noRoots = "the parent sees no projects; " +
  "start it with -v DIR:/host/DIR:ro, DIR being the projects' directory";

/** The container has ended or hangs. */
export class NsenterLost extends Error {}

/** Errors that the container reports have no code. */
function isOutOfReach(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code !== undefined;
}

/** Removes what belongs to a parent that was stopped: warm workers and nsenter. */
export async function removePool(instance: Instance): Promise<void> {
  await Promise.all([removeNsenter(instance), removeWarm(instance)]);
}

export async function removeWarm(instance: Instance): Promise<void> {
  const warm = await listWarm(instance);
  await Promise.all(
    warm.map(({ id }) => removeContainer(instance.docker, id)),
  );
}

async function removeNsenter(instance: Instance): Promise<void> {
  const { docker, names } = instance;
  if (!await ownContainer(instance, names.nsenter, "nsenter")) return;
  await removeContainer(docker, names.nsenter);
}
