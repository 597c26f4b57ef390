// Checks the names of workers.

import { Failure } from "../std/errors.ts";
import type { instanceNames } from "../instance/labels.ts";

/** Docker's rule, but with a letter first: cac parses `-n 007` as the number 7. */
const namePattern = /^[a-zA-Z][a-zA-Z0-9_.-]{1,62}$/;

/** Throws a `usage` Failure for a name that is invalid or reserved by the instance. */
export function checkWorkerName(
  name: unknown,
  names: ReturnType<typeof instanceNames>,
): string {
  if (typeof name === "string" && namePattern.test(name)) {
    const reserved = [
      names.net,
      names.parent,
      names.formerParent,
      names.nsenter,
      names.formerForwarder,
    ].includes(name) ||
      isGenerated(name, names);
    if (!reserved) return name;
    throw new Failure("usage", `Worker name "${name}" is reserved`, {
      hint: "The instance uses names of this form. Choose another name.",
    });
  }
  throw new Failure("usage", `Invalid name "${name}"`, {
    hint: "Use a letter, then letters, digits, dots, dashes and underscores; " +
      "2 to 63 characters.",
  });
}

/** Whether the name has the form of a generated name. */
function isGenerated(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  const id = idSuffix(name);
  return [names.worker(id), names.warm(id)].includes(name);
}

/** Whether the name belongs to an unclaimed warm worker. */
export function isWarmName(
  name: string,
  names: ReturnType<typeof instanceNames>,
): boolean {
  return names.warm(idSuffix(name)) === name;
}

function idSuffix(name: string): string {
  return /[0-9a-f]{8}$/.exec(name)?.[0] ?? "";
}
