// Git worktrees that were made in a worker: their repository has them at
// /workspace, where the host finds nothing.

import type { Docker } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import type { HostView } from "../std/hostpath.ts";
import { hasWorkerWorktrees } from "./project-git.ts";

/** The worker's own programs do it: it is their repository to write. */
const script = `cd /workspace/.git/worktrees || exit
for own in *; do
  read -r link <"$own/gitdir" || continue
  case $link in /workspace/*/.git) ;; *) continue ;; esac
  [ "$(cat "$link")" = "gitdir: /workspace/.git/worktrees/$own" ] || continue
  tree=\${link%/.git} up=../
  rest=\${tree#/workspace/}
  while [ "\${rest#*/}" != "$rest" ]; do rest=\${rest#*/} up=../$up; done
  echo "gitdir: $up.git/worktrees/$own" >"$link"
  echo "$1/\${link#/workspace/}" >"$own/gitdir"
done`;

/** A worker may be of no help any more. */
const timeoutMs = 3000;

/**
 * Before a worker ends: has the host's git find the worktrees that were made in it.
 * The repository gets the host's path, each worktree a relative one, which all
 * versions of git read.
 */
export async function repairWorktrees(
  { docker, host }: { docker: Docker; host: HostView },
  worker: string,
  project: string,
): Promise<void> {
  if (!hasWorkerWorktrees(project, host)) return;
  const command = ["sh", "-c", script, "sh", project];
  await execIn(docker, worker, command, { timeoutMs }).catch(() => {
    // They are left as git wrote them; git worktree repair mends them.
  });
}
