// Passes bytes on between two connections, unread.

/** A connection of Deno. */
export interface Connection {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** For each connection and direction. */
export const bufferBytes = 16 * 1024;

/**
 * Passes on what a client and a service send, until both have ended. `over` is called when the
 * service has. Throws if the client has left.
 */
export async function join(
  client: Connection,
  service: Connection,
  over: () => void,
): Promise<void> {
  const lenient = lenientOf(service);
  await Promise.all([
    copy(client, lenient),
    copy(lenient, client).finally(over),
  ]);
}

/**
 * A service may answer and close before it has read everything. What it does not take is
 * discarded, so that the client can read the answer.
 */
function lenientOf(service: Connection): Connection {
  return {
    read: (buffer) => service.read(buffer).catch(() => null),
    write: (bytes) => service.write(bytes).catch(() => bytes.length),
    closeWrite: () => service.closeWrite().catch(() => {}),
    close: () => service.close(),
  };
}

/** Copies until the end, which it passes on. */
export async function copy(from: Connection, to: Connection): Promise<void> {
  const buffer = new Uint8Array(bufferBytes);
  for (let bytes; (bytes = await from.read(buffer)) !== null;) {
    await writeAll(to, buffer.subarray(0, bytes));
  }
  await to.closeWrite();
}

export async function writeAll(
  to: Connection,
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}

export function close(connection: { close(): void } | undefined): void {
  try {
    connection?.close();
  } catch {
    // It is closed already.
  }
}

export interface Passing {
  client: Connection;
  service?: Connection;
  /** The service has closed it; the worker has not. */
  isOver: boolean;
}

/** The connections at a port. */
export type AtPort = { passing: Set<Passing> };

/**
 * Connections of one isolated worker, of all of them, at each port of the shared network, and
 * at all of its ports: more would take too much memory. The services close idle connections
 * of the shared network before they have as many as a port.
 */
export const maxConnections = {
  ofWorker: 128,
  ofAll: 4096,
  ofSharedPort: 1024 + 128,
  ofShared: 2 * (1024 + 128),
};

/**
 * Whether an isolated worker, with these ports, can have another connection, when all have
 * `ofAll`. Closes a connection for that, if a service is done with it.
 */
export function hasRoom(ports: AtPort[], ofAll: number): boolean {
  const isFull = sizeOf(ports) >= maxConnections.ofWorker ||
    ofAll >= maxConnections.ofAll;
  return !isFull || closeOver(ports);
}

/**
 * The same for a port of the shared network. If the network has too many, closes the oldest at
 * the port that has the most: clients of one service cannot lock out those of another.
 */
export function hasSharedRoom(port: AtPort, ports: AtPort[]): boolean {
  if (port.passing.size >= maxConnections.ofSharedPort) {
    return closeOver([port]);
  }
  if (sizeOf(ports) < maxConnections.ofShared || closeOver(ports)) return true;
  const most = ports.reduce((a, b) => b.passing.size > a.passing.size ? b : a);
  const [oldest] = most.passing;
  if (!oldest || most.passing.size <= port.passing.size) return false;
  drop(most, oldest);
  return true;
}

function sizeOf(ports: AtPort[]): number {
  return ports.reduce((sum, { passing }) => sum + passing.size, 0);
}

function closeOver(ports: AtPort[]): boolean {
  for (const port of ports) {
    const over = [...port.passing].find(({ isOver }) => isOver);
    if (!over) continue;
    drop(port, over);
    return true;
  }
  return false;
}

function drop({ passing }: AtPort, one: Passing): void {
  passing.delete(one);
  close(one.client);
  close(one.service);
}
