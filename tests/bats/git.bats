# A project's git: worktrees, submodules, and what must stay intact on the host.

# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  export GIT_CONFIG_GLOBAL=$BATS_TEST_TMPDIR/gitconfig
  printf '[protocol "file"]\n\tallow = always\n' >"$GIT_CONFIG_GLOBAL"
  cd "$HAL9000_PROJECT_ROOTS" || return
  top=$HAL9000_PROJECT_ROOTS/git$BATS_TEST_NUMBER
  mkdir "$top"
}

teardown() {
  after_failure
  [ -z "${loop-}" ] || kill "$loop" 2>/dev/null || true
  stop_workers
  rm -rf "$top"
}

# Creates a repository with one commit.
make_repository() {
  git init --quiet "$1"
  git -C "$1" config user.name Dave
  git -C "$1" config user.email dave@example.com
  git -C "$1" commit --quiet --allow-empty -m first
}

in_worker() { # in_worker NAME SCRIPT
  docker exec "$1" bash -ec "$2"
}

exchange() {
  deno=$(echo "$repo"/node_modules/@deno/*/deno)
  "$deno" run -A --no-lock --no-config --quiet "$repo/tests/helper/exchange.ts" "$@" 3>&- &
  loop=$!
}

# bats test_tags=soak
@test "does not mount a repository that is replaced by a link while a worker is created" {
  # The user has approved the repository, but both directories belong to the worker.
  make_repository "$top/main"
  git -C "$top/main" worktree add --quiet -b one "$top/app"
  own=$top/main/.git/worktrees/app
  mkdir "$top/secret"
  echo planted >"$top/secret/planted"
  ln -s "$top/secret" "$own-link"
  exchange "$own" "$own-link" 20
  for i in $(seq $((2 + soak))); do
    run "$claudy" --detach --allow-worktree --name "swap-$i-$$" "$top/app"
    if [ "$status" != 0 ]; then
      # Also if the engine does not find what it is to mount.
      [ "$status" = 6 ] || [[ $output == *"bind source path does not exist"* ]]
      run ! docker inspect "swap-$i-$$"
      continue
    fi
    run ! in_worker "swap-$i-$$" "cat '$own'/planted '$own-link/planted' '$top/secret/planted' 2>/dev/null | grep planted"
    "$claudy" stop "swap-$i-$$"
  done
  # The engine creates no mount points there.
  [ "$(ls -A "$top/secret")" = planted ]
}

# bats test_tags=soak
@test "mounts a project that is replaced by a link as it was checked, or ends the worker" {
  mkdir "$top/app" "$top/secret"
  ln -s "$top/secret" "$top/link"
  echo planted >"$top/secret/planted"
  exchange "$top/app" "$top/link" 20
  for _ in $(seq $((3 + soak))); do
    out=$("$scripts/spawn-worker.ts" -d --cold --json -n exchanged-$$ "$top/app" 2>"$BATS_TEST_TMPDIR/err") || {
      cat "$BATS_TEST_TMPDIR/err"
      grep -E "was replaced while it was being mounted|being moved or replaced" "$BATS_TEST_TMPDIR/err"
      run ! docker inspect exchanged-$$
      continue
    }
    # A link that exists during the check is followed, and the result shows its target.
    seen=$(in_worker exchanged-$$ 'cat planted 2>/dev/null || true')
    [ "$(jq -r .project <<<"$out")" = "$top/secret" ] || [ -z "$seen" ]
    "$scripts/coordinator.ts" stop exchanged-$$
  done
  # A worker with a command of its own checks its mounts in the same way.
  for _ in $(seq $((1 + soak))); do
    out=$("$scripts/spawn-worker.ts" -n exchanged-$$ "$top/app" -- sh -c 'cat planted; grep -c . /proc/mounts >/dev/null' 2>/dev/null) || true
    [ -z "$out" ] || [ "$out" = planted ]
  done
}

@test "projects that point at each other do not get each other's files" {
  # A repository that git would not accept.
  mkdir -p "$top/tool/sub" "$top/app/worktrees" "$top/third"
  echo planted >"$top/third/planted"
  echo "$top/app/.git" >"$top/tool/sub/gitdir"
  ln -s "$top/tool/sub" "$top/app/worktrees/x"
  echo "gitdir: $top/app/worktrees/x" >"$top/app/.git"
  run -0 spawn --allow-worktree -n pointing-$$ "$top/app"
  [[ $output == *"git does not work in the worker"* ]]
  run ! in_worker pointing-$$ "cat '$top/third/planted'"
  in_worker pointing-$$ "! cut -d' ' -f5 /proc/self/mountinfo | grep -F '$top'"
  # A repository that git would accept needs approval, whatever it contains.
  git init --quiet --bare "$top/bare"
  mkdir -p "$top/bare/worktrees/x"
  echo "$top/app/.git" >"$top/bare/worktrees/x/gitdir"
  echo ../.. >"$top/bare/worktrees/x/commondir"
  cp "$top/bare/HEAD" "$top/bare/worktrees/x/HEAD"
  echo "gitdir: $top/bare/worktrees/x" >"$top/app/.git"
  run -6 spawn -n asking-$$ "$top/app"
  [[ $output == *"Refused to mount $top/bare: "*"is a git worktree of it"*"--allow-worktree"* ]]
}

@test "mounts a worktree's repository after one approval, without harm to other worktrees" {
  make_repository "$top/main"
  git -C "$top/main" worktree add --quiet -b one "$top/tree one"
  git -C "$top/main" worktree add --quiet -b two "$top/tree-two"
  run -6 "$claudy" --detach "$top/tree one"
  [[ $output == *"Refused to mount $top/main/.git"* ]]
  run -6 spawn "$top/tree one"
  run -0 --separate-stderr "$claudy" --detach --json --allow-worktree "$top/tree one"
  [[ $stderr == *"Mounting $top/main/.git: the project is a worktree of this repository"* ]]
  session=$(jq -r .session <<<"$output")
  in_worker "$session" 'echo new >file; git add file; git commit --quiet -m "in the worker"'
  [ "$(git -C "$top/main" log -1 --format=%s one)" = "in the worker" ]
  in_worker "$session" 'git worktree prune; git gc --quiet --prune=now' || true
  [ "$(git -C "$top/main" worktree list | wc -l)" = 3 ]
  git -C "$top/tree-two" status --short
  git -C "$top/tree one" fsck
  # The session remembers the approval for this repository only.
  "$claudy" stop "$session"
  "$claudy" --detach "$top/tree one"
  in_worker "$session" "git log --oneline"
  "$claudy" stop "$session"
  mv "$top/main" "$top/moved"
  git -C "$top/moved" worktree repair "$top/tree one"
  run -6 "$claudy" --detach "$top/tree one"
  [[ $output == *"Refused to mount $top/moved/.git"* ]]
}

@test "asks once at a terminal before it mounts a worktree's repository" {
  make_repository "$top/main"
  git -C "$top/main" worktree add --quiet -b one "$top/tree"
  # What is typed before the question does not count.
  at_terminal() { # at_terminal ANSWER
    while echo "$1" && sleep 0.5; do :; done 2>/dev/null | timeout 60 script -qec "$claudy --detach '$top/tree'" /dev/null
  }
  run at_terminal n
  [[ $output == *"Mount its repository $top/main/.git too, writable? [y/N]"*"Cancelled"* ]]
  run -0 at_terminal y
  session=$(grep '^claudy-' <<<"$output" | tail -1 | tr -d '\r')
  in_worker "$session" 'git status'
  "$claudy" stop "$session"
  run -0 at_terminal
  [[ $output != *"[y/N]"* ]]
}

@test "prune and gc in a main checkout keep the host's worktrees, cold and warm" {
  make_repository "$top/main"
  git -C "$top/main" worktree add --quiet -b two "$top/tree-two"
  git -C "$top/main" worktree add --quiet --detach "$top/detached"
  git -C "$top/main" worktree add --quiet -b nested "$top/main/.claude/worktrees/nested"
  echo staged >"$top/detached/staged"
  git -C "$top/detached" add staged
  git -C "$top/detached" commit --quiet -m "held by HEAD alone"
  echo more >>"$top/detached/staged"
  git -C "$top/detached" add staged
  harm() {
    in_worker "$1" 'git worktree prune' || true
    in_worker "$1" 'git reflog expire --expire=now --all; git gc --quiet --prune=now' || true
    run ! in_worker "$1" 'rm -rf .git/worktrees/detached'
    in_worker "$1" 'git commit --quiet --allow-empty -m inside; git worktree add --quiet -b made .made; cd .made; git commit --quiet --allow-empty -m made; cd ..; git worktree remove .made; git branch -D made'
    for tree in tree-two detached main/.claude/worktrees/nested; do
      git -C "$top/$tree" status --short
      git -C "$top/$tree" fsck --connectivity-only
    done
    [ "$(git -C "$top/main" worktree list | grep -cv prunable)" = 4 ]
    [ "$(git -C "$top/detached" log -1 --format=%s)" = "held by HEAD alone" ]
    [ "$(git -C "$top/detached" show :staged)" = $'staged\nmore' ]
  }
  spawn --cold -n cold-$$ "$top/main"
  harm cold-$$
  "$scripts/coordinator.ts" stop cold-$$
  git -C "$top/main" worktree remove "$top/main/.claude/worktrees/nested"
  git -C "$top/main" worktree add --quiet -b third "$top/third"
  "$scripts/pool-manager.ts" start --min-warm 1 --max-warm 1
  warm() { [ "$("$scripts/pool-manager.ts" status --json | jq '.warm | length')" = 1 ]; }
  wait_for 30 warm
  spawn --warm-only -n warm-$$ "$top/main"
  in_worker warm-$$ 'git worktree prune' || true
  run ! in_worker warm-$$ 'rm -rf .git/worktrees/detached'
  [ "$(git -C "$top/main" worktree list | grep -cv prunable)" = 4 ]
  "$scripts/pool-manager.ts" stop
}

@test "a worktree created in a worker works on the host and in the next worker" {
  make_repository "$top/main"
  spawn --cold -n maker-$$ "$top/main"
  in_worker maker-$$ 'git worktree add --quiet -b made ".claude/worktrees/made here"; cd .claude/worktrees/*; git commit --quiet --allow-empty -m made'
  "$scripts/coordinator.ts" stop maker-$$
  made=$top/main/.claude/worktrees/made\ here
  git -C "$top/main" worktree list | grep -F "$made"
  [ "$(git -C "$top/main" worktree list --porcelain --expire now | grep -c prunable)" = 0 ]
  git -C "$top/main" worktree prune
  [ "$(git -C "$made" log -1 --format=%s)" = made ]
  spawn --cold -n maker-$$ "$top/main"
  in_worker maker-$$ 'git worktree prune; cd .claude/worktrees/*; git commit --quiet --allow-empty -m again'
  [ "$(git -C "$made" log -1 --format=%s)" = again ]
}

@test "git works in a project that is a submodule" {
  make_repository "$top/lib"
  make_repository "$top/super"
  git -C "$top/super" submodule --quiet add "$top/lib" libs/x
  git -C "$top/super" commit --quiet -m submodule
  project=$top/super/libs/x
  run -6 spawn "$project"
  [[ $output == *"Refused to mount $top/super/.git/modules/libs/x"* ]]
  spawn --allow-worktree -n submodule-$$ "$project"
  in_worker submodule-$$ 'git status --short; git -c user.name=w -c user.email=w@x commit --quiet --allow-empty -m "in the worker"; [ "$(git rev-parse --show-toplevel)" = /workspace ]'
  [ "$(git -C "$project" log -1 --format=%s)" = "in the worker" ]
  [ "$(git -C "$top/super" status --short)" = " M libs/x" ]
}

@test "warns before the session starts if a project's git directory is not mounted" {
  make_repository "$top/repo"
  mkdir -p "$top/repo/packages/a"
  run -0 spawn -n part-$$ "$top/repo/packages/a"
  [[ $output == *"part of the git repository $top/repo, which is not mounted"*"Open $top/repo"* ]]
  git init --quiet --separate-git-dir "$top/elsewhere.git" "$top/separate"
  run -0 spawn -n separate-$$ "$top/separate"
  [[ $output == *"git directory $top/elsewhere.git is not mounted"*"clone"* ]]
  git clone --quiet --shared "$top/repo" "$top/shared"
  run -0 spawn -n shared-$$ "$top/shared"
  [[ $output == *"Objects of the repository are in $top/repo/.git/objects, which is not mounted"* ]]
}
