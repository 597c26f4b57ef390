# doctor: what is well, what is not, and what mends it.

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
  [ "$(jq -r '[.[] | select(.state != "ok" and .name != "disk" and .name != "memory")] | length' <<<"$checks")" = 0 ]
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
