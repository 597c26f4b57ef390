// Uids reserved for HAL-9000's services. Sockets are attributed to services by uid, so no
// worker may run with one of these.

import { Failure } from "../std/errors.ts";

/** From a range that Debian reserves, so a project's owner is unlikely to have one. */
export const serviceUsers = {
  /** Serves ChromaDB to workers, and has the ports of services in their network. */
  ports: 65_430,
  chromadb: 65_431,
  egress: 65_432,
  relay: 65_433,
} as const;

/** Throws an `unsafe` Failure if a worker would run with a service's uid. */
export function refuseServiceUser(path: string, uid: number): void {
  if (!(Object.values(serviceUsers) as number[]).includes(uid)) return;
  throw new Failure(
    "unsafe",
    `${path} belongs to user ${uid}, which HAL-9000's services run as`,
    { hint: `Give it another owner: chown -R USER ${path}` },
  );
}
