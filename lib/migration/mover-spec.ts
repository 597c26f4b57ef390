// The container spec of the mover.

import type { Docker } from "../docker/docker.ts";
import { bind, serviceSpec, volumeMount } from "../instance/container-spec.ts";
import type { Instance } from "../instance/instance.ts";
import { insideMover } from "./mover/places.ts";
import { type PresentVolume } from "./parts.ts";

/** A mover with HAL9000_HOME and these volumes. */
export function moverSpec(
  { prefix, hostHome, settings }: Pick<
    Instance,
    "prefix" | "hostHome" | "settings"
  >,
  volumes: PresentVolume[],
  readOnly: boolean,
): Docker.ContainerCreateOptions {
  const home = bind(hostHome.home, insideMover.home);
  const spec = serviceSpec({ prefix, hostHome }, {
    role: "helper",
    image: `${settings.HAL9000_IMAGE_REPO}:parent`,
    command: ["/scripts/mover"],
    user: "0:0",
    rights: {
      AutoRemove: true,
      // To read, write and chown files of any user, with all modes.
      CapAdd: readOnly
        ? ["DAC_READ_SEARCH"]
        : ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
      LogConfig: { Type: "none", Config: {} },
      Mounts: [
        home,
        ...volumes.map(({ name, volume }) =>
          volumeMount(volume, `${insideMover.volumes}/${name}`)
        ),
      ].map((mount) => ({ ...mount, ReadOnly: readOnly })),
    },
  });
  return { ...spec, OpenStdin: true, StdinOnce: true };
}
