// Users that only services of ours run as. The kernel tells by them whose a socket
// is, so no worker may be one of them.

import { Failure } from "../std/errors.ts";

/** Out of the range that Debian reserves: a directory's owner is hardly one of them. */
export const serviceUsers = {
  /** Holds and serves the ports of services in the workers' namespace. */
  ports: 65_430,
  chromadb: 65_431,
} as const;

/** Throws an `unsafe` Failure where a worker would run as a service does. */
export function refuseServiceUser(path: string, uid: number): void {
  if (!(Object.values(serviceUsers) as number[]).includes(uid)) return;
  throw new Failure(
    "unsafe",
    `${path} belongs to user ${uid}, which HAL-9000's services run as`,
    { hint: `Give it another owner: chown -R USER ${path}` },
  );
}
