// Short-lived containers that look at what of the host this program does not see.

import { Buffer } from "node:buffer";
import type { Readable } from "node:stream";
import * as v from "valibot";
import {
  createContainer,
  type Docker,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, hostPathSchema } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { serviceSpec } from "../instance/container-spec.ts";
import { hostMount } from "../instance/paths.ts";
import { type Look, type LookRequest, lookSchema } from "./processes.ts";
import { withoutFrames } from "../docker/streams.ts";

/** What the helper prints: the facts, or the code of the error. */
export const pathSchema = v.union([
  hostPathSchema,
  v.object({ code: v.string(), message: v.string() }),
]);

/** What is at a host path. Throws an error with the code that lstat gave. */
export async function lookFromHelper(
  instance: Instance,
  path: string,
): Promise<HostPath> {
  const output = await runHelper(instance, {
    subject: `Cannot look at "${path}"`,
    command: ["/scripts/look-at-path", path],
    rights: {
      CapAdd: ["DAC_READ_SEARCH"],
      Mounts: [
        { Type: "bind", Source: "/", Target: hostMount, ReadOnly: true },
      ],
    },
  });
  const result = parsed(pathSchema, output);
  if ("code" in result) {
    throw Object.assign(new Error(result.message), { code: result.code });
  }
  return result;
}

/** What containers' processes hold open. Nothing in them is asked. */
export async function lookAtContainers(
  instance: Instance,
  request: LookRequest,
): Promise<Look> {
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
  return parsed(lookSchema, output);
}

/** Throws a Failure with what was printed in the place of an answer. */
function parsed<T>(schema: v.GenericSchema<unknown, T>, output: string): T {
  try {
    return v.parse(schema, JSON.parse(output));
  } catch (error) {
    const [line = ""] = output.trim().split("\n");
    throw new Failure("failed", `A helper failed: ${line.slice(0, 200)}`, {
      cause: error,
      hint: "Build the images again: make images",
    });
  }
}

export interface HelperRequest {
  /** What is being done, for an error: the start of a sentence. */
  subject: string;
  /** The parent's where it is left out. */
  image?: string;
  command: [string, ...string[]];
  user?: string;
  /** What it may do and see besides nothing. */
  rights?: Docker.HostConfig;
  security?: string[];
}

const maxBytes = 64 * 1024 ** 2;
const timeoutMs = 60_000;

/**
 * Runs a command to its end in a container of its own, and gives what it printed.
 * The container goes with it, whatever becomes of this program.
 */
export async function runHelper(
  instance: Pick<
    Instance,
    "docker" | "prefix" | "self" | "settings" | "hostHome"
  >,
  { subject, image, command, user, rights, security = [] }: HelperRequest,
): Promise<string> {
  const { docker, prefix, self, settings, hostHome } = instance;
  const name = `${prefix}-helper-${crypto.randomUUID().slice(0, 8)}`;
  let late: ReturnType<typeof setTimeout> | undefined;
  try {
    const spec = serviceSpec({ prefix, hostHome }, {
      role: "helper",
      image: image ?? self?.ImageID ?? `${settings.HAL9000_IMAGE_REPO}:parent`,
      command,
      user,
      memoryBytes: 512 * 1024 ** 2,
      security,
      rights: { AutoRemove: true, ...rights },
    });
    const container = await createContainer(docker, name, spec);
    const output = await container.attach({
      stream: true,
      stdout: true,
      stderr: true,
    });
    const cut = new Error(`it has not ended within ${timeoutMs / 1000} s`);
    late = setTimeout(
      () => (output as unknown as Readable).destroy(cut),
      timeoutMs,
    );
    await container.start();
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of output) {
      bytes += (chunk as Uint8Array).length;
      if (bytes > maxBytes) throw new Error("it prints too much");
      chunks.push(chunk as Uint8Array);
    }
    return new TextDecoder().decode(withoutFrames(Buffer.concat(chunks)));
  } catch (error) {
    throw engineFailure(error, subject);
  } finally {
    clearTimeout(late);
    await removeContainer(docker, name);
  }
}
