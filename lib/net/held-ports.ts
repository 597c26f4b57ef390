// The ports of services in the workers' namespace, held by the process that the
// namespace lives with: bound, and never listened on. Services come and go; only the
// service user can listen there in the meantime.

import * as v from "valibot";
import { bindPort, closePort } from "./bind-call.ts";
import { type Bound } from "./bind-call.ts";
import { listen, type Listener } from "../std/socket-lines.ts";

/** In the net container, which nothing else of ours enters. */
export const holderSocket = "/tmp/ports.sock";

export const holdRequest = v.object({ ports: v.array(v.number()) });

export interface HeldReport {
  held: number[];
  /** Somebody else has them. */
  taken: number[];
}

/** How a port is bound and given back; a test passes its own. */
export interface PortCalls {
  bind(address: "127.0.0.1" | "::1", port: number): Bound;
  close(fd: number): void;
}

export class HeldPorts {
  readonly #calls: PortCalls;
  readonly #open = new Map<number, number[]>();

  constructor(calls: PortCalls = { bind: bindPort, close: closePort }) {
    this.#calls = calls;
  }

  /** Holds these ports and no others. */
  hold(ports: number[]): HeldReport {
    for (const [port, fds] of this.#open) {
      if (ports.includes(port)) continue;
      for (const fd of fds) this.#calls.close(fd);
      this.#open.delete(port);
    }
    for (const port of ports) {
      if (!this.#open.has(port)) this.#take(port);
    }
    return {
      held: ports.filter((port) => this.#open.has(port)),
      taken: ports.filter((port) => !this.#open.has(port)),
    };
  }

  #take(port: number): void {
    const first = this.#calls.bind("127.0.0.1", port);
    if (!("fd" in first)) return;
    // `localhost` may be ::1 as well, where the namespace has that address.
    const second = this.#calls.bind("::1", port);
    if ("fd" in second) {
      this.#open.set(port, [first.fd, second.fd]);
    } else if (second.code === "EADDRINUSE") {
      this.#calls.close(first.fd);
    } else {
      this.#open.set(port, [first.fd]);
    }
  }
}

/** Holds `ports`, then whichever it is asked to. */
export async function serveHolder(ports: number[]): Promise<Listener> {
  const holder = new HeldPorts();
  holder.hold(ports);
  return await listen(
    holderSocket,
    (request) =>
      Promise.resolve(holder.hold(v.parse(holdRequest, request).ports)),
  );
}
