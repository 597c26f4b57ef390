// The common spec of an instance's containers: no privileges except those listed.

import type { Docker } from "../docker/docker.ts";
import { type Role, roleLabels } from "./labels.ts";

/** The security options of all containers, and the additional options in `security`. */
export function hardening(security: string[] = []) {
  return {
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges", ...security],
  };
}

interface OwningInstance {
  prefix: string;
  /** HAL9000_HOME as a path of the engine's machine. */
  hostHome: { home: string };
}

/** The security options and a helper's labels as flags of `docker run`. */
export function hardenedFlags(
  { prefix, hostHome }: OwningInstance,
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
  /** The program and its arguments. */
  command: [program: string, ...args: string[]];
  user?: string | undefined;
  env?: string[];
  memoryBytes?: number;
  security?: string[];
  /** Additional capabilities, mounts and namespaces; none by default. */
  rights?: Docker.HostConfig;
}

/** The spec of a HAL-9000 program in the parent's image; only /tmp and /run are writable. */
export function serviceSpec(
  { prefix, hostHome }: OwningInstance,
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
    // The image's health check is for the parent.
    Healthcheck: { Test: ["NONE"] },
    Labels: roleLabels(prefix, role, hostHome.home),
    HostConfig: {
      // With the host's pid namespace, it would not be the first process.
      Init: service.rights?.PidMode !== "host",
      NetworkMode: "none",
      ReadonlyRootfs: true,
      Tmpfs: {
        "/tmp": "rw,nosuid,nodev,size=64m",
        // Open to other users than root, as Podman puts the init program here.
        "/run": "rw,nosuid,nodev,size=64k,mode=755",
      },
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
