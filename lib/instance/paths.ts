// Paths under HAL9000_HOME and inside containers.

import { createHash } from "node:crypto";
import { join } from "node:path";

export type HomePaths = ReturnType<typeof homePaths>;

/** The parent has the host's project roots mounted below this directory. */
export const hostMount = "/host";

/** Mount points in the parent. */
/** The cgroups of the engine's machine. */
export const cgroups = "/sys/fs/cgroup";

export const insideParent = {
  home: "/root/.hal9000",
  socket: "/var/run/docker.sock",
  cgroups: "/host-cgroup",
} as const;

export function homePaths(home: string) {
  return {
    home,
    config: join(home, "config"),
    conf: join(home, "config", "hal9000.conf"),
    claudeConfig: join(home, "config", "claude"),
    mcpConfig: join(home, "config", "mcp.json"),
    /** A socket for each MCP server that workers can use. */
    mcp: join(home, "run", "mcp"),
    mcpSocket: (server: string) => join(home, "run", "mcp", `${server}.sock`),
    /** The control socket of the MCP gateway. */
    mcpControl: join(home, "run", "mcp-gateway.sock"),
    mcpPid: join(home, "run", "mcp-gateway.pid"),
    /** The key for the workers' tokens. */
    mcpKey: join(home, "secrets", "mcp_key"),
    /** Exists while the gateway should run. */
    mcpWanted: join(home, "run", "mcp-wanted"),
    mcpLog: (server: string) => join(home, "logs", "mcp", `${server}.log`),
    sessions: join(home, "sessions"),
    record: (worker: string) => join(home, "sessions", `${worker}.json`),
    ended: join(home, "sessions", "ended"),
    /** Damaged records that were moved away. */
    damaged: join(home, "sessions", "damaged"),
    claude: join(home, "claude"),
    /** Records of sessions, with or without a worker. */
    kept: join(home, "sessions", "kept"),
    session: (name: string) => join(home, "sessions", "kept", `${name}.json`),
    /** Which parts of the host's Claude configuration a session has inherited. */
    inherited: (name: string) =>
      join(home, "sessions", "inherited", `${name}.json`),
    /** The approved content of a project's own Claude configuration. */
    approval: (project: string) =>
      join(home, "sessions", "approved", `${digestOf(project)}.json`),
    /** The approved content of a project's devcontainer. */
    devcontainerApproval: (project: string) =>
      join(home, "sessions", "approved", `${digestOf(project)}-image.json`),
    /** What ran on the host in the project of a session or worker, when it started. */
    snapshot: (name: string) => join(home, "sessions", "guard", `${name}.json`),
    /** Files that are mounted over those of projects. */
    guard: join(home, "run", "guard"),
    /** A file for each range of ports that is reserved for a session. */
    ports: join(home, "sessions", "ports"),
    /** Copies of projects that sessions work in, see lib/workspace. */
    workspaces: join(home, "workspaces"),
    workspace: (session: string) => join(home, "workspaces", session),
    /** The copy itself, which a worker can write. */
    workspaceTree: (session: string) =>
      join(home, "workspaces", session, "tree"),
    /** What a copy was made from. */
    workspaceBase: (session: string) =>
      join(home, "workspaces", session, "base.json"),
    /** Package caches that workers share; each is the directory of a volume. */
    caches: join(home, "caches"),
    cache: (kind: string) => join(home, "caches", kind),
    workers: join(home, "workers"),
    workerHome: (directory: string) => join(home, "workers", directory),
    run: join(home, "run"),
    /** Contains the prefix of the instance that owns this home. */
    instance: join(home, "run", "instance"),
    /** The pool's socket for requests. */
    poolSocket: join(home, "run", "pool.sock"),
    /** The result of the test of the workers' seccomp profile with this engine. */
    seccompTrial: join(home, "run", "seccomp.json"),
    /** The seccomp profile as a file for the docker command. */
    seccompProfile: join(home, "run", "seccomp-profile.json"),
    /** hosts, resolv.conf and hostname for the workers' namespace. */
    netFiles: join(home, "run", "net"),
    /** The parent's socket for liveness checks. */
    parentSocket: join(home, "run", "parent.sock"),
    /** Whether unix sockets cross between this machine and the engine's. */
    crossing: join(home, "run", "crossing.json"),
    /** Files that the parent's services and nsenter share with the host. */
    ways: join(home, "run", "ways"),
    /** The parent's socket that tells a worker's database of ChromaDB. */
    databasesSocket: join(home, "run", "ways", "databases.sock"),
    /** How to reach the MCP gateway where unix sockets do not cross, see tunnel.ts. */
    tunnel: join(home, "run", "ways", "tunnel.json"),
    /** A socket for each service of workers, named PORT.sock; see worker/network.ts. */
    services: join(home, "run", "ways", "services"),
    service: (port: number) =>
      join(home, "run", "ways", "services", `${port}.sock`),
    /** The egress proxy's, which commands use too; the port is `egressPort`. */
    egressSocket: join(home, "run", "ways", "services", "3128.sock"),
    egressLog: join(home, "logs", "egress.jsonl"),
    /** The host's own proxy, see egress/upstream.ts. */
    egressHost: join(home, "secrets", "egress-host.json"),
    /** The relay's socket. */
    relayService: join(home, "run", "ways", "services", "443.sock"),
    relayLog: join(home, "logs", "relay.jsonl"),
    relay: join(home, "secrets", "relay"),
    relayAuthorities: join(home, "secrets", "relay", "authorities.json"),
    /** A file for each session, see relay/grant.ts. */
    relayGrants: join(home, "secrets", "relay", "grants"),
    /** Rules of the egress policy, see egress/store.ts. */
    egress: join(home, "config", "egress"),
    egressInstance: join(home, "config", "egress", "instance.json"),
    egressProject: (project: string) =>
      join(home, "config", "egress", "projects", `${digestOf(project)}.json`),
    egressSession: (session: string) =>
      join(home, "config", "egress", "sessions", `${session}.json`),
    /** What the API's replies used, see usage/records.ts. */
    usage: join(home, "usage"),
    usageSums: join(home, "usage", "sums.json"),
    usageRecords: (number: number) =>
      join(home, "usage", `records.${number}.jsonl`),
    /** Budgets and limits as they are now, see usage/status.ts. */
    usageStatus: join(home, "usage", "status.json"),
    /** A file for each session that was paused, see usage/paused.ts. */
    usagePaused: join(home, "usage", "paused"),
    /** Exists if sessions are to go on when the account's limit resets. */
    usageResume: join(home, "usage", "resume"),
    budgets: join(home, "config", "budgets.json"),
    /** Other machines, see lib/hosts. */
    hosts: join(home, "config", "hosts.json"),
    /** The sessions that a host had when it last answered. */
    hostSeen: (host: string) => join(home, "hosts", `${host}.json`),
    /** Which project a repository on another machine is of. */
    hostProject: (host: string, repository: string) =>
      join(
        home,
        "hosts",
        "projects",
        `${digestOf(`${host} ${repository}`)}.json`,
      ),
    /** Tells this home from those of other machines. */
    hostsOwnId: join(home, "hosts", "own-id"),
    /** Repositories of projects that other machines have sent. */
    repositories: join(home, "repositories"),
    /** The user's own prices. */
    pricesFile: join(home, "config", "prices.json"),
    /** The directory of nsenter's sockets. */
    nsenter: join(home, "run", "nsenter"),
    /** Connects to the workers' ports. */
    connectSocket: join(home, "run", "nsenter", "connect.sock"),
    pool: join(home, "pool"),
    claims: join(home, "pool", "claims"),
    /** The values that a claim assigned to a warm worker, as its labels cannot change. */
    claim: (container: string) =>
      join(home, "pool", "claims", `${container}.json`),
    /** A claim that the client has not accepted yet. */
    loan: (container: string) =>
      join(home, "pool", "claims", `${container}.loan`),
    /** The desired size of the pool, and whether it is enabled. */
    desiredPool: join(home, "pool", "wish.json"),
    /** Exists while the dashboard is disabled. */
    noDashboard: join(home, "run", "no-dashboard"),
    /** The parent's state, see parent-state.ts. */
    parentState: join(home, "run", "parent.json"),
    /** passwd and group files for a worker's user. */
    accounts: (uid: number, gid: number) =>
      join(home, "run", "accounts", `${uid}-${gid}`),
    secrets: join(home, "secrets"),
    /** The credentials of all sessions, see credentials.ts and login.ts. */
    anthropicKey: join(home, "secrets", "anthropic_key"),
    claudeToken: join(home, "secrets", "claude_token"),
    login: join(home, "secrets", "login"),
    /** The part of the login that workers can read. */
    credentials: join(home, "run", "credentials"),
    /** An empty directory, mounted in its place in workers that use the relay. */
    noCredentials: join(home, "run", "no-credentials"),
    namedSecrets: join(home, "secrets", "named"),
    /** Which of them the egress proxy sets for a session, see egress/host-secrets.ts. */
    hostGrants: join(home, "secrets", "host-grants"),
    /** The secrets of one worker. */
    workerSecrets: (worker: string) => join(home, "secrets", "workers", worker),
    logs: join(home, "logs"),
    log: (worker: string) => join(home, "logs", `${worker}.log`),
    /** Where an installed package stages the inputs of images. */
    build: join(home, "build"),
    /** The log of the last build of an image. */
    buildLog: (image: string) =>
      join(home, "logs", "builds", `${image.replace(/[^\w.-]+/g, "-")}.log`),
    /** The log of a child of the parent, separate from the workers' logs. */
    childLog: (child: string) => join(home, "logs", "parent", `${child}.log`),
    /** The user's own profiles, each a directory with a Dockerfile. */
    profiles: join(home, "profiles"),
    profile: (name: string) => join(home, "profiles", name),
    memorybank: join(home, "memorybank"),
    backups: join(home, "backups"),
    /** Working files of migrate and rollback. */
    migration: join(home, "migration"),
  };
}

/** The directories that are created with an instance, parents first. */
export function homeDirectories(paths: HomePaths): string[] {
  const { home } = paths;
  return [
    home,
    paths.config,
    paths.claudeConfig,
    paths.egress,
    join(paths.egress, "projects"),
    join(paths.egress, "sessions"),
    paths.usage,
    paths.usagePaused,
    paths.sessions,
    paths.kept,
    paths.ports,
    join(home, "sessions", "inherited"),
    join(home, "sessions", "approved"),
    join(home, "sessions", "guard"),
    paths.claude,
    paths.workspaces,
    paths.caches,
    paths.workers,
    paths.pool,
    paths.claims,
    paths.run,
    paths.mcp,
    paths.ways,
    paths.services,
    join(home, "run", "accounts"),
    paths.guard,
    paths.credentials,
    paths.noCredentials,
    paths.netFiles,
    paths.logs,
    join(paths.logs, "parent"),
    join(paths.logs, "mcp"),
    paths.secrets,
    join(paths.secrets, "workers"),
    paths.relay,
    paths.relayGrants,
    paths.memorybank,
    paths.backups,
    paths.migration,
  ];
}

/** A file name derived from a path. */
function digestOf(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 32);
}

/** Paths inside a worker; the ENV of the image must match. */
export const insideWorker = {
  workspace: "/workspace",
  home: "/home/claude",
  claudeHome: "/home/claude/.claude",
  claudeConfig: "/config/claude",
  secrets: "/run/secrets",
  /** Those of the system and of the secrets' hosts, see docker/claude-session.sh. */
  certificates: "/tmp/hal9000-certificates.pem",
  /** The part of the login that workers can read. */
  credentials: "/run/hal9000/credentials",
  /** Plugins shared by all sessions. */
  plugins: "/run/hal9000/plugins",
  /** The socket of the host's ssh-agent, if it was requested. */
  sshAgent: "/run/hal9000/ssh-agent.sock",
} as const;
