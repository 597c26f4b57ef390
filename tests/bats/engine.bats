load ../helper/load

# Runs engine.ts start without an engine, as a user who may not install one; $1 is an
# os-release file.
without_engine() {
  # Replaces the image's /run, which only root can enter.
  mkdir -m 0755 "$BATS_TEST_TMPDIR/run"
  docker run --rm --user 1000 --volume "$BATS_TEST_TMPDIR/run:/run:ro" --env DENO_DIR=/tmp/deno --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$1:/etc/os-release:ro" --volume "$repo/build/scripts:/s:ro" \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config /s/engine.js start
}

setup_file() {
  make -s -C "$BATS_TEST_DIRNAME/../.." build
}

@test "make engine uses a running engine and is idempotent" {
  before=$(pgrep -x dockerd)
  for _ in 1 2; do
    run -0 make -C "$repo" engine
    [[ $output == *"Engine "*" answers at "* ]]
    [[ $output != *"Starting"* ]]
  done
  [ "$(pgrep -x dockerd)" = "$before" ]
}

# If the engine kept a pipe of the suite that started it, the suite would never see the
# end of that pipe.
@test "an engine started by this run holds none of the run's pipes open" {
  engine=/proc/$(pgrep -xo dockerd)/fd
  need_root
  as_root ls "$engine" >/dev/null
  for file in /proc/self/fd/*; do
    file=$(readlink "$file") || continue
    [[ $file == pipe:* ]] || continue
    # Other descriptors may be closed meanwhile.
    [ -z "$(as_root find "$engine" -lname "${file//[/\\[}" 2>/dev/null || true)" ]
  done
}

@test "DOCKER_HOST selects the engine, and no engine is installed" {
  DOCKER_HOST=unix:///no/such.sock run -3 "$scripts/engine.ts" start
  [[ $output == *"Cannot reach an engine at unix:///no/such.sock"* ]]
  [[ $output == *"unset DOCKER_HOST"* ]]
}

@test "a docker context selects the engine" {
  export DOCKER_CONFIG=$BATS_TEST_TMPDIR
  docker context create here --docker host=unix:///var/run/docker.sock
  DOCKER_CONTEXT=here run -0 "$scripts/engine.ts" start
  docker context create there --docker host=unix:///no/such.sock
  docker context use there
  run -3 "$scripts/coordinator.ts" list
  [[ $output == *"out of reach"* ]]
}

@test "exits with 3 and the install command if there is no engine on Debian and no root" {
  echo 'ID=debian' >"$BATS_TEST_TMPDIR/os-release"
  run -3 without_engine "$BATS_TEST_TMPDIR/os-release"
  [[ $output == *"sudo apt-get install docker.io"* ]]
}

@test "exits with 3 and an installation link if there is no engine on another system" {
  echo 'ID=alpine' >"$BATS_TEST_TMPDIR/os-release"
  run -3 without_engine "$BATS_TEST_TMPDIR/os-release"
  [[ $output == *"https://docs.docker.com/engine/install/"* ]]
}
