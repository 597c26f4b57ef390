// Where things lie under HAL9000_HOME.

import { createHash } from "node:crypto";
import { join } from "node:path";

export type HomePaths = ReturnType<typeof homePaths>;

/** Below this the parent sees the host's project roots. */
export const hostMount = "/host";

/** Where the parent's image expects what is mounted into it. */
export const insideParent = {
  home: "/root/.hal9000",
  socket: "/var/run/docker.sock",
} as const;

export function homePaths(home: string) {
  return {
    home,
    config: join(home, "config"),
    conf: join(home, "config", "hal9000.conf"),
    claudeConfig: join(home, "config", "claude"),
    mcpConfig: join(home, "config", "mcp.json"),
    /** A socket for each MCP server that workers reach. */
    mcp: join(home, "run", "mcp"),
    mcpSocket: (server: string) => join(home, "run", "mcp", `${server}.sock`),
    /** Where the MCP gateway is asked about itself. */
    mcpControl: join(home, "run", "mcp-gateway.sock"),
    mcpPid: join(home, "run", "mcp-gateway.pid"),
    /** What the tokens of workers are made with. */
    mcpKey: join(home, "secrets", "mcp_key"),
    /** Is there while the gateway is to be. */
    mcpWanted: join(home, "run", "mcp-wanted"),
    mcpLog: (server: string) => join(home, "logs", "mcp", `${server}.log`),
    sessions: join(home, "sessions"),
    record: (worker: string) => join(home, "sessions", `${worker}.json`),
    ended: join(home, "sessions", "ended"),
    /** What stood in the place of a record and was none. */
    damaged: join(home, "sessions", "damaged"),
    claude: join(home, "claude"),
    /** What is known of sessions, with or without a worker. */
    kept: join(home, "sessions", "kept"),
    session: (name: string) => join(home, "sessions", "kept", `${name}.json`),
    /** What a session was given of the host's Claude configuration. */
    inherited: (name: string) =>
      join(home, "sessions", "inherited", `${name}.json`),
    /** Which content of a project's own Claude configuration was approved. */
    approval: (project: string) =>
      join(home, "sessions", "approved", `${digestOf(project)}.json`),
    /** A file for each range of ports that a session has. */
    ports: join(home, "sessions", "ports"),
    workers: join(home, "workers"),
    workerHome: (directory: string) => join(home, "workers", directory),
    run: join(home, "run"),
    /** The prefix of the instance whose home this is. */
    instance: join(home, "run", "instance"),
    /** Where the pool is asked for workers. */
    poolSocket: join(home, "run", "pool.sock"),
    /** Whether the workers' seccomp profile works with this engine. */
    seccompTrial: join(home, "run", "seccomp.json"),
    /** That profile, for the docker client. */
    seccompProfile: join(home, "run", "seccomp-profile.json"),
    /** hosts, resolv.conf and hostname of the workers' namespace. */
    netFiles: join(home, "run", "net"),
    /** Where the parent is asked whether it lives. */
    parentSocket: join(home, "run", "parent.sock"),
    /** Sockets between the parent, the host and the workers' namespace. */
    ways: join(home, "run", "ways"),
    /** Where the forwarder passes connections on to the workers' ports. */
    forwardSocket: join(home, "run", "ways", "forward.sock"),
    /** Where the forwarder is asked which ports it serves. */
    forwarderSocket: join(home, "run", "ways", "forwarder.sock"),
    /** Where the parent passes requests on to ChromaDB. */
    chromadbSocket: join(home, "run", "ways", "chromadb.sock"),
    /** What the mounter listens in. */
    mounter: join(home, "run", "mounter"),
    pool: join(home, "pool"),
    claims: join(home, "pool", "claims"),
    /** What a claim gave a worker: what its labels would say, could they change. */
    claim: (container: string) =>
      join(home, "pool", "claims", `${container}.json`),
    /** A claim that whoever asked for it has not taken yet. */
    loan: (container: string) =>
      join(home, "pool", "claims", `${container}.loan`),
    /** What was last said of the pool's size, and whether there is to be one. */
    desiredPool: join(home, "pool", "wish.json"),
    /** Is there while the dashboard is not to be. */
    noDashboard: join(home, "run", "no-dashboard"),
    /** What the parent says of itself: phases, children. */
    parentState: join(home, "run", "parent.json"),
    /** passwd and group files for one user of the workers. */
    accounts: (uid: number, gid: number) =>
      join(home, "run", "accounts", `${uid}-${gid}`),
    secrets: join(home, "secrets"),
    /** What all sessions sign in with, see credentials.ts and login.ts. */
    anthropicKey: join(home, "secrets", "anthropic_key"),
    claudeToken: join(home, "secrets", "claude_token"),
    login: join(home, "secrets", "login"),
    /** What workers see of the login. */
    credentials: join(home, "run", "credentials"),
    namedSecrets: join(home, "secrets", "named"),
    /** Secrets that one worker was given. */
    workerSecrets: (worker: string) => join(home, "secrets", "workers", worker),
    logs: join(home, "logs"),
    log: (worker: string) => join(home, "logs", `${worker}.log`),
    /** Of a child of the parent, apart from the workers' names. */
    childLog: (child: string) => join(home, "logs", "parent", `${child}.log`),
    /** A person's own profiles: a directory with a Dockerfile each. */
    profiles: join(home, "profiles"),
    profile: (name: string) => join(home, "profiles", name),
    memorybank: join(home, "memorybank"),
    backups: join(home, "backups"),
    /** What migrate and rollback need while they run. */
    migration: join(home, "migration"),
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
    paths.kept,
    paths.ports,
    join(home, "sessions", "inherited"),
    join(home, "sessions", "approved"),
    paths.claude,
    paths.workers,
    paths.pool,
    paths.claims,
    paths.run,
    paths.mcp,
    paths.ways,
    join(home, "run", "accounts"),
    paths.credentials,
    paths.netFiles,
    paths.logs,
    join(paths.logs, "parent"),
    join(paths.logs, "mcp"),
    paths.secrets,
    join(paths.secrets, "workers"),
    paths.memorybank,
    paths.backups,
    paths.migration,
  ];
}

/** A file name for a path. */
function digestOf(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 32);
}

/** Where things are inside a worker; the image's ENV says the same. */
export const insideWorker = {
  workspace: "/workspace",
  home: "/home/claude",
  claudeHome: "/home/claude/.claude",
  claudeConfig: "/config/claude",
  secrets: "/run/secrets",
  /** The instance's login, as far as workers may see it. */
  credentials: "/run/hal9000/credentials",
  /** Plugins that all sessions share. */
  plugins: "/run/hal9000/plugins",
  /** The socket of the host's ssh-agent, where that was asked for. */
  sshAgent: "/run/hal9000/ssh-agent.sock",
} as const;
