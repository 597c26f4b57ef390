# Every script runs from the checkout, from any directory.

load ../helper/load

@test "every script shows its help and version from any directory" {
  cd /
  for script in "$scripts"/*.ts; do
    run -0 "$script" --help
    [[ $output == *"Usage:"* ]]
    run -0 "$script" --version
    [[ $output == *" $(jq -r .version "$repo/package.json") (build "*")" ]]
  done
}

@test "a script runs through a symbolic link" {
  ln -s "$scripts/spawn-worker.ts" "$BATS_TEST_TMPDIR/spawn"
  run -0 "$BATS_TEST_TMPDIR/spawn" --help
  [[ $output == *"--detach"* ]]
}

@test "a script passes arguments unchanged" {
  run -2 "$scripts/spawn-worker.ts" -d -n 'a  b"$(id)' /
  [[ $output == *'Invalid name "a  b"$(id)"'* ]]
}

@test "every script runs under deno run" {
  deno=$(echo "$repo"/node_modules/@deno/*/deno)
  for script in "$scripts"/*.ts; do
    run -0 "$deno" run -A --no-lock "$script" --help
    [[ $output == *"Usage:"* ]]
  done
}

@test "every script runs under a Node that strips types" {
  version=24.21.0
  npm install --no-save --loglevel=error --prefix "$BATS_FILE_TMPDIR/node" \
    "node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')@$version"
  node=$(echo "$BATS_FILE_TMPDIR"/node/node_modules/node-linux-*/bin/node)
  [ "$("$node" --version)" = "v$version" ]
  for script in "$scripts"/*.ts; do
    run -0 "$node" "$script" --help
    [[ $output == *"Usage:"* ]]
  done
  run -0 "$node" "$scripts/coordinator.ts" list --json
}

@test "the launcher refuses a Node that cannot strip types and prints what to install" {
  # A checkout without packages, and a PATH with only an old Node.
  mkdir -p "$BATS_TEST_TMPDIR/checkout" "$BATS_TEST_TMPDIR/bin"
  cp -r "$scripts" "$BATS_TEST_TMPDIR/checkout/"
  printf '#!/bin/sh\n[ "$1" = --version ] && echo v20.19.0 || echo "node was run"\n' \
    >"$BATS_TEST_TMPDIR/bin/node"
  chmod +x "$BATS_TEST_TMPDIR/bin/node"
  for tool in sh dirname readlink sort head printf basename sed; do
    ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/bin/$tool"
  done
  # Another user may have put a Deno above it, as in /tmp.
  mkdir -p "$BATS_TEST_TMPDIR/node_modules/@deno/evil"
  printf '#!/bin/sh\necho "node was run"\n' >"$BATS_TEST_TMPDIR/node_modules/@deno/evil/deno"
  chmod +x "$BATS_TEST_TMPDIR/node_modules/@deno/evil/deno"
  PATH=$BATS_TEST_TMPDIR/bin run -1 "$BATS_TEST_TMPDIR/checkout/scripts/launch" \
    "$BATS_TEST_TMPDIR/checkout/scripts/claudy.ts" --help
  [[ $output == *"neither Deno 2.9 nor Node 22.18"* ]]
  [[ $output == *"npm ci"* ]]
  [[ $output != *"node was run"* ]]
}

@test "install.sh from a pipe runs nothing of the working directory" {
  mkdir -p "$BATS_TEST_TMPDIR/bin" "$BATS_TEST_TMPDIR/evil/lib" "$BATS_TEST_TMPDIR/to/bin"
  echo '{"name": "hal-9000-dind", "scripts": {"prepack": "touch ran"}}' |
    sed 's/{"name/{\n"name/' >"$BATS_TEST_TMPDIR/evil/package.json"
  printf '#!/bin/sh\necho "npm $*"\n' >"$BATS_TEST_TMPDIR/bin/npm"
  printf '#!/bin/sh\necho 1.0\n' | tee "$BATS_TEST_TMPDIR/bin/docker" >"$BATS_TEST_TMPDIR/to/bin/claudy"
  chmod +x "$BATS_TEST_TMPDIR"/bin/* "$BATS_TEST_TMPDIR/to/bin/claudy"
  cd "$BATS_TEST_TMPDIR/evil"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run -0 sh -s -- --prefix "$BATS_TEST_TMPDIR/to" <"$repo/install.sh"
  [[ $output != *Packing* ]]
  [[ $output == *"npm install --global --prefix $BATS_TEST_TMPDIR/to "*" hal-9000-dind"* ]]
}

@test "refuses an unknown option, command or action and suggests the closest one" {
  run -2 "$scripts/spawn-worker.ts" --detatch
  [[ $output == *"Unknown option --detatch"*"--detach"* ]]
  run -2 "$scripts/coordinator.ts" lst
  [[ $output == *'Unknown command "lst"'*'"list"'* ]]
  run -2 "$scripts/claudy.ts" daemon begin
  [[ $output == *'Unknown action "begin"'*start* ]]
}

@test "prints a stack trace only with --verbose" {
  run -4 "$scripts/coordinator.ts" stop nobody
  [[ ! $output =~ at\ .*\.[jt]s ]]
  run -4 "$scripts/coordinator.ts" stop nobody --verbose
  [[ $output =~ at\ .*\.[jt]s ]]
}

@test "reports a removed working directory without a stack trace" {
  mkdir "$BATS_TEST_TMPDIR/gone"
  cd "$BATS_TEST_TMPDIR/gone"
  rmdir "$BATS_TEST_TMPDIR/gone"
  run -4 "$scripts/claudy.ts" sessions
  [[ $output == *"Cannot run claudy.ts: the working directory was removed"* && $output != *backtrace* ]]
  cd "$BATS_TEST_TMPDIR" # has a second name, through a link
  ln -s "$BATS_TEST_TMPDIR" link
  cd link
  "$scripts/claudy.ts" --version
  PWD=/nonsense "$scripts/claudy.ts" --version
}

@test "make build bundles each script into one file that runs alone" {
  make -C "$repo" build
  cp "$repo/build/scripts/coordinator.js" "$BATS_TEST_TMPDIR/coordinator"
  cd "$BATS_TEST_TMPDIR"
  PATH=$(dirname "$repo"/node_modules/@deno/*/deno):$PATH run -0 ./coordinator list --json
  [ "$output" = "[]" ]
}

@test "claudy starts without reading the code of its subcommands" {
  make -s -C "$repo" build/fast/spawn-worker.js
  run -0 --separate-stderr "$repo/node_modules/.bin/deno" info --no-lock --no-config --json "$repo/build/fast/claudy.js"
  [ "$(jq '[.modules[] | select(.local)] | length' <<<"$output")" -lt 20 ]
}

@test "the benchmark compares each operation with Docker" {
  run -0 --separate-stderr "$scripts/build/benchmark-dind.sh" all --samples 1 --json
  [ "$(jq -c '[length > 10, all(.medianMs > 0), (map(select(.ratio != null)) | length > 5)]' <<<"$output")" = "[true,true,true]" ]
  [ -z "$(docker ps --all --quiet --filter "name=$HAL9000_PREFIX-bench")" ]
}

@test "make benchmark-migration compares each phase with cp -a" {
  run -0 --separate-stderr make -s -C "$repo" benchmark-migration FILES=200 SAMPLES=1
  [ "$(grep -c 'ms  [0-9.]* of the rate of cp -a' <<<"$output")" = 6 ]
  [[ $output == "200 files"* ]]
}

@test "make benchmark-mcp compares the way through nsenter with the gateway's socket" {
  run -0 --separate-stderr make -s -C "$repo" benchmark-mcp SAMPLES=20
  # No call got a wrong answer.
  [ "$(awk '$2 == "gateway" || $2 == "whole" { print $7 }' <<<"$output" | xargs)" = "0 0 0 0" ]
}

@test "make test-mutation finds out whether a unit test detects a change" {
  unshare --mount true 2>/dev/null || unshare --map-root-user --mount true || skip "needs root, or user namespaces"
  run -0 make -s -C "$repo" test-mutation SAMPLE=1 SEED=7 FILTER=parent/dashboard/keys
  [[ $output == *"killed 1 of 1 judged (100 %), seed 7" ]]
}

@test "make test-soak runs the tagged tests with more rounds" {
  # The variables of this run of bats would disturb the inner one.
  run -0 env -i PATH="$PATH" HOME="$HOME" TMPDIR="${TMPDIR:-/tmp}" HAL9000_TEST_IMAGES="$HAL9000_IMAGE_REPO" \
    make -s -C "$repo" test-soak SOAK=1 FILTER='repository that is replaced by a link|every script shows its help'
  [ "$(grep -c '^ok' <<<"$output")" = 1 ]
  [[ $output == *"ok 1 does not mount a repository that is replaced"* ]]
}

@test "a failing test does not wait for its timeout" {
  printf '%s\n' "source '$repo/tests/helper/load.bash'" 'setup_file() { :; }' '@test "fails" { false; }' >"$BATS_TEST_TMPDIR/failing.bats"
  run -1 env -i PATH="$PATH" HAL9000_PREFIX=x BATS_TEST_TIMEOUT=100 timeout 60 \
    "$repo/node_modules/bats/bin/bats" --tap "$BATS_TEST_TMPDIR/failing.bats"
  [[ $output == *"not ok 1 fails"* ]]
}

@test "make without a target shows the targets" {
  run -0 make -C "$repo"
  for goal in up down engine images test test-dind clean; do
    [[ $output == *"$goal "* ]]
  done
}
