// Where things lie under HAL9000_HOME.

import { join } from "node:path";

export type HomePaths = ReturnType<typeof homePaths>;

export function homePaths(home: string) {
  return {
    home,
    config: join(home, "config"),
    claudeConfig: join(home, "config", "claude"),
    sessions: join(home, "sessions"),
    record: (worker: string) => join(home, "sessions", `${worker}.json`),
    workers: join(home, "workers"),
    workerHome: (directory: string) => join(home, "workers", directory),
    run: join(home, "run"),
    /** What the parent says of itself: phases, children. */
    parentState: join(home, "run", "parent.json"),
    /** passwd and group files for one user of the workers. */
    accounts: (uid: number, gid: number) =>
      join(home, "run", "accounts", `${uid}-${gid}`),
    logs: join(home, "logs"),
    log: (worker: string) => join(home, "logs", `${worker}.log`),
    memorybank: join(home, "memorybank"),
  };
}

/** Every directory that an instance has from its first day, parents first. */
export function homeDirectories(paths: HomePaths): string[] {
  const { home } = paths;
  return [
    home,
    paths.config,
    paths.claudeConfig,
    paths.sessions,
    join(home, "claude"),
    paths.workers,
    join(home, "pool"),
    paths.run,
    join(home, "run", "accounts"),
    paths.logs,
    join(home, "secrets"),
    paths.memorybank,
    join(home, "backups"),
  ];
}
