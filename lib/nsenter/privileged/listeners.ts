// Listens on ports inside isolated workers and passes what is sent there, unread, to the
// unix sockets of services.

import { closeDescriptor, openPath } from "./calls.ts";
import { type ContainerProcess, openNamespace, within } from "./namespaces.ts";
import { originHeader } from "../../std/origin.ts";

interface Connection {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

interface Accepting extends AsyncIterable<Connection> {
  close(): void;
}

type Address = { hostname: string; port: number } | {
  transport: "unix";
  path: string;
};

/** Not Node's: its calls open sockets later, when this thread is back where it belongs. */
declare const Deno: {
  listen(options: Address): Accepting;
  connect(options: Address): Promise<Connection>;
  errors: Record<"AddrInUse", new () => Error>;
};

const localhost = "127.0.0.1";

/** For each connection and direction. */
const bufferBytes = 16 * 1024;

/** Connections of one worker, and of all: more would take too much memory. */
const maxConnections = { ofWorker: 128, ofAll: 4096 };

export interface OpenRequest extends ContainerProcess {
  /** The container's id. */
  id: string;
  ports: number[];
}

interface Opened extends ContainerProcess {
  namespace: number;
  ports: Map<number, Accepting>;
  connections: Set<Connection>;
}

/** One per process, because it switches the network namespace of the thread. */
export class Listeners {
  readonly #own = openPath("/proc/self/ns/net", "namespace");
  readonly #opened = new Map<string, Opened>();
  readonly #socketOf: (port: number) => string;
  #connections = 0;

  /** `socketOf` is the path of the service's socket for a port. */
  constructor(socketOf: (port: number) => string) {
    this.#socketOf = socketOf;
  }

  /** Throws if the kernel or a security policy does not allow to enter a container. */
  test(other: ContainerProcess): void {
    const namespace = openNamespace(other, "network");
    try {
      within("network", namespace, this.#own, () => {});
    } finally {
      closeDescriptor(namespace);
    }
  }

  /**
   * Listens on exactly these ports of a worker. Idempotent. Returns the ports that a
   * process of the worker occupies.
   */
  open({ id, pid, mark, ports }: OpenRequest): number[] {
    let present = this.#opened.get(id);
    if (present?.pid !== pid || present.mark !== mark) {
      this.close(id);
      const namespace = openNamespace({ pid, mark }, "network");
      present = {
        pid,
        mark,
        namespace,
        ports: new Map(),
        connections: new Set(),
      };
      this.#opened.set(id, present);
    }
    for (const [port, listener] of present.ports) {
      if (ports.includes(port)) continue;
      listener.close();
      present.ports.delete(port);
    }
    return ports.filter((port) => !this.#listen(id, present, port));
  }

  #listen(id: string, opened: Opened, port: number): boolean {
    if (opened.ports.has(port)) return true;
    try {
      const listener = within(
        "network",
        opened.namespace,
        this.#own,
        () => Deno.listen({ hostname: localhost, port }),
      );
      opened.ports.set(port, listener);
      void this.#accept(id, opened, port, listener);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return false;
      throw error;
    }
  }

  async #accept(
    id: string,
    opened: Opened,
    port: number,
    listener: Accepting,
  ): Promise<void> {
    try {
      for await (const client of listener) {
        const isFull = opened.connections.size >= maxConnections.ofWorker ||
          this.#connections >= maxConnections.ofAll;
        if (isFull) client.close();
        else void this.#pass(id, opened, port, client);
      }
    } catch {
      // It was closed.
    }
  }

  async #pass(
    id: string,
    opened: Opened,
    port: number,
    client: Connection,
  ): Promise<void> {
    opened.connections.add(client);
    this.#connections++;
    let service: Connection | undefined;
    try {
      const path = this.#socketOf(port);
      service = await Deno.connect({ transport: "unix", path });
      await writeAll(service, originHeader(id));
      await Promise.all([copy(client, service), copy(service, client)]);
    } catch {
      // The service does not run, or either side has left.
    } finally {
      opened.connections.delete(client);
      this.#connections--;
      close(client);
      close(service);
    }
  }

  /** Serves a socket whose clients name a worker and one of its ports, see readTarget(). */
  async serve(path: string): Promise<void> {
    for await (const client of Deno.listen({ transport: "unix", path })) {
      void this.#serveClient(client);
    }
  }

  async #serveClient(client: Connection): Promise<void> {
    let worker: Connection | undefined;
    try {
      const { id, port, rest } = await readTarget(client);
      worker = await this.#connect(id, port);
      await writeAll(worker, rest);
      await Promise.all([copy(client, worker), copy(worker, client)]);
    } catch {
      // It names no open worker, or nothing listens there.
    } finally {
      close(client);
      close(worker);
    }
  }

  #connect(id: string, port: number): Promise<Connection> {
    const opened = this.#opened.get(id);
    if (!opened) throw new Error("not an open worker");
    const connect = () => Deno.connect({ hostname: localhost, port });
    return within("network", opened.namespace, this.#own, connect);
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
    for (const listener of opened.ports.values()) listener.close();
    for (const connection of opened.connections) close(connection);
    closeDescriptor(opened.namespace);
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

/** Copies until the end, which it passes on. */
async function copy(from: Connection, to: Connection): Promise<void> {
  const buffer = new Uint8Array(bufferBytes);
  for (let bytes; (bytes = await from.read(buffer)) !== null;) {
    await writeAll(to, buffer.subarray(0, bytes));
  }
  await to.closeWrite();
}

async function writeAll(to: Connection, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}

function close(connection: Connection | undefined): void {
  try {
    connection?.close();
  } catch {
    // It is closed already.
  }
}
