// What tells a command to end, where it has something to do before it does.

import process from "node:process";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Has `act` called in place of what listened; gives what puts that back. */
export function takeSignals(act: (signal: NodeJS.Signals) => void): () => void {
  const listeners = signals.map((signal) =>
    [signal, process.listeners(signal)] as const
  );
  for (const signal of signals) {
    process.removeAllListeners(signal);
    process.on(signal, act);
  }
  return () => {
    for (const [signal, former] of listeners) {
      process.off(signal, act);
      for (const listener of former) process.on(signal, listener);
    }
  };
}
