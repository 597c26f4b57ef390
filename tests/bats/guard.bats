# What runs on the host because of a project's files: git's hooks and configuration, and
# files of editors and shells are read-only in workers.

# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  # The host's user: git's configuration is its own.
  export GIT_CONFIG_GLOBAL=$BATS_TEST_TMPDIR/gitconfig
  printf '[protocol "file"]\n\tallow = always\n[user]\n\tname = Dave\n\temail = dave@example.com\n' >"$GIT_CONFIG_GLOBAL"
  top=$HAL9000_PROJECT_ROOTS/guard$BATS_TEST_NUMBER
  mkdir "$top"
}

teardown() {
  after_failure
  stop_workers
  rm -rf "$top"
}

# Creates a repository with two branches that differ in one file.
make_repository() {
  git init --quiet --initial-branch main "$1"
  echo first >"$1/file"
  git -C "$1" add file
  git -C "$1" commit --quiet -m first
  git -C "$1" checkout --quiet -b other
  echo other >"$1/second"
  git -C "$1" add second
  git -C "$1" commit --quiet -m other
  git -C "$1" checkout --quiet main
}

in_worker() { # in_worker NAME SCRIPT
  docker exec --env GIT_AUTHOR_NAME=w --env GIT_AUTHOR_EMAIL=w@x --env GIT_COMMITTER_NAME=w \
    --env GIT_COMMITTER_EMAIL=w@x "$1" bash -ec "$2"
}

# What an agent does every day.
work() { # work NAME
  in_worker "$1" '
    echo changed >>file; git stash --quiet; git stash pop --quiet; git commit --quiet -am second
    git branch topic; git checkout --quiet topic; echo t >topic; git add topic; git commit --quiet -m topic
    git rebase --quiet other; git checkout --quiet main; git merge --quiet -m merged topic
    git branch -D topic; git gc --quiet; git worktree add --quiet -b made .made; git worktree remove .made
    [ -z "$(git status --short)" ]'
  [ -z "$(git -C "$top/app" status --short)" ]
  [ "$(git -C "$top/app" log -1 --format=%s)" = merged ]
}

# Plants programs wherever git looks for them; `$marker` exists if the host runs one.
marker() { echo "$HAL9000_TEST_ROOT/marker-$BATS_TEST_NUMBER"; }
plant() { # plant NAME REPOSITORY: as path in the worker
  in_worker "$1" "set +e
    cd '$2'; common=\$(git rev-parse --git-common-dir); evil='touch $(marker)'
    for hook in post-checkout pre-commit post-index-change reference-transaction; do
      printf '#!/bin/sh\n%s\n' \"\$evil\" >\"\$common/hooks/\$hook\" && chmod +x \"\$common/hooks/\$hook\"
    done
    git config core.fsmonitor \"\$evil\"; git config core.hooksPath /workspace/evil
    git config filter.evil.clean \"\$evil\"; git config alias.st \"!\$evil\"; git config core.sshCommand \"\$evil\"
    printf '[core]\n\tfsmonitor = %s\n' \"\$evil\" >>\"\$common/config\"
    printf '[core]\n\tfsmonitor = %s\n' \"\$evil\" >\"\$common/new\"; mv \"\$common/new\" \"\$common/config\"
    mv \"\$common/hooks\" \"\$common/hooks2\"; rm -rf \"\$common/hooks\"; rm -f \"\$common/config\"
    [ \"\$PWD\" != /workspace ] || mv \"\$common\" \"\$common-moved\"
    echo '* filter=evil' >.gitattributes; echo more >>file
    exit 0" 2>/dev/null
}
host_uses() { # host_uses REPOSITORY
  git -C "$1" status >/dev/null
  git -C "$1" add -A
  git -C "$1" commit --quiet --allow-empty -m host
  git -C "$1" st 2>/dev/null || true
  git -C "$1" fetch --quiet ssh://127.0.0.1:1/x 2>/dev/null || true
  git -C "$1" checkout --quiet --detach other
  git -C "$1" log --oneline >/dev/null
}

@test "git works in a guarded worker, and what it plants does not run on the host" {
  make_repository "$top/app"
  rm -r "$top/app/.git/hooks"
  spawn --cold -n guarded-$$ "$top/app"
  [ "$(owner_of "$top/app/.git/hooks")" = "$(owner_of "$top/app")" ]
  work guarded-$$
  plant guarded-$$ /workspace
  host_uses "$top/app"
  [ ! -e "$(marker)" ]
  [ ! -e "$top/app/.git-moved" ]
}

@test "a warm worker is guarded, also after a restart" {
  make_repository "$top/app"
  make_repository "$top/open"
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 2
  warm() { [ "$("$scripts/pool-manager.ts" status --json | jq '.warm | length')" = 2 ]; }
  wait_for 30 warm
  spawn --warm-only -n warm-$$ "$top/app"
  work warm-$$
  plant warm-$$ /workspace
  host_uses "$top/app"
  [ ! -e "$(marker)" ]
  run -0 spawn --warm-only --unguarded -n open-$$ "$top/open"
  [[ $output == *"Unguarded: the worker can change .git/hooks, .git/config"* ]]
  in_worker open-$$ 'git config planted.here yes'
  docker restart --time 0 warm-$$ open-$$
  wait_for 20 in_worker warm-$$ 'grep " /workspace/.git/config ro," /proc/self/mountinfo'
  wait_for 20 in_worker open-$$ 'git config planted.again yes'
  in_worker warm-$$ '! git config planted.here yes'
  "$scripts/pool-manager.ts" stop
}

@test "an isolated worker is guarded" {
  make_repository "$top/app"
  spawn --cold --network isolated -n alone-$$ "$top/app"
  work alone-$$
  plant alone-$$ /workspace
  host_uses "$top/app"
  [ ! -e "$(marker)" ]
}

@test "what git does when it cannot write its configuration" {
  make_repository "$top/lib"
  make_repository "$top/app"
  spawn --cold -n stuck-$$ --mount "$top/lib:/lib-repository:ro" "$top/app"
  state() { (cd "$top/app" && git status --porcelain && find . -not -name index | sort && cat .git/config); }
  before=$(state)
  for words in 'config a.b c' 'remote add origin /lib-repository' 'sparse-checkout set dir'; do
    run ! in_worker stuck-$$ "git $words"
    [[ $output == *"could not write config file .git/config: Device or resource busy"* ]]
    diff <(echo "$before") <(state)
  done
  # This one does all but what belongs in the configuration.
  run -0 in_worker stuck-$$ 'git -c protocol.file.allow=always submodule add /lib-repository lib'
  [[ $output == *"could not write config file .git/config"* ]]
  [ "$(git -C "$top/app" status --porcelain)" = $'A  .gitmodules\nA  lib' ]
  [ "$(cat "$top/app/lib/file")" = first ]
  run ! git -C "$top/app" config submodule.lib.url
  run ! in_worker stuck-$$ 'git submodule init'
  git -C "$top/app" submodule --quiet init
  [ "$(git -C "$top/app" config submodule.lib.url)" = /lib-repository ]
}

@test "submodules and nested repositories are guarded, and submodule update works" {
  make_repository "$top/lib"
  make_repository "$top/app"
  git -C "$top/app" submodule --quiet add "$top/lib" libs/x
  git -C "$top/app" commit --quiet -m submodule
  make_repository "$top/app/deep/nested"
  echo deep >>"$top/app/.git/info/exclude"
  git -C "$top/app" worktree add --quiet -b tree "$top/app/.trees/one"
  echo .trees >>"$top/app/.git/info/exclude"
  spawn --cold -n nested-$$ "$top/app"
  in_worker nested-$$ 'cd libs/x; git commit --quiet --allow-empty -m inside; cd ../..; git submodule --quiet update
    git submodule status | grep "^ "; git submodule --quiet update --remote || true; git submodule --quiet update
    git -C deep/nested commit --quiet --allow-empty -m inside; git -C .trees/one commit --quiet --allow-empty -m inside'
  plant nested-$$ /workspace/libs/x
  plant nested-$$ /workspace/deep/nested
  plant nested-$$ /workspace/.trees/one
  host_uses "$top/app"
  git -C "$top/app/libs/x" status
  git -C "$top/app/.trees/one" status
  host_uses "$top/app/deep/nested"
  [ ! -e "$(marker)" ]
}

@test "a worktree's repository and its second place in the worker are guarded" {
  make_repository "$top/main"
  git -C "$top/main" config extensions.worktreeConfig true
  git -C "$top/main" worktree add --quiet -b tree "$top/app"
  spawn --cold --allow-worktree -n tree-$$ "$top/app"
  in_worker tree-$$ 'echo new >new; git add new; git commit --quiet -m inside; git checkout --quiet -b more; git stash list'
  plant tree-$$ /workspace
  plant tree-$$ "$top/app"
  in_worker tree-$$ "set +e; cd '$top/main/.git'; for at in worktrees/app/config.worktree config.worktree; do
    printf '[core]\n\tfsmonitor = touch $(marker)\n' >\$at; done
    echo /workspace/evil >worktrees/app/commondir; echo 'gitdir: /workspace/evil' >/workspace/.git; exit 0"
  host_uses "$top/app"
  git -C "$top/main" status
  [ ! -e "$(marker)" ]
}

@test "files that editors and shells run are read-only, with what git's configuration names" {
  make_repository "$top/app"
  mkdir -p "$top/app/.vscode" "$top/app/.claude" "$top/app/tools/hooks"
  touch "$top/app/.envrc" "$top/app/.mcp.json" "$top/app/.vscode/tasks.json" "$top/app/.claude/settings.json"
  touch "$top/app/tools/hooks/pre-commit" "$top/app/tools/lint" "$top/app/tools/gitconfig"
  git -C "$top/app" config core.hooksPath tools/hooks
  git -C "$top/app" config include.path ../tools/gitconfig
  ln -s ../../tools/lint "$top/app/.git/hooks/pre-push"
  spawn --cold -n files-$$ "$top/app"
  for file in .envrc .mcp.json .vscode/tasks.json .vscode/new .claude/settings.json tools/hooks/pre-commit \
    tools/hooks/new tools/lint tools/gitconfig; do
    run ! in_worker files-$$ "echo evil >>'$file'"
    run ! in_worker files-$$ "rm -rf '$file' && echo evil >'$file'"
  done
  in_worker files-$$ 'touch tools/new .claude/new'
}

@test "what a worker adds that programs on the host run is reported when it stops" {
  make_repository "$top/app"
  spawn --cold -n quiet-$$ "$top/app"
  work quiet-$$
  run -0 --separate-stderr "$scripts/coordinator.ts" stop quiet-$$
  [[ $stderr != *"Your git, editor or shell"* ]]
  spawn --cold -n loud-$$ "$top/app"
  in_worker loud-$$ 'echo evil >.envrc; mkdir .vscode; echo evil >.vscode/tasks.json; git init --quiet "new
repo"; git -C new* config core.fsmonitor evil; echo ../evil >.git/commondir
    mkdir -p objects refs; printf "[alias]\n\tst = !evil\n" >config; echo hook >.git/hooks/x || mkdir evil; ln -s /etc .husky'
  run -0 --separate-stderr "$scripts/coordinator.ts" stop loud-$$
  [[ $stderr == *"may run these files of $top/app"* ]]
  for line in '.envrc: direnv' '.vscode/tasks.json: VS Code' 'new\x0arepo/.git/config: settings of git: core.fsmonitor' \
    '.git/commondir: git reads' 'config: settings of git: alias.st'; do
    [[ $stderr == *"  $line"* ]] || { echo "missing: $line"; false; }
  done
  [[ $stderr != *".husky"* ]]
}

@test "a configuration that git on the host has written can be changed, and that is told" {
  make_repository "$top/app"
  spawn --cold -n host-$$ "$top/app"
  run ! in_worker host-$$ 'git config planted.before yes'
  git -C "$top/app" config user.name Dave
  in_worker host-$$ 'git config planted.after yes'
  # The first process compares places and not inodes, which git on the host changes.
  docker restart --time 0 host-$$
  wait_for 10 in_worker host-$$ 'grep " /workspace/.git/config ro," /proc/self/mountinfo'
  in_worker host-$$ '! git config planted.again yes'
  run -0 --separate-stderr "$scripts/coordinator.ts" stop host-$$
  [[ $stderr == *"  .git/config: settings of git: planted.after"* ]]
}

@test "a session's agent is told about the guard, and sessions show lists what it has added" {
  make_repository "$top/app"
  opened=$("$claudy" --detach --json "$top/app")
  session=$(jq -r .session <<<"$opened")
  context=$HAL9000_HOME/claude/$session/hal9000-context.md
  grep -F 'Read-only, because programs of the host run them: .git/config' "$context"
  [ "$("$claudy" sessions show "$session" --json | jq -c .planted)" = '[]' ]
  in_worker "$session" 'echo evil >.envrc'
  expected='[{"path":".envrc","what":"direnv, on entering the directory"}]'
  [ "$("$claudy" sessions show "$session" --json | jq -c .planted)" = "$expected" ]
  run -0 --separate-stderr "$claudy" stop "$session"
  [[ $stderr == *"may run these files of $top/app"*"  .envrc: direnv"* ]]
  "$claudy" sessions show "$session" | grep -E '^planted +\.envrc: direnv'
  "$claudy" --detach --unguarded "$top/app"
  [ "$("$claudy" sessions show "$session" --json | jq -c .planted)" = '[]' ]
  run ! grep -F .git/config "$context"
  in_worker "$session" 'git config planted.here yes'
  run -0 --separate-stderr "$claudy" stop "$session"
  [[ $stderr == *"  .git/config: settings of git: planted.here"* ]]
}

@test "--unguarded lets the worker change hooks and configuration, and says so" {
  make_repository "$top/app"
  run -0 spawn --cold --unguarded -n unguarded-$$ "$top/app"
  [[ $output == *"Unguarded: the worker can change .git/hooks, .git/config"* ]]
  in_worker unguarded-$$ "git config core.fsmonitor 'touch $(marker)'"
  git -C "$top/app" status
  [ -e "$(marker)" ]
  run -0 env UNGUARDED=true "$scripts/spawn-worker.ts" "$top/app" -- git config planted.here yes
}
