// Listens on ports inside workers' network namespaces, and passes what is sent there,
// unread, to the unix sockets of services.

import { serviceUsers } from "../../instance/service-users.ts";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { originHeader } from "../../std/origin.ts";
import type { Service } from "../../worker/network.ts";
import { actAs, closeDescriptor, openPath } from "./calls.ts";
import { type ContainerProcess, openNamespace, within } from "./namespaces.ts";
import {
  bufferBytes,
  close,
  type Connection,
  copy,
  hasRoom,
  hasSharedRoom,
  join,
  type Passing,
  writeAll,
} from "./passing.ts";

/** Of TCP: passes small pieces on at once, as they come. */
interface TcpConnection extends Connection {
  setNoDelay(): void;
}

export interface Accepting<C extends Connection> extends AsyncIterable<C> {
  close(): void;
}

interface TcpAddress {
  hostname: string;
  port: number;
  reusePort?: boolean;
}

interface UnixAddress {
  transport: "unix";
  path: string;
}

/** Not Node's: its calls open sockets later, when this thread is back where it belongs. */
declare const Deno: {
  listen(options: TcpAddress): Accepting<TcpConnection>;
  listen(options: UnixAddress): Accepting<Connection>;
  connect(options: TcpAddress): Promise<TcpConnection>;
  connect(options: UnixAddress): Promise<Connection>;
  errors: Record<"AddrInUse", new () => Error>;
};

const localhost = "127.0.0.1";

export interface OpenRequest extends ContainerProcess {
  /** The container's id. */
  id: string;
  services: Service[];
  /** Whether several workers use its network, so that a connection has no origin. */
  shared: boolean;
}

interface Port {
  service: Service;
  listener: Accepting<TcpConnection>;
  passing: Set<Passing>;
}

interface Opened extends ContainerProcess {
  shared: boolean;
  namespace: number;
  ports: Map<number, Port>;
  /** Ports that were not free. */
  taken: number[];
}

/** What is open in the shared network. */
export interface SharedStatus {
  open: number[];
  /** Ports that a process in a worker occupies. */
  taken: number[];
  /** Whether an ephemeral port is left for a new connection. */
  portsLeft: boolean;
}

/** One per process, because it switches the network namespace of the thread. */
export class Listeners {
  readonly #own = openPath("/proc/self/ns/net", "namespace");
  readonly #opened = new Map<string, Opened>();
  readonly #log: Log;
  readonly #socketOf: (service: Service) => string;
  /** Connections of isolated workers. */
  #connections = 0;

  /** `socketOf` is the path of a service's socket. */
  constructor(socketOf: (service: Service) => string, log: Log) {
    this.#socketOf = socketOf;
    this.#log = log;
  }

  /** Throws if the kernel or a security policy does not allow to enter a container. */
  test(other: ContainerProcess): void {
    const namespace = openNamespace(other, "network");
    try {
      within("network", namespace, this.#own, () => asPortsUser(() => {}));
    } finally {
      closeDescriptor(namespace);
    }
  }

  /**
   * Opens exactly these services in a container. Idempotent. Returns the ports that a
   * process there occupies.
   */
  open({ id, pid, mark, services, shared }: OpenRequest): number[] {
    let present = this.#opened.get(id);
    if (
      present?.pid !== pid || present.mark !== mark || present.shared !== shared
    ) {
      this.close(id);
      const namespace = openNamespace({ pid, mark }, "network");
      present = {
        pid,
        mark,
        shared,
        namespace,
        ports: new Map(),
        taken: [],
      };
      this.#opened.set(id, present);
    }
    for (const [number, { listener }] of present.ports) {
      if (services.some(({ port }) => port === number)) continue;
      listener.close();
      present.ports.delete(number);
    }
    present.taken = services
      .filter((service) => !this.#listen(id, present, service))
      .map(({ port }) => port);
    return present.taken;
  }

  #listen(id: string, opened: Opened, service: Service): boolean {
    const present = opened.ports.get(service.port);
    if (present) {
      present.service = service;
      return true;
    }
    const address = { hostname: localhost, port: service.port };
    try {
      const listener = within(
        "network",
        opened.namespace,
        this.#own,
        // The net container reserves the shared network's ports for that user.
        () =>
          opened.shared
            ? asPortsUser(() => Deno.listen({ ...address, reusePort: true }))
            : Deno.listen(address),
      );
      const port = { service, listener, passing: new Set<Passing>() };
      opened.ports.set(service.port, port);
      void this.#accept(id, opened, port);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return false;
      throw error;
    }
  }

  async #accept(id: string, opened: Opened, port: Port): Promise<void> {
    const { ports, shared } = opened;
    try {
      for await (const client of port.listener) {
        const has = shared
          ? hasSharedRoom(port, [...ports.values()])
          : hasRoom([...ports.values()], this.#connections);
        if (has) void this.#pass(shared ? null : id, port, client);
        else client.close();
      }
    } catch (error) {
      this.#log(`Port ${port.service.port} was closed: ${messageOf(error)}`);
    } finally {
      // The next open() listens anew.
      close(port.listener);
      const { port: number } = port.service;
      if (ports.get(number) === port) ports.delete(number);
    }
  }

  async #pass(
    origin: string | null,
    { service, passing }: Port,
    client: TcpConnection,
  ): Promise<void> {
    const connection: Passing = { client, isOver: false };
    passing.add(connection);
    if (origin !== null) this.#connections++;
    try {
      client.setNoDelay();
      const path = this.#socketOf(service);
      const to = await Deno.connect({ transport: "unix", path });
      connection.service = to;
      // The gateway knows workers by what they send.
      if (service.server === undefined) {
        await writeAll(to, originHeader(origin));
      }
      await join(client, to, () => connection.isOver = true);
    } catch {
      // The service does not run, or either side has left.
    } finally {
      passing.delete(connection);
      if (origin !== null) this.#connections--;
      close(client);
      close(connection.service);
    }
  }

  /** Serves a socket whose clients name a container and a port there, see readTarget(). */
  async serve(path: string): Promise<void> {
    for await (const client of Deno.listen({ transport: "unix", path })) {
      void this.#serveClient(client);
    }
  }

  async #serveClient(client: Connection): Promise<void> {
    let worker: TcpConnection | undefined;
    try {
      const { id, port, rest } = await readTarget(client);
      worker = await this.#connect(id, port);
      worker.setNoDelay();
      await writeAll(worker, rest);
      await Promise.all([copy(client, worker), copy(worker, client)]);
    } catch {
      // It names no open container, or nothing listens there.
    } finally {
      close(client);
      close(worker);
    }
  }

  #connect(id: string, port: number): Promise<TcpConnection> {
    const opened = this.#opened.get(id);
    if (!opened) throw new Error("not an open container");
    const connect = () => Deno.connect({ hostname: localhost, port });
    return within("network", opened.namespace, this.#own, connect);
  }

  get shared(): SharedStatus {
    const opened = [...this.#opened.values()].find(({ shared }) => shared);
    if (!opened) return { open: [], taken: [], portsLeft: true };
    const { ports, taken, namespace } = opened;
    return {
      open: [...ports.keys()],
      taken,
      portsLeft: within("network", namespace, this.#own, arePortsLeft),
    };
  }

  /** Closes what was opened in a container that is not one of these. */
  keep(ids: string[]): void {
    for (const id of this.#opened.keys()) if (!ids.includes(id)) this.close(id);
  }

  /** Also frees the namespace, which would stay as long as it is open here. */
  close(id: string): void {
    const opened = this.#opened.get(id);
    if (!opened) return;
    this.#opened.delete(id);
    for (const { listener, passing } of opened.ports.values()) {
      listener.close();
      for (const { client, service } of passing) {
        close(client);
        close(service);
      }
    }
    closeDescriptor(opened.namespace);
  }
}

/** Sockets that `act` opens belong to the user of the services' ports. */
function asPortsUser<T>(act: () => T): T {
  try {
    actAs(serviceUsers.ports);
    return act();
  } finally {
    actAs(0);
  }
}

/** A worker can bind all ephemeral ports; then no process can connect. */
function arePortsLeft(): boolean {
  try {
    Deno.listen({ hostname: localhost, port: 0 }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return false;
    throw error;
  }
}

/** The first line of a client: the container's id, a space, and the port. */
async function readTarget(
  client: Connection,
): Promise<{ id: string; port: number; rest: Uint8Array }> {
  const buffer = new Uint8Array(bufferBytes);
  let filled = 0;
  while (true) {
    const bytes = await client.read(buffer.subarray(filled));
    if (!bytes) throw new Error("no target");
    filled += bytes;
    const end = buffer.subarray(0, filled).indexOf(10);
    if (end < 0) continue;
    const line = new TextDecoder().decode(buffer.subarray(0, end));
    const [id = "", port] = line.split(" ");
    return { id, port: Number(port), rest: buffer.slice(end + 1, filled) };
  }
}
