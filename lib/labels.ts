// Label names and values: everything that an instance makes carries them, and
// everything is found again by them.

export const label = {
  instance: "hal9000.instance",
  role: "hal9000.role",
  born: "hal9000.born",
  session: "hal9000.session",
  project: "hal9000.project",
  /** "true" on a worker that stays when it has ended. */
  keep: "hal9000.keep",
  /** On images and warm workers: a digest of what they are made of. */
  inputs: "hal9000.inputs",
  /** On the mover: whose it is, in words. */
  owner: "hal9000.owner",
  /** On the image of a profile: a shell command that tells whether it works. */
  smoke: "hal9000.smoke",
} as const;

export type Role =
  | "net"
  | "parent"
  | "mounter"
  | "forwarder"
  | "worker"
  | "helper";

/** The labels that every container of an instance carries. */
export function roleLabels(prefix: string, role: Role): Record<string, string> {
  return { [label.instance]: prefix, [label.role]: role };
}

/** Docker's `filters` argument for the containers of an instance. */
export function instanceFilter(
  prefix: string,
  role?: Role,
): { label: string[] } {
  const labels = [`${label.instance}=${prefix}`];
  if (role) labels.push(`${label.role}=${role}`);
  return { label: labels };
}

/** Names within an instance; an id is 8 hex digits. */
export function instanceNames(prefix: string) {
  return {
    net: `${prefix}-net`,
    parent: `${prefix}-parent`,
    mounter: `${prefix}-mounter`,
    /** Carries the workers' calls to the host's MCP servers. */
    forwarder: `${prefix}-mcp`,
    worker: (id: string) => `${prefix}-worker-${id}`,
    /** A warm worker that nobody has claimed. */
    warm: (id: string) => `${prefix}-warm-${id}`,
    volumes: {
      chromadb: `${prefix}-chromadb`,
      plugins: `${prefix}-plugins`,
      memorybank: `${prefix}-memorybank`,
    },
  };
}
