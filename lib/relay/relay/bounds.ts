// Limits of the relay, for each worker and in all.

export interface Bounds {
  /** Open connections of all workers. */
  connections: number;
  /** Open connections of one isolated worker. */
  perWorker: number;
  /** Size of the head of a request, and of a reply. */
  headBytes: number;
  /** Time for the TLS handshake and the head of a request. */
  headMs: number;
  /** A request without traffic is ended after this time. */
  idleMs: number;
  /** How long a new worker or placeholder may be unknown. */
  unknownMs: number;
  /** Time to connect to the API. */
  connectMs: number;
  /** A body of this size can be sent again after the login was refreshed. */
  keptBytes: number;
  /** Such bodies of all requests. Without room, the client has to send it again. */
  keptBytesOfAll: number;
  /** A stream is read for this time after its client has left. */
  leftMs: number;
  /** The same for a reply that has not begun, or is no stream. */
  leftUnansweredMs: number;
  /** Of a reply, after its client has left. */
  leftBytes: number;
  /** How long a request waits for the login to be refreshed. */
  refreshMs: number;
  /** A login that is newer than this is not refreshed because it is refused. */
  freshMs: number;
  /** Entries in the log that a worker can cause at once, and per second. */
  entries: number;
  entriesPerSecond: number;
}

export const defaultBounds: Bounds = {
  connections: 2048,
  perWorker: 64,
  headBytes: 64 * 1024,
  headMs: 10_000,
  // The CLI's own timeout is 10 minutes.
  idleMs: 15 * 60_000,
  unknownMs: 2000,
  connectMs: 10_000,
  keptBytes: 4 * 1024 ** 2,
  keptBytesOfAll: 128 * 1024 ** 2,
  // The last figures come right after the last text. Whatever the API generates meanwhile
  // is paid for.
  leftMs: 1000,
  leftUnansweredMs: 60_000,
  leftBytes: 16 * 1024 ** 2,
  refreshMs: 20_000,
  // As the parent has it, see home/login.ts.
  freshMs: 10 * 60_000,
  entries: 200,
  entriesPerSecond: 20,
};
