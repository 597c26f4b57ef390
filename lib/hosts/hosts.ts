// Other machines whose sessions are shown and used from here. See ADR 50.

import { existsSync, rmSync } from "node:fs";
import * as v from "valibot";
import { type SshTarget, sshTarget } from "../docker/endpoint.ts";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { ensureHome } from "../instance/volumes.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { didYouMean } from "../std/nearest.ts";
import { writeAtomic } from "../std/owned.ts";
import { plainText } from "../std/plain-file.ts";

export const hostSchema = v.object({
  name: v.string(),
  /** ssh://USER@MACHINE:PORT */
  url: v.string(),
  /** HAL9000_HOME there; null for its default. */
  home: v.nullable(v.string()),
  /** The path of claudy there; null while it is not installed. */
  program: v.nullable(v.string()),
});

export type Host = v.InferOutput<typeof hostSchema>;

const fileSchema = v.object({
  version: v.literal(1),
  hosts: v.array(hostSchema),
});

const maxBytes = 1024 ** 2;

type Home = Pick<Instance, "home" | "owner" | "prefix">;

/** Throws a `failed` Failure if the file is damaged. */
export function readHosts({ hosts: path }: HomePaths): Host[] {
  if (!existsSync(path)) return [];
  const file = parseJson(fileSchema, plainText(path, { maxBytes }));
  if (file) return file.hosts;
  throw new Failure("failed", `Cannot read the hosts in ${path}`, {
    hint: "Correct the file, or remove it and add the hosts again.",
  });
}

/** Throws a `notFound` Failure that suggests the most similar name. */
export function requireHost({ home }: Pick<Home, "home">, name: string): Host {
  const hosts = readHosts(home);
  const host = hosts.find((host) => host.name === name);
  if (host) return host;
  throw new Failure("notFound", `There is no host "${name}"`, {
    hint: `${didYouMean(name, hosts.map(({ name }) => name))}` +
      "Add it: claudy host add NAME ssh://USER@MACHINE",
  });
}

/** Adds a host, or replaces the one of the same name. */
export function saveHost(instance: Home, host: Host): void {
  const others = readHosts(instance.home)
    .filter(({ name }) => name !== host.name);
  write(instance, [...others, host]);
}

export function removeHost(instance: Home, name: string): void {
  requireHost(instance, name);
  write(instance, readHosts(instance.home).filter((one) => one.name !== name));
  rmSync(instance.home.hostSeen(name), { force: true });
}

function write(instance: Home, hosts: Host[]): void {
  ensureHome(instance);
  const text = `${JSON.stringify({ version: 1, hosts }, null, 2)}\n`;
  writeAtomic(instance.home.hosts, text, instance.owner);
}

/** Words that mean something else where a host is named. */
const reserved = ["any", "local", "all"];

export function checkHostName(name: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,30}$/.test(name) && !reserved.includes(name)) {
    return name;
  }
  throw new Failure("usage", `Cannot use "${name}" as the name of a host`, {
    hint: "Use up to 31 lowercase letters, digits and dashes, but not " +
      `${reserved.join(", ")}.`,
  });
}

/** Throws a `usage` Failure for an address that is not valid. */
export function targetOf({ name, url }: Pick<Host, "name" | "url">): SshTarget {
  const fail = () =>
    new Failure("usage", `Cannot use the address of host "${name}"`, {
      hint: "Write it as ssh://USER@MACHINE:PORT, without a password.",
    });
  let target;
  try {
    target = sshTarget({ host: url, from: "DOCKER_HOST" });
  } catch {
    throw fail();
  }
  // ssh would read a destination that begins with a dash as an option.
  if (!target || target.socket !== "" || /^-/.test(target.destination)) {
    throw fail();
  }
  return target;
}
