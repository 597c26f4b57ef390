// The host's git user, for commits made in a session.

// Not zx: loading it would add 50 ms to each start of claudy.
import { spawnSync } from "node:child_process";

/** A git configuration with the user's name and email; undefined if neither is set. */
export function gitConfigText(env: NodeJS.ProcessEnv): string | undefined {
  const entries = ["name", "email"].flatMap((key) => {
    const { status, stdout } = spawnSync(
      "git",
      ["config", "--global", "--includes", "--get", `user.${key}`],
      { env, encoding: "utf8" },
    );
    const value = status === 0 ? stdout.replace(/\n$/, "") : "";
    return value === "" ? [] : [`\t${key} = ${quoted(value)}`];
  });
  return entries.length === 0
    ? undefined
    : ["[user]", ...entries, ""].join("\n");
}

/** Quotes a value as described in git-config(1), so that it cannot add other settings. */
function quoted(value: string): string {
  const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')
    .replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return `"${escaped}"`;
}
