# doctor: what is well, what is not, and what mends it.

# shellcheck disable=SC2030,SC2031  # each test examines for itself

load ../helper/load

claudy=$scripts/claudy.ts

setup() { project=$(make_project examined); }

teardown() { stop_workers; }

examine() { checks=$("$claudy" doctor --json) || return; }
found() { jq -r --arg name "$1" '.[] | select(.name == $name) | .state' <<<"$checks"; }
mends() { jq -r --arg name "$1" '.[] | select(.name == $name) | .mend' <<<"$checks"; }

@test "all is well with an instance that is well" {
  spawn -n well "$project"
  run -0 "$claudy" doctor
  [[ $output != *FAIL* ]]
  examine
  [ "$(jq -r '[.[] | select(.state != "ok" and .name != "disk" and .name != "memory" and .name != "credentials")] | length' <<<"$checks")" = 0 ]
  for flag in --verify --diagnose; do
    run -0 "$claudy" "$flag"
    [[ $output == *"ChromaDB"* || $output == *"chromadb"* ]]
  done
}

@test "a home that is open to others is named, with what mends it" {
  chmod 755 "$HAL9000_HOME"
  run examine
  chmod 700 "$HAL9000_HOME"
  [ "$status" = 1 ]
  chmod 755 "$HAL9000_HOME"
  examine || true
  chmod 700 "$HAL9000_HOME"
  [ "$(found home)" = fail ]
  [ "$(mends home)" = "chmod 700 $HAL9000_HOME" ]
}

@test "a worker without a record is named" {
  docker run --detach --name "$HAL9000_PREFIX-planted" --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=worker --entrypoint sleep "$HAL9000_IMAGE_REPO:worker" 60
  examine
  docker rm --force "$HAL9000_PREFIX-planted"
  [ "$(found leftovers)" = warn ]
  [[ $(mends leftovers) == *"$HAL9000_PREFIX-planted"* ]]
}

@test "a daemon that is stopped, and an engine that does not answer, are named" {
  "$claudy" daemon stop
  examine || true
  [ "$(found parent)" = fail ]
  [ "$(mends parent)" = "claudy daemon start" ]
  "$claudy" daemon start >/dev/null
  checks=$(DOCKER_HOST=unix:///nowhere.sock "$claudy" doctor --json) || true
  [ "$(found engine)" = fail ]
  [ "$(mends engine)" = "make engine" ]
  [ "$(found parent)" = "" ]
}

@test "credentials are told of, never shown" {
  unset ANTHROPIC_API_KEY
  examine
  [ "$(found credentials) $(mends credentials)" = "warn claudy login" ]
  ANTHROPIC_API_KEY=sk-ant-planted-doctor examine
  [ "$(found credentials)" = ok ]
  [[ $checks != *planted* ]]
}

@test "prune shows what is old and how much, asks, and removes that alone" {
  rm -rf "$HAL9000_HOME"/backups/*
  mkdir -p "$HAL9000_HOME/logs" "$HAL9000_HOME/backups/one" "$HAL9000_HOME/backups/two" "$HAL9000_HOME/workers/gone-12345678"
  head -c 3000000 /dev/zero >"$HAL9000_HOME/logs/old.log"
  touch "$HAL9000_HOME/logs/new.log" "$HAL9000_HOME/workers/gone-12345678/file"
  touch -d "40 days ago" "$HAL9000_HOME/logs/old.log" "$HAL9000_HOME/backups/one" "$HAL9000_HOME/workers/gone-12345678"
  touch -d "35 days ago" "$HAL9000_HOME/backups/two"
  run -0 "$claudy" prune --dry-run
  [[ $output == *"old.log"*"3 together"* || $output == *"old.log"* ]]
  run -6 "$claudy" prune
  [[ $output == *"3.0 MB"* ]]
  [ -e "$HAL9000_HOME/logs/old.log" ]
  removed=$("$claudy" prune --yes --json)
  [ "$(jq -r 'map(select(.kind != "image")) | map(.kind) | sort | join(" ")' <<<"$removed")" = "backup home log" ]
  [ ! -e "$HAL9000_HOME/logs/old.log" ]
  [ ! -e "$HAL9000_HOME/backups/one" ]
  [ -e "$HAL9000_HOME/backups/two" ]
  [ -e "$HAL9000_HOME/logs/new.log" ]
  rm -r "$HAL9000_HOME/backups/two"
  run -0 "$claudy" prune
  [[ $output == *"Nothing is that old"* ]]
  run -2 "$claudy" prune --older-than x
}
