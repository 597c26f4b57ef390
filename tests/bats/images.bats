load ../helper/load

setup_file() { :; } # no instance

teardown() {
  docker rmi --force "registry.invalid/$HAL9000_PREFIX:worker-ultramin" >/dev/null 2>&1 || true
}

size() { docker image inspect --format '{{.Size}}' "$HAL9000_IMAGE_REPO:$1"; }

in_image() { # in_image TAG SCRIPT
  docker run --rm --network none --entrypoint bash \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    "$HAL9000_IMAGE_REPO:$1" -c "$2"
}

@test "images do not exceed their size limits" {
  [ "$(size worker-ultramin)" -le 290000000 ]
  [ "$(size worker-minimal)" -le 340000000 ]
  [ "$(size parent)" -le 264000000 ]
}

@test "the tags worker and worker-standard are worker-minimal, base is parent" {
  id() { docker image inspect --format '{{.Id}}' "$HAL9000_IMAGE_REPO:$1"; }
  [ "$(id worker)" = "$(id worker-minimal)" ]
  [ "$(id worker-standard)" = "$(id worker-minimal)" ]
  [ "$(id base)" = "$(id parent)" ]
}

@test "images have the OCI labels" {
  labels=$(docker image inspect --format '{{json .Config.Labels}}' "$HAL9000_IMAGE_REPO:parent")
  version=$(jq -r .version "$repo/package.json")
  [ "$(jq -r '."org.opencontainers.image.version"' <<<"$labels")" = "$version" ]
  [ "$(jq -r '."org.opencontainers.image.licenses"' <<<"$labels")" = Apache-2.0 ]
}

@test "a second build builds nothing and compares sizes with the original" {
  run -0 --separate-stderr "$scripts/build-images.ts" --json
  [ "$(jq -c 'map(.built) | unique' <<<"$output")" = "[false]" ]
  [ "$(jq length <<<"$output")" = 3 ]
  run -0 --separate-stderr "$scripts/build-images.ts"
  [[ $output == *"worker-ultramin "*" MB  (original 469 MB)"* ]]
}

# bats test_tags=soak
@test "concurrent builds of one checkout wait for each other" {
  for _ in $(seq "$soak"); do
    pids=()
    for build in 1 2 3 4; do
      "$scripts/build-images.ts" >"$BATS_TEST_TMPDIR/build$build" 2>&1 &
      pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
  done
}

@test "each instance has its own image names and rebuilds no image of another instance" {
  unset HAL9000_IMAGE_REPO
  other=$HAL9000_PREFIX-other
  id() { docker image inspect --format '{{.Id}}' "$1:worker-ultramin"; }
  # The location of the checkout does not matter either.
  run -1 grep -rlF "$repo/" "$repo/docker/build/scripts"
  own=$(id "$HAL9000_PREFIX")
  # Left by an instance that no longer exists, with other contents.
  printf 'FROM %s:worker-ultramin\nLABEL hal9000.inputs=former\n' "$HAL9000_PREFIX" | docker build --quiet --tag "$other:worker-ultramin" -
  run ! grep -F "$other:" <<<"$("$scripts/claudy.ts" prune --dry-run --older-than 0)"
  pruned=$("$scripts/claudy.ts" prune --dry-run --older-than 0 --all-instances)
  grep -F "$other:worker-ultramin" <<<"$pruned"
  run ! grep -F " $HAL9000_PREFIX:" <<<"$pruned"
  changed=$(id "$other")
  [ "$changed" != "$own" ]
  HAL9000_PREFIX=$other run -0 --separate-stderr "$scripts/build-images.ts" --only worker-ultramin --json
  [ "$(jq -c 'map([.tags[0], .built])' <<<"$output")" = "[[\"$other:worker-ultramin\",false]]" ]
  [ "$(id "$other") $(id "$HAL9000_PREFIX")" = "$own $own" ]
  run -1 docker image inspect "$changed"
  docker rmi "$other:worker-ultramin"
}

@test "a pulled image that names itself like one of ours is not used as one" {
  # A registry's image has any labels that its publisher chose; an approved devcontainer pulls it.
  unset HAL9000_IMAGE_REPO
  other=$HAL9000_PREFIX-other
  id() { docker image inspect --format '{{.Id}}' "$1:worker-ultramin"; }
  docker tag "$HAL9000_PREFIX:worker-ultramin" "$other:worker-ultramin"
  inputs=$(docker image inspect --format '{{index .Config.Labels "hal9000.inputs"}}' "$other:worker-ultramin")
  printf 'FROM %s:worker-ultramin\nLABEL evil=%s hal9000.inputs=%s\n' "$HAL9000_PREFIX" "$HAL9000_PREFIX" "$inputs" |
    docker build --quiet --tag "registry.invalid/$HAL9000_PREFIX:worker-ultramin" -
  docker rmi "$other:worker-ultramin"
  HAL9000_PREFIX=$other run -0 "$scripts/build-images.ts" --only worker-ultramin
  [ "$(id "$other")" = "$(id "$HAL9000_PREFIX")" ]
  docker rmi "$other:worker-ultramin"
}

@test "--only refuses an unknown image" {
  run -2 "$scripts/build-images.ts" --only nonsense
  [[ $output == *'There is no image "nonsense"'* ]]
}

# Stages the inputs for an engine of another architecture, in a separate checkout.
stage_foreign() {
  "$repo/node_modules/.bin/deno" eval --no-lock \
    "import { stageInputs } from '$repo/lib/image/inputs.ts';
     import { clonePlaces } from '$repo/lib/image/places.ts';
     await stageInputs(clonePlaces('$1'), 'arm64', console.error);"
}

foreign_checkout() {
  [ "$(uname -m)" != aarch64 ] || skip "arm64 is this machine's own architecture"
  root=$BATS_TEST_TMPDIR/checkout
  mkdir -p "$root/docker"
  cp -r "$repo"/{package.json,package-lock.json,scripts,lib} "$root"
  cp -r "$repo"/docker/[!b]* "$root/docker" # without build, which has hundreds of megabytes
}

@test "takes packages for another architecture from the lockfile" {
  umask 077
  foreign_checkout
  ln -s "$repo/node_modules" "$root/node_modules"
  stage_foreign "$root"
  # All inputs of images are world-readable.
  [ -z "$(find "$root/docker" ! -perm -004)" ]
  # e_machine of an ELF header: 183 is AArch64.
  for program in claude deno; do
    [ "$(od -An -tu2 -j18 -N2 "$root/docker/build/$program" | tr -d ' ')" = 183 ]
  done
  [ -e "$root/docker/build/chromadb/node_modules/chromadb-js-bindings-linux-arm64-gnu" ]
}

@test "refuses a package that does not match the lockfile" {
  foreign_checkout
  sed -i '/"node_modules.*claude-code-linux-arm64"/,/integrity/ s/sha512-...../sha512-AAAAA/' \
    "$root/package-lock.json"
  run -1 cmp -s "$repo/package-lock.json" "$root/package-lock.json"
  run -1 stage_foreign "$root"
  [[ $output == *"Cannot fetch @anthropic-ai/claude-code-linux-arm64"* ]]
}

@test "the worker contains the Claude CLI and its tools but no build tools" {
  in_image worker-ultramin '
    set -e
    claude --version
    for tool in bash cat grep sed find ps tmux awk diff tar; do command -v $tool >/dev/null; done
    for tool in git node npm python3 perl gcc cc make curl; do
      ! command -v $tool || { echo "there is $tool" >&2; exit 1; }
    done
    test -s /etc/ssl/certs/ca-certificates.crt
    tmux -V; test -e /usr/share/terminfo/x/xterm-256color
    printf "é" | LC_ALL=C.UTF-8 wc -m | grep -qx 1
    test -s /etc/claude-code/managed-settings.json
  '
}

@test "the minimal worker also has git and common tools, in 340 MB" {
  in_image worker-minimal '
    for tool in curl git jq less make patch rg ssh unzip; do command -v $tool >/dev/null || exit; done
    [ "$(TZ=Asia/Tokyo date --date=@0 +%H)" = 09 ]
  '
  [ "$(docker image inspect --format '{{.Size}}' "$HAL9000_IMAGE_REPO:worker-minimal")" -lt 340000000 ]

  run -0 in_image worker-minimal 'cd /tmp && git init --quiet x && cd x &&
    git -c user.name=a -c user.email=b commit --quiet --allow-empty -m m && git log --format=%s'
  [ "$output" = m ]
}

@test "the parent has the scripts under their current and original names" {
  run -0 in_image parent 'hal9000-spawn-worker --version && ls /scripts'
  [[ $output == "hal9000-spawn-worker "*hal9000-coordinator$'\n'* ]]
  for name in spawn-worker coordinator init-volumes claudy; do
    [[ $output == *"$name"$'\n'* ]]
    [[ $output == *"$name.sh"* ]]
  done
  [[ $output == *parent-entrypoint.sh* ]]
  [[ $output != *build-images* ]]
}

@test "the parent's image runs another command" {
  run -7 docker run --rm --network none --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=helper "$HAL9000_IMAGE_REPO:parent" sh -c 'echo "$0 $*"; exit 7' a b
  [ "$output" = "a b" ]
}
