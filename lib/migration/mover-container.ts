// The mover: a container of root's, without network, that alone touches the data of
// a move. It lives as long as the process that started it, and is the lock by which
// there is one move at a time: the engine gives its name away once.

import { type ChildProcess, spawn } from "node:child_process";
import { userInfo } from "node:os";
import process from "node:process";
import * as v from "valibot";
import {
  createContainer,
  type Docker,
  inspectContainer,
  inspectVolume,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { exitCode, Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { label, roleLabels } from "../instance/labels.ts";
import { waitFor } from "../std/wait.ts";
import { volumeMount } from "../worker/worker.ts";
import type { Operation, Progress } from "./mover/operations.ts";
import { insideMover, volumeOf } from "./parts.ts";
import { movedParts } from "../instance/volumes.ts";

const lineSchema = v.union([
  v.object({ progress: v.object({ files: v.number(), bytes: v.number() }) }),
  v.object({ result: v.unknown() }),
  v.object({
    failure: v.object({
      kind: v.picklist(Object.keys(exitCode) as (keyof typeof exitCode)[]),
      message: v.string(),
      hint: v.optional(v.string()),
    }),
  }),
]);

type Line = v.InferOutput<typeof lineSchema>;

export interface MoverOptions {
  /** With the volumes that there are; they can only be mounted at the start. */
  volumes: boolean;
  readOnly?: boolean;
}

/** How long that of a process which was killed may take to go. */
const farewellMs = 5000;

export class Mover {
  readonly #name: string;
  readonly #holder: ChildProcess;
  #operator: Operator | undefined;

  private constructor(name: string, holder: ChildProcess) {
    this.#name = name;
    this.#holder = holder;
  }

  /** Throws a `busy` Failure while another one moves data of the instance. */
  static async start(
    instance: Instance,
    options: MoverOptions,
  ): Promise<Mover> {
    const { docker, prefix } = instance;
    const name = `${prefix}-mover${options.volumes ? "-volumes" : ""}`;
    const spec = moverSpec(instance, await mountedVolumes(instance, options), {
      readOnly: options.readOnly ?? false,
    });
    await createAlone(docker, name, spec);
    // It ends when its stdin does, and that is when this process does.
    const holder = spawn(
      "docker",
      ["start", "--attach", "--interactive", name],
      {
        stdio: ["pipe", "ignore", "pipe"],
      },
    );
    holder.stdin?.on("error", () => {});
    let ended = false;
    holder.once("close", () => ended = true);
    let complaint = "";
    holder.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      complaint = (complaint + chunk).slice(-2000);
    });
    await waitFor(async () => {
      const present = await inspectContainer(docker, name);
      if (present?.State.Running) return true;
      if (!ended) return false;
      throw new Failure("engine", `Cannot start ${name}: ${complaint.trim()}`);
    }, { for: `${name} to start`, timeoutMs: 20_000 });
    return new Mover(name, holder);
  }

  /** Performs an operation; gives what it answers. */
  async do<T>(
    operation: Operation,
    schema: v.GenericSchema<unknown, T>,
    progress: Progress = () => {},
  ): Promise<T> {
    if (this.#operator?.ended !== false) {
      this.#operator = new Operator(this.#name);
    }
    return v.parse(schema, await this.#operator.perform(operation, progress));
  }

  /** The same, of one that has nothing to say. */
  async act(operation: Operation, progress?: Progress): Promise<void> {
    await this.do(operation, v.unknown(), progress);
  }

  /** Ends it, and waits until its name is free. */
  async stop({ docker }: Pick<Instance, "docker">): Promise<void> {
    this.#operator?.end();
    this.#holder.stdin?.end();
    await waitFor(
      async () => !await inspectContainer(docker, this.#name),
      { for: `${this.#name} to end`, timeoutMs: farewellMs },
    ).catch(() => removeContainer(docker, this.#name));
  }
}

/** Has a container of the parent's image perform an operation. */
export async function performIn(
  container: string,
  operation: Operation,
): Promise<unknown> {
  const operator = new Operator(container);
  try {
    return await operator.perform(operation);
  } finally {
    operator.end();
  }
}

/** A program in a container of the parent's image that performs operations in turn. */
class Operator {
  readonly #container: string;
  readonly #child: ChildProcess;
  #complaint = "";
  #rest = "";
  #hear: ((line: Line | undefined) => void) | undefined;
  ended = false;

  constructor(container: string) {
    this.#container = container;
    this.#child = spawn(
      "docker",
      ["exec", "--interactive", container, "/scripts/mover"],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    const end = () => {
      this.ended = true;
      this.#hear?.(undefined);
    };
    this.#child.on("error", end).on("close", end);
    this.#child.stdin?.on("error", () => {}); // it has ended
    this.#child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      const lines = (this.#rest + chunk).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) {
        this.#hear?.(v.parse(lineSchema, JSON.parse(line)));
      }
    });
    this.#child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#complaint = (this.#complaint + chunk).slice(-2000);
    });
  }

  async perform(
    operation: Operation,
    progress: Progress = () => {},
  ): Promise<unknown> {
    const last = await new Promise<Line | undefined>((resolve) => {
      this.#hear = (line) => {
        if (line && "progress" in line) {
          progress(line.progress.files, line.progress.bytes);
        } else resolve(line);
      };
      if (this.ended) resolve(undefined);
      this.#child.stdin?.write(`${JSON.stringify(operation)}\n`);
    });
    this.#hear = undefined;
    if (last && "result" in last) return last.result;
    if (last && "failure" in last) {
      const { kind, message, hint } = last.failure;
      throw new Failure(kind, message, { hint });
    }
    throw new Failure(
      "failed",
      `Cannot ${operation.op} in ${this.#container}: ${
        this.#complaint.trim().split("\n")[0] || "it has ended"
      }`,
      { hint: "Run it again: it goes on from where it was." },
    );
  }

  end(): void {
    this.#child.stdin?.end();
  }
}

async function mountedVolumes(
  instance: Instance,
  { volumes }: MoverOptions,
): Promise<Docker.MountSettings[]> {
  if (!volumes) return [];
  const mounts = await Promise.all(movedParts.map(async (part) => {
    const name = volumeOf(instance, part);
    // Mounting one would make it.
    return await inspectVolume(instance.docker, name)
      ? [volumeMount(name, insideMover.volume(part.name))]
      : [];
  }));
  return mounts.flat();
}

function moverSpec(
  { prefix, hostHome, settings }: Instance,
  volumes: Docker.MountSettings[],
  { readOnly }: { readOnly: boolean },
): Docker.ContainerCreateOptions {
  return {
    Image: `${settings.HAL9000_IMAGE_REPO}:parent`,
    Entrypoint: ["/usr/bin/cat"],
    Cmd: [],
    User: "0:0",
    Env: ["DENO_DIR=/tmp/deno"],
    OpenStdin: true,
    StdinOnce: true,
    Healthcheck: { Test: ["NONE"] },
    Labels: {
      ...roleLabels(prefix, "helper", hostHome.home),
      [label.owner]: `process ${process.pid} of ${userInfo().username}`,
    },
    HostConfig: {
      AutoRemove: true,
      Init: true,
      NetworkMode: "none",
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev" },
      CapDrop: ["ALL"],
      // To read, write and give away what is anybody's, with all its modes.
      CapAdd: readOnly
        ? ["DAC_READ_SEARCH"]
        : ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
      SecurityOpt: ["no-new-privileges"],
      LogConfig: { Type: "none", Config: {} },
      Mounts: [
        {
          Type: "bind",
          Source: hostHome.home,
          Target: insideMover.home,
          ReadOnly: readOnly,
        },
        ...volumes.map((mount) => ({ ...mount, ReadOnly: readOnly })),
      ],
    },
  };
}

/** Creates a container whose name nobody else has, or waits a little for that. */
async function createAlone(
  docker: Docker,
  name: string,
  spec: Docker.ContainerCreateOptions,
): Promise<void> {
  const enough = Date.now() + farewellMs;
  await waitFor(async () => {
    try {
      await createContainer(docker, name, spec);
      return true;
    } catch (error) {
      if (statusOf(error) !== 409) {
        throw engineFailure(error, `Cannot create ${name}`);
      }
    }
    const present = await inspectContainer(docker, name);
    if (!present) return false;
    const { State, Config, Created } = present;
    if (Config.Labels?.[label.owner] === undefined) {
      throw new Failure("busy", `Container "${name}" is not this instance's`, {
        hint: "Rename it, or set another HAL9000_PREFIX.",
      });
    }
    const age = Date.now() - Date.parse(Created);
    if (!State.Running && age > farewellMs) await removeContainer(docker, name);
    if (State.Running && Date.now() > enough) {
      throw new Failure(
        "busy",
        `Data of this instance is being moved by ${
          Config.Labels[label.owner] ?? "another"
        }, since ${Created.slice(0, 19)}Z`,
        { hint: "Wait until it has ended." },
      );
    }
    return false;
  }, { for: `the name ${name}`, timeoutMs: 30_000, everyMs: 100 });
}
