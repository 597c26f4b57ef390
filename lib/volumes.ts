// HAL9000_HOME's directories and the instance's volumes.

import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname } from "node:path";
import { confTemplate } from "./config.ts";
import { inspectVolume } from "./docker.ts";
import { Failure } from "./errors.ts";
import type { Instance } from "./instance.ts";
import { label } from "./labels.ts";
import { systemDirectories } from "./project.ts";
import { ensureDirectory, writeWhole } from "./owned.ts";
import { homeDirectories } from "./paths.ts";

/** Makes what is missing. Twice changes nothing. */
export async function ensureStorage(instance: Instance): Promise<void> {
  ensureHome(instance);
  const { home, owner } = instance;
  if (!existsSync(home.conf)) writeWhole(home.conf, confTemplate(), owner);
  await ensureVolumes(instance);
}

export function ensureHome({ home, owner, prefix }: Instance): void {
  if (home.home === homedir() || systemDirectories.includes(home.home)) {
    throw new Failure("unsafe", `${home.home} cannot be HAL9000_HOME`, {
      hint: "Give it a directory of its own, such as ~/.hal9000.",
    });
  }
  mkdirSync(dirname(home.home), { recursive: true });
  for (const directory of homeDirectories(home)) {
    // Workers read the shared settings whoever owns their project; the home
    // above keeps everyone else out.
    const mode = directory === home.claudeConfig ? 0o755 : 0o700;
    ensureDirectory(directory, mode, owner);
  }
  claimHome({ home, owner, prefix });
}

/**
 * One home serves one instance: two would take each other's records and the
 * word of the other's parent for their own.
 */
export function claimHome(
  { home, owner, prefix }: Pick<Instance, "home" | "owner" | "prefix">,
): void {
  if (!existsSync(home.instance)) {
    writeWhole(home.instance, `${prefix}\n`, owner);
    return;
  }
  const other = readFileSync(home.instance, "utf8").trim();
  if (other === prefix) return;
  throw new Failure("busy", `${home.home} belongs to instance "${other}"`, {
    hint: `Give "${prefix}" a home of its own: HAL9000_HOME=DIR`,
  });
}

async function ensureVolumes(instance: Instance): Promise<void> {
  const { docker, names, prefix, hostHome } = instance;
  for (const [kind, name] of Object.entries(names.volumes)) {
    if (!await inspectVolume(docker, name)) {
      await docker.createVolume({
        Name: name,
        Labels: { [label.instance]: prefix },
        // Host MCP servers and containers see the same memory bank.
        ...(kind === "memorybank"
          ? {
            DriverOpts: {
              type: "none",
              o: "bind",
              device: hostHome.memorybank,
            },
          }
          : {}),
      });
    }
  }
}
