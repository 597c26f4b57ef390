// The container that the mover is.

import type { Docker } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { roleLabels } from "../instance/labels.ts";
import { volumeMount } from "../worker/worker.ts";
import { insideMover } from "./mover/places.ts";
import { type PresentVolume } from "./parts.ts";

/** One that has HAL9000_HOME and these volumes. */
export function moverSpec(
  { prefix, hostHome, settings }: Pick<
    Instance,
    "prefix" | "hostHome" | "settings"
  >,
  volumes: PresentVolume[],
  readOnly: boolean,
): Docker.ContainerCreateOptions {
  const home: Docker.MountSettings = {
    Type: "bind",
    Source: hostHome.home,
    Target: insideMover.home,
  };
  return {
    Image: `${settings.HAL9000_IMAGE_REPO}:parent`,
    Entrypoint: ["/scripts/mover"],
    Cmd: [],
    User: "0:0",
    Env: ["DENO_DIR=/tmp/deno"],
    OpenStdin: true,
    StdinOnce: true,
    Healthcheck: { Test: ["NONE"] },
    Labels: roleLabels(prefix, "helper", hostHome.home),
    HostConfig: {
      AutoRemove: true,
      Init: true,
      NetworkMode: "none",
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev" },
      CapDrop: ["ALL"],
      // To read, write and give away what is anybody's, with all its modes.
      CapAdd: readOnly
        ? ["DAC_READ_SEARCH"]
        : ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
      SecurityOpt: ["no-new-privileges"],
      LogConfig: { Type: "none", Config: {} },
      Mounts: [
        home,
        ...volumes.map(({ name, volume }) =>
          volumeMount(volume, `${insideMover.volumes}/${name}`)
        ),
      ].map((mount) => ({ ...mount, ReadOnly: readOnly })),
    },
  };
}
