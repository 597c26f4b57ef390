# Wrong uses of the commands: an exit code, an error message, and nothing left behind.
# Each row: code | message | command.

load ../helper/load

setup_file() {
  start_instance
  make_project app
  touch "$HAL9000_PROJECT_ROOTS/file"
  mkdir -p "$HAL9000_PROJECT_ROOTS/me/.ssh" "$HAL9000_PROJECT_ROOTS/me/.config/gcloud" "$HAL9000_PROJECT_ROOTS/me/me"
  ln -sfn /etc "$HAL9000_PROJECT_ROOTS/to-etc"
  ln -sfn / "$HAL9000_PROJECT_ROOTS/to-root"
  ln -sfn "$HAL9000_HOME" "$HAL9000_PROJECT_ROOTS/to-home"
  ln -sfn gone "$HAL9000_PROJECT_ROOTS/dangling"
  ln -sfn ring "$HAL9000_PROJECT_ROOTS/ring"
  export OWNED=${OWNED:-owned-$$}
  # Files that the parent writes at its start must not count as left by a command.
  wait_for 60 docker exec "$parent" /scripts/healthcheck
  "$scripts/spawn-worker.ts" -d -n "$OWNED" "$HAL9000_PROJECT_ROOTS/app"
}

teardown() { after_failure; }

teardown_file() {
  stop_workers
}

containers() { docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | sort; }
kept() { find "$HAL9000_HOME" -path "$HAL9000_HOME/logs" -prune -o -type f -print | sort; }

# Runs the table on stdin; `$P` in a row is the directory of the projects.
refuses() {
  local code sentence command rows=0 before
  before=$(containers; kept)
  while IFS='|' read -r code sentence command; do
    [ -n "$code" ] || continue
    code=${code// /} sentence=$(xargs -d '\n' <<<"$sentence" | sed 's/^ *//; s/ *$//')
    sentence=${sentence/\$OWNED/$OWNED}
    status=0
    stdout=$(P=$HAL9000_PROJECT_ROOTS PATH=$scripts:$PATH bash -c "$command" 2>"$BATS_TEST_TMPDIR/err" </dev/null) ||
      status=$?
    stderr=$(cat "$BATS_TEST_TMPDIR/err")
    if [ "$status" != "$code" ] || [[ $stderr != *"$sentence"* ]] || [ -n "$stdout" ] ||
      [[ $stderr != error:* ]] || [[ $stderr == *"    at "* ]]; then
      printf 'row: %s\nexit code %s, stdout: %s\n%s\n' "$command" "$status" "$stdout" "$stderr"
      return 1
    fi
    rows=$((rows + 1))
  done
  diff <(echo "$before") <(containers; kept) || { echo "something was left behind"; return 1; }
  echo "# $rows rows" >&3
}

@test "refuses wrong directories" {
  refuses <<'ROWS'
    4 | there is no such file or directory | spawn-worker.ts -d $P/gone
    4 | there is no such file or directory | spawn-worker.ts -d $P/dangling
    4 | there is no such file or directory | spawn-worker.ts -d ''$P/app/x/y
    2 | it is not a directory              | spawn-worker.ts -d $P/file
    2 | a part of it is not a directory    | spawn-worker.ts -d $P/file/x
    2 | too many symbolic links            | spawn-worker.ts -d $P/ring
    2 | it is too long                     | spawn-worker.ts -d $P/$(printf 'x%.0s' {1..256})
    4 | there is no such file or directory | spawn-worker.ts -d /$(printf 'x/%.0s' {1..4000})
    6 | it is a system directory           | spawn-worker.ts -d /
    6 | it is a system directory           | spawn-worker.ts -d $P/to-root
    6 | it is a system directory           | spawn-worker.ts -d /usr
    6 | it is a system directory           | spawn-worker.ts -d /var
    6 | it is part of the system           | spawn-worker.ts -d /etc
    6 | it is part of the system           | spawn-worker.ts -d $P/to-etc
    6 | it is part of the system           | spawn-worker.ts -d $P/to-etc/ssl
    6 | it is part of the system           | spawn-worker.ts -d /proc/self
    6 | it is part of the system           | spawn-worker.ts -d /run
    6 | it is part of the system           | spawn-worker.ts -d /var/run
    6 | it is part of HAL9000_HOME         | spawn-worker.ts -d $HAL9000_HOME
    6 | it is part of HAL9000_HOME         | spawn-worker.ts -d $P/to-home
    6 | it is part of HAL9000_HOME         | spawn-worker.ts -d $HAL9000_HOME/sessions
    6 | it contains HAL9000_HOME           | spawn-worker.ts -d $HAL9000_TEST_ROOT
    6 | it is a home directory             | HOME=$P/me spawn-worker.ts -d $P/me
    6 | it contains the home directory     | HOME=$P/me/me spawn-worker.ts -d $P/me
    6 | /.ssh holds keys, logins or settings | spawn-worker.ts -d $P/me/.ssh
    6 | /.config holds keys, logins or settings | HOME=$P/me spawn-worker.ts -d $P/me/.config/gcloud
    6 | run on the host                    | spawn-worker.ts -d $(dirname "$(dirname "$(command -v spawn-worker.ts)")")
    6 | /.ssh holds keys, logins or settings | docker exec $HAL9000_PREFIX-parent /scripts/spawn-worker -d $P/me/.ssh
    6 | it is a home directory             | docker exec $HAL9000_PREFIX-parent /scripts/spawn-worker -d $(getent passwd 0 | cut -d: -f6)
ROWS
}

@test "refuses an empty directory and other spellings of the home" {
  refuses <<'ROWS'
    2 | An argument is empty               | spawn-worker.ts -d ""
    6 | it is part of HAL9000_HOME         | HAL9000_HOME=$P/to-home spawn-worker.ts -d $HAL9000_HOME/sessions
    6 | it is part of HAL9000_HOME         | HAL9000_HOME=$P/../home spawn-worker.ts -d $HAL9000_HOME
    6 | it is part of HAL9000_HOME         | HAL9000_HOME=/$HAL9000_HOME// spawn-worker.ts -d $HAL9000_HOME
ROWS
}

@test "refuses a home that holds unrelated files" {
  mkdir -p "$BATS_TEST_TMPDIR/mine/config"
  refuses <<'ROWS'
    6 | cannot be HAL9000_HOME             | HAL9000_HOME=$HOME init-volumes.ts
    6 | cannot be HAL9000_HOME             | HAL9000_HOME=/tmp init-volumes.ts
    6 | is not the home of an instance     | HAL9000_HOME=$BATS_TEST_TMPDIR/mine HAL9000_PREFIX=hal9000-test-mine init-volumes.ts --clean --yes
ROWS
  [ -d "$BATS_TEST_TMPDIR/mine/config" ]
}

@test "refuses wrong names and images" {
  refuses <<'ROWS'
    2 | Invalid name               | spawn-worker.ts -d -n 007 $P/app
    2 | Invalid name               | spawn-worker.ts -d -n 'a b' $P/app
    2 | Invalid name               | spawn-worker.ts -d -n ../x $P/app
    2 | Invalid name               | spawn-worker.ts -d -n=-x $P/app
    2 | Invalid name               | spawn-worker.ts -d -n x $P/app
    2 | Invalid name               | spawn-worker.ts -d -n $(printf 'x%.0s' {1..300}) $P/app
    2 | Invalid name               | spawn-worker.ts -d -n dävid $P/app
    2 | Invalid name               | spawn-worker.ts -d -n 'a;id' $P/app
    2 | Invalid name               | spawn-worker.ts -d --name= $P/app
    2 | --name <name>" needs a value | spawn-worker.ts -d $P/app -n
    2 | was given 2 times          | spawn-worker.ts -d -n one -n two $P/app
    2 | is reserved                | spawn-worker.ts -d -n $HAL9000_PREFIX-worker-0123abcd $P/app
    5 | the name is taken          | spawn-worker.ts -d -n $OWNED $P/app
    2 | is reserved                | spawn-worker.ts -d -n $HAL9000_PREFIX-parent $P/app
    2 | is reserved                | spawn-worker.ts -d -n $HAL9000_PREFIX-net $P/app
    2 | An argument is empty         | spawn-worker.ts -d -n new -i "" $P/app
    4 | there is no image no/such:image | spawn-worker.ts -d -n new -i no/such:image $P/app
    4 | there is no image worker   | WORKER_IMAGE=worker spawn-worker.ts -d -n new $P/app
    1 | invalid reference format   | spawn-worker.ts -d -n new -i 'No Such' $P/app
ROWS
}

@test "refuses wrong sizes and numbers" {
  refuses <<'ROWS'
    2 | --memory must be a size        | spawn-worker.ts -d --memory lots $P/app
    2 | --memory must be a size        | spawn-worker.ts -d --memory 4gb $P/app
    2 | --memory must be a size        | spawn-worker.ts -d --memory=-1g $P/app
    2 | --memory must be a size of at least 6m | spawn-worker.ts -d --memory 1k $P/app
    2 | WORKER_MEMORY must be a size of at least 6m | WORKER_MEMORY=0 spawn-worker.ts -d $P/app
    2 | --memory must be a size of at most | spawn-worker.ts -d --memory 99999999999t $P/app
    2 | environment: HAL9000_PARENT must be a container's name | HAL9000_PARENT='.*' spawn-worker.ts -d $P/app
    2 | --cpus must be a number        | spawn-worker.ts -d --cpus two $P/app
    2 | --cpus must be at least 0.01   | spawn-worker.ts -d --cpus 0 $P/app
    2 | --pids-limit must be a whole   | spawn-worker.ts -d --pids-limit 1.5 $P/app
    2 | --pids-limit must be a whole   | spawn-worker.ts -d --pids-limit 0 $P/app
    2 | --no-limits excludes --memory, | spawn-worker.ts -d --no-limits --memory 1g $P/app
    2 | environment: WORKER_MEMORY must be | WORKER_MEMORY=x spawn-worker.ts -d $P/app
    2 | environment: CHROMADB_PORT must be | CHROMADB_PORT=99999 coordinator.ts list
    2 | environment: HAL9000_PREFIX must be | HAL9000_PREFIX='a b' coordinator.ts list
    2 | HAL9000_HOME must be an absolute path | HAL9000_HOME=here coordinator.ts list
    2 | --tail must be a whole number  | coordinator.ts logs $OWNED --tail some
    2 | --tail must be a whole number  | claudy.ts daemon logs --tail=-3
    2 | --publish must be              | claudy.ts daemon start --publish 3000
    2 | --publish must be              | claudy.ts daemon start --publish 0:70000
    5 | Cannot change the published ports while workers run: $OWNED | claudy.ts daemon start --publish 3999:3999
ROWS
}

@test "refuses wrong options and arguments" {
  refuses <<'ROWS'
    2 | Did you mean "--detach"        | spawn-worker.ts --detatch $P/app
    2 | Unknown option -z              | spawn-worker.ts -z $P/app
    2 | Unexpected arguments           | spawn-worker.ts -d $P/app $P/app
    2 | Cannot attach: stdin is not a terminal | spawn-worker.ts $P/app
    2 | --json needs --detach          | spawn-worker.ts --json $P/app
    2 | --env must be KEY=VALUE        | spawn-worker.ts -d --env A $P/app
    2 | --env must be KEY=VALUE        | spawn-worker.ts -d --env '1=x' $P/app
    2 | --env cannot set HOME          | spawn-worker.ts -d --env HOME=/x $P/app
    2 | --env cannot set PATH          | spawn-worker.ts -d --env PATH=/x $P/app
    2 | Secret A is given twice        | spawn-worker.ts -d --secret A=$P/file --secret A=$P/file $P/app
    2 | Cannot read the file of secret | spawn-worker.ts -d --secret A=$P/app $P/app
    2 | Unknown option --publish       | claudy.ts daemon stop --publish 3999:3999
    2 | --status and --clean exclude | init-volumes.ts --clean --status
    2 | --secret must be NAME          | spawn-worker.ts -d --secret a/b=/x $P/app
    2 | Secret NOT_SET is not set      | spawn-worker.ts -d --secret NOT_SET $P/app
    4 | Cannot read the file of secret | spawn-worker.ts -d --secret A=$P/gone $P/app
    2 | --mount must be SRC:DST        | spawn-worker.ts -d --mount $P/app $P/app
    2 | --mount must be SRC:DST        | spawn-worker.ts -d --mount $P/app:data $P/app
    4 | as mount: there is no such     | spawn-worker.ts -d --mount $P/gone:/data $P/app
    6 | as mount: it is part of the system | spawn-worker.ts -d --mount /etc:/data $P/app
    6 | as mount: it is part of the system | spawn-worker.ts -d --mount /var/run/docker.sock:/data $P/app
    6 | Cannot mount at "/workspace"   | spawn-worker.ts -d --mount $P/app:/workspace $P/app
    6 | Cannot mount at "/etc/passwd"  | spawn-worker.ts -d --mount $P/file:/etc/passwd $P/app
    6 | Cannot mount at "/"            | spawn-worker.ts -d --mount $P/app:/ $P/app
    6 | Cannot mount at "/data/../etc" | spawn-worker.ts -d --mount $P/app:/data/../etc $P/app
    6 | Cannot mount at "/./etc"       | spawn-worker.ts -d --mount $P/app:/./etc $P/app
    6 | Cannot mount at "//etc/x"      | spawn-worker.ts -d --mount $P/app://etc/x $P/app
    6 | Cannot mount at "//workspace"  | spawn-worker.ts -d --mount $P/app://workspace $P/app
    6 | Cannot mount at "/var/run/secrets" | spawn-worker.ts -d --mount $P/app:/var/run/secrets $P/app
    6 | Cannot mount at "/run/secrets/y" | spawn-worker.ts -d --mount $P/app:/run/secrets/y $P/app
    6 | Cannot mount at "/home/claude/.claude/x" | spawn-worker.ts -d --mount $P/app:/home/claude/.claude/x $P/app
    2 | has "/data" twice              | spawn-worker.ts -d --mount $P/app:/data --mount $P/file:/data/ $P/app
    2 | No command was given           | coordinator.ts
    2 | Did you mean "list"            | coordinator.ts lst
    2 | Missing arguments: "stop       | coordinator.ts stop
    2 | Unexpected arguments           | coordinator.ts list $OWNED
    2 | Did you mean "restart"         | claudy.ts daemon restrt
    2 | Did you mean "check"           | claudy.ts config chek
    2 | There is no image "nonsense"   | build-images.ts --only nonsense
ROWS
}

@test "reports missing workers, terminals and engines" {
  refuses <<'ROWS'
    4 | Did you mean "$OWNED"     | coordinator.ts stop ${OWNED/owned/ownde}
    4 | There is no worker "nobody"    | coordinator.ts stop nobody nothing
    4 | There is no worker "../$OWNED"  | coordinator.ts logs ../$OWNED
    4 | There is no worker "nobody"    | coordinator.ts logs nobody
    4 | There is no worker "nobody"    | coordinator.ts attach nobody
    2 | Cannot attach: stdin is not a terminal | coordinator.ts attach $OWNED
    6 | Not a terminal, so cannot ask | coordinator.ts stop-all
    5 | in use by                      | init-volumes.ts --clean --yes
    4 | none does not exist            | HAL9000_HOME=$BATS_TEST_TMPDIR/none HAL9000_PREFIX=hal9000-test-none rollback.ts --yes
    3 | the engine at /no.sock is out of reach (there is no socket) | DOCKER_HOST=unix:///no.sock coordinator.ts list
    3 | the engine at 127.0.0.1:1 is out of reach (connection refused) | DOCKER_HOST=tcp://127.0.0.1:1 spawn-worker.ts -d $P/app
    3 | Cannot read docker context     | DOCKER_CONTEXT=gone coordinator.ts list
ROWS
  [ "$("$scripts/coordinator.ts" count)" = 1 ]
}

@test "reports a stopped parent" {
  HAL9000_HOME=$BATS_TEST_TMPDIR/home HAL9000_PREFIX=hal9000-test-down \
    run -4 spawn "$HAL9000_PROJECT_ROOTS/app"
  [[ $output == *"the parent is not running"*"claudy daemon start"* ]]
}

@test "refuses an engine that is too old" {
  deno=$(echo "$repo"/node_modules/@deno/*/deno)
  "$deno" eval --no-lock "
    import { createServer } from 'node:http';
    const server = createServer((_, reply) => reply.end(JSON.stringify(
      { Version: '19.03.1', ApiVersion: '1.40', Arch: 'amd64' },
    )));
    server.listen(0, '127.0.0.1', () => console.log(server.address().port));" >"$BATS_TEST_TMPDIR/old" 3>&- &
  old=$!
  wait_for 10 test -s "$BATS_TEST_TMPDIR/old"
  DOCKER_HOST=tcp://127.0.0.1:$(cat "$BATS_TEST_TMPDIR/old") run -3 "$scripts/engine.ts" start
  kill "$old"
  [[ $output == *"engine 19.03.1: its API 1.40 is older than 1.41"* ]]
}

@test "reports errors of the settings file with their line numbers" {
  conf=$HAL9000_HOME/config/hal9000.conf
  cp "$conf" "$BATS_TEST_TMPDIR/conf"
  printf '# mine\nMIN_WARM_WORKERS=abc\nWORKER_MEMROY=1g\n' >"$conf"
  run -2 "$scripts/coordinator.ts" list
  [[ $output == *'config/hal9000.conf:2: MIN_WARM_WORKERS must be a whole number from 0 to 100, got "abc"'* ]]
  run -2 "$scripts/claudy.ts" config check
  [[ $output == *'hal9000.conf:2: MIN_WARM_WORKERS'* ]]
  [[ $output == *'hal9000.conf:3: unknown setting WORKER_MEMROY. Did you mean "WORKER_MEMORY"?'* ]]
  printf 'nonsense\n' >"$conf"
  run -2 "$scripts/coordinator.ts" list
  [[ $output == *'config/hal9000.conf:1: must be KEY=VALUE'* ]]
  cp "$BATS_TEST_TMPDIR/conf" "$conf"
  run -0 "$scripts/claudy.ts" config check
}

@test "moves a damaged record aside and continues" {
  echo '{"version":1,' >"$HAL9000_HOME/sessions/broken.json"
  run -0 "$scripts/coordinator.ts" list
  # When a worker ends, the parent reads all records.
  spawn -n short-$$ "$HAL9000_PROJECT_ROOTS/app"
  docker kill short-$$
  aside() { find "$HAL9000_HOME/sessions/damaged" -name 'broken.json.*' | grep broken; }
  wait_for 20 aside
  [ ! -e "$HAL9000_HOME/sessions/broken.json" ]
  docker logs "$parent" 2>&1 | grep 'broken.json is damaged; it was moved to'
}

@test "succeeds when the reader of stdout has gone" {
  "$scripts/coordinator.ts" list | head -n 0
  [ "${PIPESTATUS[0]}" = 0 ]
  "$scripts/coordinator.ts" list >&-
}
