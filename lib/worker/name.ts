// Names of workers.

import { Failure } from "../std/errors.ts";
import type { instanceNames } from "../instance/labels.ts";

/** Docker's own rule, but a letter first: `-n 007` would arrive as the number 7. */
const namePattern = /^[a-zA-Z][a-zA-Z0-9_.-]{1,62}$/;

/** Throws a `usage` Failure for an invalid name, or one that the instance uses itself. */
export function checkWorkerName(
  name: unknown,
  names: ReturnType<typeof instanceNames>,
): string {
  if (typeof name === "string" && namePattern.test(name)) {
    const own = [names.net, names.parent, names.mounter, names.forwarder]
      .includes(name) ||
      isMadeUp(name, names);
    if (!own) return name;
    throw new Failure("usage", `"${name}" is not for a worker`, {
      hint: "Names like it are the instance's own; choose another.",
    });
  }
  throw new Failure("usage", `"${name}" is not a name for a worker`, {
    hint: "A letter, then letters, digits, dots, dashes and underscores; " +
      "2 to 63 characters.",
  });
}

/** Whether the name has the form of a generated one. */
function isMadeUp(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  const id = idIn(name);
  return [names.worker(id), names.warm(id)].includes(name);
}

/** Whether the name is that of an unclaimed warm worker. */
export function isWarmName(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  return names.warm(idIn(name)) === name;
}

function idIn(name: string): string {
  return /[0-9a-f]{8}$/.exec(name)?.[0] ?? "";
}
