# Files that a worker leaves on the host, and files that workers share.

load ../helper/load

deno=$(echo "$repo"/node_modules/@deno/*/deno)

teardown() {
  after_failure
  stop_workers
}

# Lists the attempts of a worker that left a set-uid or set-gid file.
attempts() { # attempts WORKER
  docker exec "$1" /opt/deno run -A --no-lock --no-config --quiet /opt/set-uid.ts /workspace
}
spawn_attacker() { # spawn_attacker NAME PROJECT
  spawn -n "$1" --mount "$deno:/opt/deno:ro" --mount "$repo/tests/helper/set-uid.ts:/opt/set-uid.ts:ro" "$2"
}
special() { find "$1" \( -perm /6000 -o -type b -o -type c \) -print; }

@test "a worker cannot leave a set-uid, set-gid or device file on the host" {
  make_project as-root
  make_others_project as-user
  for user in root user; do
    project=$HAL9000_PROJECT_ROOTS/as-$user
    spawn_attacker "leaver-$user-$$" "$project"
    [ -z "$(attempts "leaver-$user-$$")" ]
    [ -z "$(special "$project")" ]
    [ -f "$project/chmod-4755" ]
  done
}

@test "ordinary tools work although set-uid files are refused" {
  project=$(make_others_project tools)
  spawn -n tools-$$ "$project"
  docker exec tools-$$ bash -ec '
    cd /workspace
    echo x >file && chmod 640 file && cp -p file copy && install -m 755 file installed
    [ "$(stat -c %a copy) $(stat -c %a installed)" = "640 755" ]
    cp -a /etc/hal9000 all && mkdir -m 1777 sticky
    tar -cf files.tar file installed && mkdir out && tar -xpf files.tar -C out
    git init --quiet repo && cd repo && git config user.email a@b && git config user.name a
    cp ../file . && git add . && git commit --quiet -m one && cd .. && git clone --quiet repo clone
    claude --version'
  run docker exec tools-$$ chmod u+s /workspace/file
  [[ $output == *"Operation not permitted"* ]]
}

@test "WORKER_SECCOMP=engine uses the engine's default profile" {
  project=$(make_project free)
  WORKER_SECCOMP=engine spawn_attacker free-$$ "$project"
  [ "$(inspect free-$$ '{{len .HostConfig.SecurityOpt}}')" = 1 ]
  attempts free-$$ | grep -qx "chmod 4755"
  rm -r "${project:?}"/*
}

@test "an engine that refuses the profile does not get it, and doctor warns" {
  trial=$HAL9000_HOME/run/seccomp.json
  cp "$trial" "$BATS_TEST_TMPDIR/trial"
  jq '.fault = "seccomp is not supported"' "$BATS_TEST_TMPDIR/trial" >"$trial"
  spawn -n unfiltered-$$ "$(make_project unfiltered)"
  [ "$(inspect unfiltered-$$ '{{len .HostConfig.SecurityOpt}}')" = 1 ]
  run "$scripts/claudy.ts" doctor --json
  jq -e '.[] | select(.name == "seccomp") | .state == "warn" and (.says | contains("not supported"))' <<<"$output"
  # The result of another engine is discarded: the profile is tested again and works.
  jq '.engine = "another"' "$trial" >"$BATS_TEST_TMPDIR/other"
  cp "$BATS_TEST_TMPDIR/other" "$trial"
  "$scripts/claudy.ts" daemon start >/dev/null
  jq -e '.fault == null' "$trial"
  "$scripts/claudy.ts" doctor --json | jq -e '.[] | select(.name == "seccomp") | .state == "ok"'
}

@test "hosts, resolv.conf and hostname are the same for all workers and read-only" {
  spawn -n writes-$$ "$(make_project writer)"
  spawn -n reads-$$ "$(make_project reader)"
  before=$(docker cp "$net:/etc/hosts" - | tar -xO)
  for file in hosts resolv.conf hostname; do
    run ! docker exec writes-$$ sh -c "echo 6.6.6.6 evil >>/etc/$file"
    [[ $output == *"Read-only file system"* ]]
    docker exec reads-$$ cat "/etc/$file" | diff - <(docker cp "$net:/etc/$file" - | tar -xO)
  done
  docker exec reads-$$ bash -c 'exec 3<>/dev/tcp/localhost/8000'
  # Changes by the engine at a restart reach running workers.
  echo "stale" >"$HAL9000_HOME/run/net/hosts"
  "$scripts/claudy.ts" daemon restart >/dev/null
  [ "$before" = "$(docker exec reads-$$ cat /etc/hosts)" ]
}
