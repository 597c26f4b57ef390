# The command lines of the original's documentation, in an instance of the test's own.

load ../helper/load

hand=$HAL9000_PREFIX-hand

teardown() {
  after_failure
  remove_instance "$hand"
  docker images --format '{{.Repository}}:{{.Tag}}' "$hand" | xargs -r docker rmi >/dev/null
  stop_workers
}

# The docker run commands of docs/dind/PARENT.md, with another prefix.
by_hand() { # by_hand OPTION...
  docker run --detach --name "$hand-parent" --env HAL9000_PREFIX="$hand" \
    --volume /var/run/docker.sock:/var/run/docker.sock "$@" "$HAL9000_IMAGE_REPO:parent"
  wait_for 20 docker exec "$hand-parent" /scripts/healthcheck.sh || { docker logs --tail 40 "$hand-parent"; return 1; }
}

labels() { docker ps --all --filter "label=hal9000.instance=$hand" --format '{{.Names}}' | sort | xargs; }

@test "a parent started by hand with a mounted home spawns, lists and stops workers" {
  project=$(make_project byhand)
  home=$HAL9000_TEST_ROOT/byhand
  mkdir "$home" # Docker would create it as root
  by_hand --volume "$home:/root/.hal9000"
  run -0 --separate-stderr docker exec "$hand-parent" /scripts/spawn-worker.sh -d -n by-worker-$$ "$project"
  [ "$output" = "$(inspect by-worker-$$ '{{.Id}}')" ]
  heartbeat by-worker-$$
  [ -e "$home/sessions/by-worker-$$.json" ]
  HAL9000_PREFIX=$hand HAL9000_HOME=$home run -0 "$scripts/coordinator.ts" list
  [[ $output == *by-worker-$$* ]]
  HAL9000_PREFIX=$hand HAL9000_HOME=$home "$scripts/spawn-worker.ts" -d -n from-host-$$ "$project"
  heartbeat from-host-$$
  # As the original's own test does it: with the script of the checkout.
  docker cp "$repo/docker/coordinator.sh" "$hand-parent:/scripts/coordinator.sh"
  docker exec "$hand-parent" chmod +x /scripts/coordinator.sh
  [ "$(docker exec "$hand-parent" /scripts/coordinator.sh count)" = 2 ]
  docker exec "$hand-parent" /scripts/coordinator.sh stop by-worker-$$ from-host-$$
}

@test "a missing worker image is pulled, pulled lazily, or not pulled" {
  said() { docker logs "$hand-parent" 2>&1 | grep "$1"; }
  # No registry has this image: the test checks whether and when it is pulled.
  by_hand --env WORKER_IMAGE=localhost:9/no/such:image
  said 'Cannot pull localhost:9/no/such:image'
  docker rm --force --volumes "$hand-parent" "$hand-net" "$hand-nsenter"
  by_hand --env WORKER_IMAGE=localhost:9/no/such:image --env LAZY_IMAGE_PULL=true
  said 'Pulling localhost:9/no/such:image'
  docker rm --force --volumes "$hand-parent" "$hand-net" "$hand-nsenter"
  by_hand --env WORKER_IMAGE=localhost:9/no/such:image --env SKIP_IMAGE_PULL=true
  said 'Ready after'
  run ! said Pulling
}

@test "a parent started by hand without a mounted home spawns workers" {
  by_hand --env SKIP_IMAGE_PULL=true
  docker exec "$hand-parent" /scripts/spawn-worker.sh -d -n by-worker-$$ "$(make_project byhand)"
  heartbeat by-worker-$$
  docker exec by-worker-$$ touch /home/claude/.claude/kept
  docker exec "$hand-parent" sh -c 'ls /root/.hal9000/workers/by-worker-*/kept'
  docker exec "$hand-parent" /scripts/coordinator.sh stop by-worker-$$
}

@test "containers of a parent started by hand have the labels of its HAL9000_PREFIX" {
  home=$HAL9000_TEST_ROOT/labelled
  mkdir "$home"
  by_hand --volume "$home:/root/.hal9000"
  labelled() { [ "$(labels)" = "$hand-net $hand-nsenter" ]; }
  wait_for 10 labelled
  export HAL9000_PREFIX=$hand HAL9000_HOME=$home
  [ "$("$scripts/claudy.ts" daemon status --json | jq -r .parent)" = running ]
  # A parent of another instance is not found.
  HAL9000_PREFIX=$hand-other HAL9000_HOME=$home-other run -4 "$scripts/claudy.ts" daemon logs
  "$scripts/claudy.ts" daemon stop
  run -1 docker inspect "$hand-parent"
}

pool() { docker exec "$hand-parent" /scripts/pool-manager.sh status --json | jq -r "$1"; }
filled() { [ "$(pool '.warm | length')" = "$1" ]; }

@test "ENABLE_POOL_MANAGER and MIN_WARM_WORKERS start a pool; workers of visible projects are claimed" {
  project=$(make_project pooled)
  by_hand --env ENABLE_POOL_MANAGER=true --env MIN_WARM_WORKERS=3 \
    --volume "$HAL9000_PROJECT_ROOTS:/host$HAL9000_PROJECT_ROOTS:ro"
  wait_for 20 filled 3
  run -0 --separate-stderr docker exec "$hand-parent" /scripts/spawn-worker.sh -d -n by-pool-$$ --json "$project"
  [ "$(jq -r .start <<<"$output")" = warm ]
}

@test "a pool without visible projects shows the reason in its status, and workers start cold" {
  by_hand --env ENABLE_POOL_MANAGER=true --env MIN_WARM_WORKERS=3
  reason() { [[ $(pool .unavailable) == *"the parent sees no projects; start it with -v DIR:/host/DIR:ro"* ]]; }
  wait_for 20 reason
  run -0 --separate-stderr docker exec "$hand-parent" /scripts/spawn-worker.sh -d -n by-hand-$$ --json "$(make_project unpooled)"
  [[ $(jq -r '.start, .reason' <<<"$output") == "cold"$'\n'"the parent sees no projects"* ]]
}

@test "docker build in docker/ builds each image from the inputs that make images prepares" {
  cd "$repo/docker"
  base=debian:trixie-slim
  docker image inspect "$base" >/dev/null || base=hal9000-base:trixie
  for image in parent worker-ultramin worker-minimal; do
    docker build --quiet -f "Dockerfile.$image" -t "$hand:$image" --build-arg "BASE_IMAGE=$base" \
      --build-arg "WORKER_IMAGE=$hand:worker-ultramin" .
  done
  run -0 docker run --rm --network none "$hand:worker-minimal" claude --version
  run -0 docker run --rm --network none "$hand:parent" claudy --version
}

@test "scripts have their original names, in docker/ and in scripts/" {
  cd "$repo/docker"
  for name in spawn-worker coordinator pool-manager init-volumes setup-dashboard; do
    run -0 "./$name.sh" --help
    [[ $output == "hal9000-$name/"* ]]
  done
  ./init-volumes.sh --status
  project=$(make_project scripted)
  ./spawn-worker.sh -d -n scripted-$$ "$project"
  [[ $(bash coordinator.sh list) == *"scripted-$$"* ]]
  cd "$repo"
  run -4 ./scripts/migrate-to-dind.sh --dry-run
  [[ $output == *"No data of version 0.5"* ]]
  run -0 ./scripts/rollback-dind.sh --list-backups
  run -0 ./scripts/build/benchmark-dind.sh --help
  # Runs the tests of the integration points.
  MAKEFLAGS=n run -0 docker/test-phase1-integration.sh
  [[ $output == *'tests/dind.sh "$FILTER" tests/bats/integration-points.bats'* ]]
  [ -e tests/bats/integration-points.bats ]
}

@test "curl reaches ChromaDB in the parent, in workers and with --network=container:PARENT" {
  spawn -n curling-$$ "$(make_project curl)"
  for container in "$parent" curling-$$; do
    wait_for 20 docker exec "$container" curl --silent --fail http://localhost:8000/api/v2/heartbeat
  done
  docker run --rm --network="container:$parent" "$HAL9000_IMAGE_REPO:worker" curl --silent --fail http://localhost:8000/api/v2/heartbeat
}

@test "a mount of ~/.claude at /root/.claude is answered with what to do instead" {
  mkdir "$BATS_TEST_TMPDIR/.claude"
  run -0 docker run --rm --network none --volume "$BATS_TEST_TMPDIR/.claude:/root/.claude" "$HAL9000_IMAGE_REPO:worker" true
  [[ $output == *"/root/.claude is not used"*"claudy login"* ]]
  run -0 docker run --rm --network none "$HAL9000_IMAGE_REPO:worker" true
  [ "$output" = "" ]
}
