// What all containers of an instance have in common: no rights but those that are named.

import type { Docker } from "../docker/docker.ts";
import { type Role, roleLabels } from "./labels.ts";

/** Of what runs a worker's programs, or ours. `security` comes on top. */
export function hardening(security: string[] = []) {
  return {
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges", ...security],
  };
}

interface Whose {
  prefix: string;
  /** HAL9000_HOME, as the engine knows it. */
  hostHome: { home: string };
}

/** The same for the docker command, with the labels of a helper. */
export function hardenedFlags(
  { prefix, hostHome }: Whose,
): string[] {
  const { CapDrop, SecurityOpt } = hardening();
  const labels = Object.entries(roleLabels(prefix, "helper", hostHome.home));
  return [
    ...labels.map(([key, value]) => `--label=${key}=${value}`),
    ...CapDrop.map((name) => `--cap-drop=${name}`),
    ...SecurityOpt.map((option) => `--security-opt=${option}`),
  ];
}

export interface Service {
  role: Role;
  image: string;
  /** The program, then its arguments. */
  command: [program: string, ...args: string[]];
  user?: string | undefined;
  env?: string[];
  memoryBytes?: number;
  security?: string[];
  /** What it may do and see besides nothing. */
  rights?: Docker.HostConfig;
}

/** A program of ours in the parent's image: nothing of it is written but /tmp. */
export function serviceSpec(
  { prefix, hostHome }: Whose,
  service: Service,
): Docker.ContainerCreateOptions {
  const { role, image, command: [program, ...args], user } = service;
  const { memoryBytes } = service;
  return {
    Image: image,
    Entrypoint: [program],
    Cmd: args,
    ...(user === undefined ? {} : { User: user }),
    Env: ["DENO_DIR=/tmp/deno", ...service.env ?? []],
    // The image's is the parent's.
    Healthcheck: { Test: ["NONE"] },
    Labels: roleLabels(prefix, role, hostHome.home),
    HostConfig: {
      Init: true,
      NetworkMode: "none",
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev,size=64m" },
      ...hardening(service.security),
      ...(memoryBytes === undefined
        ? {}
        : { Memory: memoryBytes, MemorySwap: memoryBytes, PidsLimit: 64 }),
      LogConfig: { Type: "json-file", Config: { "max-size": "1m" } },
      ...service.rights,
    },
  };
}

export function bind(
  source: string,
  target: string,
  readOnly = false,
): Docker.MountSettings {
  return { Type: "bind", Source: source, Target: target, ReadOnly: readOnly };
}

/** A volume. Docker does not copy files of the image into it. */
export function volumeMount(
  name: string,
  target: string,
): Docker.MountSettings {
  return {
    Type: "volume",
    Source: name,
    Target: target,
    VolumeOptions: {
      NoCopy: true,
      Labels: {},
      DriverConfig: { Name: "", Options: {} },
    },
  };
}
