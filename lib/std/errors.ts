// The errors that commands fail with. Each has an exit code and an optional hint that
// tells the user what to do. Only `lib/cli/cli.ts` prints them.

/** Exit codes of all commands. */
export const exitCode = {
  failed: 1,
  usage: 2,
  engine: 3,
  notFound: 4,
  busy: 5,
  unsafe: 6,
  resources: 7,
  /** Some of several items succeeded. */
  partial: 8,
  interrupted: 130,
} as const;

export type FailureKind = keyof typeof exitCode;

/** An expected failure: what failed, on what, why, and what to do about it. */
export class Failure extends Error {
  readonly kind: FailureKind;
  readonly hint: string | undefined;

  constructor(
    kind: FailureKind,
    message: string,
    options: { hint?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = "Failure";
    this.kind = kind;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return exitCode[this.kind];
  }
}

/** Error codes of file systems, with the reason and a hint. */
const fileFaults: Record<
  string,
  { kind: FailureKind; why: string; hint: string }
> = {
  ENOSPC: {
    kind: "resources",
    why: "The disk is full",
    hint: "Make room, for example with claudy prune, then try again.",
  },
  EDQUOT: {
    kind: "resources",
    why: "The disk quota is exceeded",
    hint: "Make room, for example with claudy prune, then try again.",
  },
  EROFS: {
    kind: "failed",
    why: "the file system is read-only",
    hint: "Mount it read-write, or set HAL9000_HOME to a writable " +
      "directory.",
  },
  EACCES: {
    kind: "failed",
    why: "permission denied",
    hint: "Check its owner with ls -ld: HAL9000_HOME must belong to you alone.",
  },
  EPERM: {
    kind: "failed",
    why: "the operation is not permitted",
    hint: "Check its owner with ls -ld: HAL9000_HOME must belong to you alone.",
  },
  ENOENT: {
    kind: "notFound",
    why: "there is no such file or directory",
    hint: "Create what is missing in HAL9000_HOME: claudy daemon start",
  },
  ENOTDIR: {
    kind: "failed",
    why: "a part of the path is not a directory",
    hint: "Move away the file in its place: a directory is expected.",
  },
  EISDIR: {
    kind: "failed",
    why: "it is a directory",
    hint: "Move it away: a file is expected there.",
  },
  EIO: {
    kind: "failed",
    why: "input/output error",
    hint: "See the kernel's log: dmesg",
  },
};

/** The action to report for a failed system call. */
const fileActions: Record<string, string> = {
  mkdir: "create",
  rename: "write",
  link: "write",
  unlink: "remove",
  rm: "remove",
  rmdir: "remove",
  scandir: "read",
  readdir: "read",
  opendir: "read",
  read: "read",
  lstat: "find",
  stat: "find",
  chmod: "set the mode of",
  chown: "set the owner of",
  lchown: "set the owner of",
};

/**
 * Converts Node's error for a file that cannot be read or written to a Failure. It names
 * the file itself instead of its temporary file. Undefined for all other errors.
 */
export function fileFailure(error: unknown): Failure | undefined {
  if (error instanceof Failure) return undefined;
  const { code, path, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  const fault = fileFaults[code ?? ""];
  // Failed connections to sockets have the same codes.
  if (!fault || !syscall || syscall === "connect") return undefined;
  const opened = code === "ENOENT" ? "read" : "write";
  const action = fileActions[syscall] ?? opened;
  const named = path?.replace(/\.[0-9a-f]{16}\.tmp$/, "");
  const subject = named === undefined ? "a file" : named;
  const message = fault.kind === "resources"
    ? `${fault.why}: cannot ${action} ${subject}`
    : `Cannot ${action} ${subject}: ${fault.why}`;
  return new Failure(fault.kind, message, { cause: error, hint: fault.hint });
}

/**
 * Runs an optional step: errors of the file system are logged as warnings and do not
 * stop the caller.
 */
export async function warnOnFileError(
  log: (line: string) => void,
  act: () => Promise<void> | void,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    const failure = fileFailure(error);
    if (!failure) throw error;
    log(`warning: ${failure.message}`);
  }
}

/**
 * Acts on all named items at the same time, so that a slow or failing one does not delay
 * the others, and passes the names that succeeded to `report`. Then throws if some failed:
 * a `partial` Failure unless all did. Its hints are those of all errors.
 */
export async function onEach<T extends { name: string }>(
  items: readonly T[],
  act: (item: T) => Promise<unknown>,
  report: (done: string[]) => void,
): Promise<void> {
  const done: string[] = [];
  const errors: Error[] = [];
  await Promise.all(items.map(async (item) => {
    try {
      await act(item);
      done.push(item.name);
    } catch (error) {
      errors.push(
        error instanceof Failure
          ? error
          : new Error(`${item.name}: ${messageOf(error)}`, { cause: error }),
      );
    }
  }));
  report(done.sort());
  const [first, ...others] = errors;
  if (!first) return;
  if (done.length === 0 && others.length === 0) throw first;
  const hints = errors.map((error) =>
    error instanceof Failure ? error.hint : undefined
  );
  throw new Failure(
    done.length === 0 ? commonKind(errors) : "partial",
    errors.map(messageOf).join("; "),
    {
      cause: first,
      hint: [...new Set(hints)].filter(Boolean).join("\n") || undefined,
    },
  );
}

/** The kind of all errors, if it is the same. */
function commonKind(errors: Error[]): FailureKind {
  const kinds = new Set(
    errors.map((error) => error instanceof Failure ? error.kind : "failed"),
  );
  const [kind = "failed"] = kinds;
  return kinds.size === 1 ? kind : "failed";
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
