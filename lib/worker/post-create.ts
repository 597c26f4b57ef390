// Runs the postCreateCommand of a devcontainer in a new worker. The image carries it: the
// user has approved it together with what the image is built from.

import * as v from "valibot";
import { type Docker, inspectImage } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { messageOf } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { printable } from "../std/text.ts";
import { duration } from "../std/units.ts";

const commandsSchema = v.array(v.array(v.string()));

/** In the worker; gone with it, as is what the commands install outside of the project. */
const logFile = "/tmp/hal9000-post-create.log";

const shownLines = 10;
const maxLineLength = 500;

/** Installing packages takes minutes; more than this is a command that never ends. */
const timeoutMs = 30 * 60_000;

/** The commands of an image that the instance has built for this project. */
export function postCreateOf(
  image: Docker.ImageInspectInfo | undefined,
  project: string,
): string[][] {
  const labels = image?.Config?.Labels ?? {};
  // Images that are built on such an image inherit its labels.
  if (labels[label.inputs] === undefined) return [];
  if (labels[label.devcontainer] !== project) return [];
  return parseJson(commandsSchema, labels[label.postCreate]) ?? [];
}

/**
 * Runs the commands one after the other, up to the first that fails. A failure is only
 * logged: the worker can be used, and its user can see what went wrong.
 */
export async function runPostCreate(
  { docker }: Pick<Instance, "docker">,
  { id, name, project, image }: {
    id: string;
    name: string;
    project: string;
    image: string;
  },
  log: Log,
): Promise<void> {
  const commands = postCreateOf(await inspectImage(docker, image), project);
  if (commands.length === 0) return;
  // Loaded lazily: most workers have no such command.
  const { shownCommand } = await import("../project/devcontainer.ts");
  for (const command of commands) {
    const since = performance.now();
    const shown = printable(shownCommand(command));
    log(`Running postCreateCommand: ${shown}`);
    try {
      const { exitCode, output } = await execIn(
        docker,
        id,
        ["/bin/sh", "-c", script, "sh", ...command],
        { timeoutMs },
      );
      if (exitCode !== 0) {
        log(`warning: postCreateCommand failed with ${exitCode}: ${shown}`);
        output.trimEnd().split("\n").slice(-shownLines)
          .forEach((line) => log(printable(line.slice(0, maxLineLength))));
        log(`The whole log: docker exec ${name} cat ${logFile}`);
        return;
      }
    } catch (error) {
      log(`warning: postCreateCommand failed: ${messageOf(error)}`);
      return;
    }
    log(`postCreateCommand: ${duration(performance.now() - since)}`);
  }
}

/** The output goes to a file, because it may be long; the last lines are shown. */
const script = `"$@" >>${logFile} 2>&1 </dev/null
code=$?
[ $code = 0 ] || tail -n ${shownLines} ${logFile}
exit $code`;
