// A short-lived container that looks at a path of the host which the parent
// does not see.

import * as v from "valibot";
import { createContainer, removeContainer } from "./docker.ts";
import { engineFailure } from "./docker-errors.ts";
import { messageOf } from "./errors.ts";
import { type HostPath, hostPathSchema } from "./hostpath.ts";
import type { Instance } from "./instance.ts";
import { roleLabels } from "./labels.ts";
import { hostMount } from "./paths.ts";
import { withoutFrames } from "./streams.ts";

/** What the helper prints: the facts, or the code of the error. */
export const lookSchema = v.union([
  hostPathSchema,
  v.object({ code: v.string(), message: v.string() }),
]);

/** What is at a host path. Throws an error with the code that lstat gave. */
export async function lookFromHelper(
  instance: Instance,
  path: string,
): Promise<HostPath> {
  const { docker, prefix, self } = instance;
  const name = `${prefix}-helper-${crypto.randomUUID().slice(0, 8)}`;
  try {
    const container = await createContainer(docker, name, {
      Image: self?.ImageID ?? "",
      Entrypoint: ["/scripts/look-at-path"],
      Cmd: [path],
      Env: ["DENO_DIR=/tmp/deno"],
      Labels: roleLabels(prefix, "helper", instance.hostHome.home),
      HostConfig: {
        NetworkMode: "none",
        CapDrop: ["ALL"],
        CapAdd: ["DAC_READ_SEARCH"],
        SecurityOpt: ["no-new-privileges"],
        Mounts: [
          { Type: "bind", Source: "/", Target: hostMount, ReadOnly: true },
        ],
      },
    });
    await container.start();
    await container.wait();
    const log = await container.logs({ stdout: true, stderr: true });
    const text = new TextDecoder().decode(withoutFrames(log));
    const result = v.parse(lookSchema, JSON.parse(text));
    if ("code" in result) {
      throw Object.assign(new Error(result.message), { code: result.code });
    }
    return result;
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code === "string") throw error;
    throw engineFailure(
      error,
      `Cannot look at "${path}" (${messageOf(error)})`,
    );
  } finally {
    await removeContainer(docker, name);
  }
}
