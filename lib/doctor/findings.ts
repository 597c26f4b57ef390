// The result of a check.

export interface Finding {
  state: "ok" | "warn" | "fail";
  says: string;
  /** The command that fixes it. */
  mend?: string;
}

export const ok = (says: string): Finding => ({ state: "ok", says });

export const warn = (says: string, mend: string): Finding => ({
  state: "warn",
  says,
  mend,
});

export const fail = (says: string, mend: string): Finding => ({
  state: "fail",
  says,
  mend,
});
