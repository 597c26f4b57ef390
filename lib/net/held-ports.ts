// Reserves the ports of services in the workers' namespace: binds them, but never
// listens. Services come and go; meanwhile, only the service user can listen on
// these ports.

import * as v from "valibot";
import { bindPort, closePort } from "./bind-call.ts";
import { type Bound } from "./bind-call.ts";
import { listen, type Listener } from "../std/socket-lines.ts";

/** In the net container, which no other process of the project enters. */
export const holderSocket = "/tmp/ports.sock";

export const holdRequest = v.object({ ports: v.array(v.number()) });

export interface HeldReport {
  held: number[];
  /** Ports that another process occupies. */
  taken: number[];
}

/** Binds and releases a port; replaced in tests. */
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

  /** Holds exactly these ports. */
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
    // `localhost` may also be ::1, if the namespace has that address.
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

/** Holds `ports`, then the ports of each request. */
export async function serveHolder(ports: number[]): Promise<Listener> {
  const holder = new HeldPorts();
  holder.hold(ports);
  return await listen(
    holderSocket,
    (request) =>
      Promise.resolve(holder.hold(v.parse(holdRequest, request).ports)),
  );
}
