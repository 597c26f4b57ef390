// The errors that commands end with. Each carries its exit code and a second
// line that says what to do; `scripts/cli.ts` alone prints them.

/** Exit codes, the same for every command. */
export const exitCode = {
  failed: 1,
  usage: 2,
  engine: 3,
  notFound: 4,
  busy: 5,
  unsafe: 6,
  resources: 7,
  interrupted: 130,
} as const;

export type FailureKind = keyof typeof exitCode;

/** A failure that was foreseen: what, on what, why, and what to do about it. */
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

/** What Node throws where a disk is full, as a Failure; undefined for all else. */
export function diskFull(error: unknown): Failure | undefined {
  const { code, path } = error as NodeJS.ErrnoException;
  if (code !== "ENOSPC" && code !== "EDQUOT") return undefined;
  return new Failure(
    "resources",
    `The disk is full${path ? `: ${path}` : ""}`,
    {
      cause: error,
      hint: "Make room, then run it again: see claudy prune.",
    },
  );
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
