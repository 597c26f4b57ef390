// Limits of the egress proxy, for each worker and in all.

export interface Bounds {
  /** Open connections of all workers. Each has two buffers of up to 64 KiB. */
  connections: number;
  /** Open connections of one worker. */
  perWorker: number;
  /** Size of a request's head. */
  headBytes: number;
  /** Time to receive the head of a request. */
  headMs: number;
  /** A connection without traffic is closed after this time. */
  idleMs: number;
  /** How long a new worker may be unknown. */
  unknownMs: number;
  /** Time to resolve a name. */
  lookupMs: number;
  /** Time to connect to an address. */
  connectMs: number;
  /** Entries in the log that a worker can cause at once, and per second. */
  entries: number;
  entriesPerSecond: number;
}

export const defaultBounds: Bounds = {
  connections: 1024,
  perWorker: 128,
  headBytes: 16 * 1024,
  headMs: 10_000,
  // Claude's API sends pings; git and ssh may be silent while a server works.
  idleMs: 15 * 60_000,
  unknownMs: 2000,
  lookupMs: 10_000,
  connectMs: 10_000,
  entries: 100,
  entriesPerSecond: 5,
};
