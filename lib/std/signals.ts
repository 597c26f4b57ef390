// Handles signals that end a command, if it has to clean up first.

import process from "node:process";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Replaces all signal listeners by `act`; returns a function that restores them. */
export function interceptSignals(
  act: (signal: NodeJS.Signals) => void,
): () => void {
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
