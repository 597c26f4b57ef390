// Who commits: the host's git user, for the git of a session.

// Not by zx: it adds 50 ms to the start of each claudy.
import { spawnSync } from "node:child_process";

/** A global git configuration with name and email; undefined without either. */
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

/** As git-config(1) has it: whatever is in it stays one value. */
function quoted(value: string): string {
  const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')
    .replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return `"${escaped}"`;
}
