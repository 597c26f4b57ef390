// Runs commands as root, with sudo if necessary but without a password prompt.

import process from "node:process";
import { $ } from "zx/core";
import { Failure } from "../std/errors.ts";

/** Runs a shell script as root with arguments; fails if sudo needs a password. */
export async function asRoot(
  script: string,
  ...args: string[]
): Promise<string> {
  const sudo = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
  const run = await $({ quiet: true })`${sudo} sh -ec ${script} sh ${args}`;
  return run.stdout;
}

/** Installs Debian packages without showing the output. */
export async function aptInstall(packages: string[]): Promise<void> {
  // The archive may fail for a moment.
  const apt = "apt-get -o Acquire::Retries=3";
  const install = `${apt} install --yes --no-install-recommends ${
    packages.join(" ")
  }`;
  try {
    await asRoot(
      `export DEBIAN_FRONTEND=noninteractive; ${apt} update && ${install}`,
    );
  } catch (error) {
    throw new Failure("failed", `Cannot install ${packages.join(", ")}`, {
      cause: error,
      hint: `See why: sudo ${install}`,
    });
  }
}
