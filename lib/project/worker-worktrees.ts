// Repairs git worktrees that were created in a worker. The repository records them with
// paths below /workspace, which do not exist on the host.

import type { Docker } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import type { HostView } from "../std/hostpath.ts";
import { hasWorkerWorktrees } from "./project-git.ts";

/** Runs in the worker, which may write to its repository. */
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

/** The worker may not respond any more. */
const timeoutMs = 3000;

/**
 * Before a worker ends, rewrites the paths of worktrees that were created in it, so that
 * git on the host finds them. The repository gets the host's path. Each worktree gets a
 * relative path, which all versions of git support.
 */
export async function repairWorktrees(
  { docker, host }: { docker: Docker; host: HostView },
  worker: string,
  project: string,
): Promise<void> {
  if (!hasWorkerWorktrees(project, host)) return;
  const command = ["sh", "-c", script, "sh", project];
  await execIn(docker, worker, command, { timeoutMs }).catch(() => {
    // They stay as git wrote them; `git worktree repair` fixes them.
  });
}
