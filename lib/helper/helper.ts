// Runs short-lived containers that inspect parts of the host this program cannot see.

import { Buffer } from "node:buffer";
import type { Readable } from "node:stream";
import * as v from "valibot";
import {
  createContainer,
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, hostPathSchema } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { bind, serviceSpec } from "../instance/container-spec.ts";
import { label } from "../instance/labels.ts";
import { hostMount } from "../instance/paths.ts";
import { type Look, type LookRequest, lookSchema } from "./processes.ts";
import { FrameReader } from "../docker/streams.ts";

/** The helper's output: the facts, or the error. */
export const pathSchema = v.union([
  hostPathSchema,
  v.object({ code: v.string(), message: v.string() }),
]);

/** Inspects a host path. Throws an error with the code of the failed system call. */
export async function lookFromHelper(
  instance: Instance,
  path: string,
): Promise<HostPath> {
  const output = await runHelper(instance, {
    subject: `Cannot look at "${path}"`,
    command: ["/scripts/look-at-path", path],
    rights: {
      CapAdd: ["DAC_READ_SEARCH"],
      Mounts: [bind("/", hostMount, true)],
    },
  });
  const result = parsed(pathSchema, output, `Cannot look at "${path}"`);
  if ("code" in result) {
    throw Object.assign(new Error(result.message), { code: result.code });
  }
  return result;
}

/** Lists what the processes of containers hold open, without running anything in them. */
export async function lookAtContainers(
  instance: Instance,
  { netPid, containers: ids }: {
    netPid: LookRequest["netPid"];
    /** Their ids. */
    containers: string[];
  },
): Promise<Look> {
  const inspected = await Promise.all(
    ids.map((id) => inspectContainer(instance.docker, id)),
  );
  const containers = inspected.flatMap((container) =>
    container?.State.Pid
      ? [{
        id: container.Id,
        pid: container.State.Pid,
        isolated: container.Config.Labels?.[label.network] === "isolated",
      }]
      : []
  );
  const request: LookRequest = { netPid, containers };
  const output = await runHelper(instance, {
    subject: "Cannot look at the workers' processes",
    command: ["/scripts/look-at-processes", JSON.stringify(request)],
    rights: {
      PidMode: "host",
      // To see the descriptors of other users' processes.
      CapAdd: ["SYS_PTRACE", "DAC_READ_SEARCH"],
    },
    // AppArmor's profile for containers hides the processes of others.
    security: ["apparmor=unconfined"],
  });
  return parsed(lookSchema, output, "Cannot look at the workers' processes");
}

/** Parses the output; throws a Failure that quotes it if it is invalid. */
function parsed<T>(
  schema: v.GenericSchema<unknown, T>,
  output: string,
  subject: string,
): T {
  try {
    return v.parse(schema, JSON.parse(output));
  } catch (error) {
    const [line = ""] = output.trim().split("\n");
    throw new Failure("failed", `${subject}: ${line.slice(0, 200)}`, {
      cause: error,
      hint: "Rebuild the images: claudy up",
    });
  }
}

export interface HelperRequest {
  /** The beginning of error messages, such as "Cannot look at x". */
  subject: string;
  /** @default the parent's image */
  image?: string;
  command: [string, ...string[]];
  user?: string;
  /** Additional capabilities, mounts and namespaces; none by default. */
  rights?: Docker.HostConfig;
  security?: string[];
  env?: string[];
  /** @default a random one */
  id?: string;
  /** A line for its stdin, which then stays open until this program ends. */
  input?: string;
  /** Called for each line of its stderr, which is otherwise part of the output. */
  onError?: (line: string, program: Talk) => void;
  /** @default a minute */
  timeoutMs?: number;
  memoryBytes?: number;
}

/** The program in a helper, while it runs. */
export interface Talk {
  /** Sends a line to its stdin. */
  send: (line: string) => void;
  /** Ends it; the error is thrown. */
  fail: (error: Error) => void;
}

const maxBytes = 64 * 1024 ** 2;
const defaultTimeoutMs = 60_000;
const defaultMemoryBytes = 512 * 1024 ** 2;

/** The name of a helper's container. */
export function helperName(
  { prefix }: Pick<Instance, "prefix">,
  id: string,
): string {
  return `${prefix}-helper-${id}`;
}

/**
 * Runs a command in a new container and returns its output. The container is removed when
 * the command exits, even if this program is killed.
 */
export async function runHelper(
  instance: Pick<
    Instance,
    "docker" | "prefix" | "self" | "settings" | "hostHome"
  >,
  request: HelperRequest,
): Promise<string> {
  const { subject, image, command, user, rights, security = [], input } =
    request;
  const {
    timeoutMs = defaultTimeoutMs,
    memoryBytes = defaultMemoryBytes,
    id = crypto.randomUUID().slice(0, 8),
  } = request;
  const { docker, prefix, self, settings, hostHome } = instance;
  const name = helperName(instance, id);
  let late: ReturnType<typeof setTimeout> | undefined;
  try {
    const spec = serviceSpec({ prefix, hostHome }, {
      role: "helper",
      image: image ?? self?.ImageID ?? `${settings.HAL9000_IMAGE_REPO}:parent`,
      command,
      user,
      env: request.env ?? [],
      memoryBytes,
      security,
      rights: { AutoRemove: true, ...rights },
    });
    const hasInput = input !== undefined;
    if (hasInput) Object.assign(spec, { OpenStdin: true, StdinOnce: true });
    const container = await createContainer(docker, name, spec);
    const output = await container.attach({
      stream: true,
      stdin: hasInput,
      hijack: hasInput,
      stdout: true,
      stderr: true,
    });
    const program: Talk = {
      send: (line) => void output.write(`${line}\n`),
      fail: (error) => void (output as unknown as Readable).destroy(error),
    };
    const cut = new Error(`it did not exit within ${timeoutMs / 1000} s`);
    late = setTimeout(() => program.fail(cut), timeoutMs);
    await container.start();
    if (hasInput) program.send(input);
    const { onError } = request;
    return await outputOf(
      output as unknown as Readable,
      onError && ((line) => onError(line, program)),
    );
  } catch (error) {
    throw engineFailure(error, subject);
  } finally {
    clearTimeout(late);
    await removeContainer(docker, name);
  }
}

async function outputOf(
  stream: Readable,
  onError: ((line: string) => void) | undefined,
): Promise<string> {
  const frames = new FrameReader();
  const chunks: Uint8Array[] = [];
  const text = new TextDecoder();
  let bytes = 0;
  let line = "";
  for await (const chunk of stream) {
    bytes += (chunk as Uint8Array).length;
    if (bytes > maxBytes) throw new Error("it produced too much output");
    for (const frame of frames.add(chunk as Uint8Array)) {
      if (frame.stream === "stdout" || !onError) chunks.push(frame.payload);
      else {
        const lines = (line + text.decode(frame.payload, { stream: true }))
          .split("\n");
        line = lines.pop() ?? "";
        lines.forEach(onError);
      }
    }
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}
