#!/bin/bash
# Compares calls of an MCP tool through nsenter, gateway and process, from the workers'
# namespace, with the SDK's client directly at the gateway's socket, alternating in one run:
# make benchmark-mcp [SAMPLES=1000]. It never fails because a machine is slow.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$(mktemp -d "${TMPDIR:-/tmp}/hal9000-bench.XXXXXX")
export HAL9000_IMAGE_REPO=${HAL9000_IMAGE_REPO:-ghcr.io/hellblazer/hal-9000}
export HAL9000_PREFIX=hal9000-bench-$$ HAL9000_HOME=$root/home HAL9000_PROJECT_ROOTS=$root
calls=${SAMPLES:-1000}
client=$HAL9000_PREFIX-client
deno=$(echo "$PWD"/node_modules/@deno/*/deno)

clean_up() {
  trap '' INT TERM # make repeats the signal
  scripts/claudy.ts mcp stop >/dev/null 2>&1 || true
  scripts/claudy.ts daemon stop >/dev/null 2>&1 || true
  docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs -r docker rm --force >/dev/null
  docker volume ls --quiet --filter "name=$HAL9000_PREFIX" | xargs -r docker volume rm >/dev/null
  rm -rf "$root"
}
trap clean_up EXIT

scripts/claudy.ts daemon start >/dev/null
scripts/claudy.ts mcp add bench --port 3050 --isolation shared -- "$deno" run -A --no-lock --quiet \
  --node-modules-dir=manual "$PWD/tests/helper/mcp-server.ts" >/dev/null
scripts/claudy.ts mcp start >/dev/null
docker run --detach --name "$client" --network "container:$HAL9000_PREFIX-net" --entrypoint sleep \
  --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper --volume "$PWD:/repo:ro" \
  --volume "$HAL9000_HOME/run/mcp:/run/mcp" --workdir /repo --env DENO_DIR=/tmp/deno \
  "$HAL9000_IMAGE_REPO:parent" infinity >/dev/null

timed() { # timed CLIENTS ENV...
  docker exec "${@:2}" "$client" deno run -A --no-lock --quiet --node-modules-dir=manual \
    tests/helper/mcp-client.ts http://127.0.0.1:3050/mcp many "$calls" "$1" |
    jq -r '[(.times | sort | .[(length / 2 | floor)], .[(length * 0.99 | floor)]), (.wrong | length)] | @tsv'
}

timed 1 >/dev/null # warm-up
printf '%-8s %-10s %8s %8s %6s\n' CLIENTS WAY P50 P99 WRONG
for clients in 1 8; do
  read -r direct direct99 wrong < <(timed "$clients" --env UNIX_SOCKET=/run/mcp/bench.sock)
  printf '%-8s %-10s %5.2f ms %5.2f ms %6s\n' "$clients" gateway "$direct" "$direct99" "$wrong"
  read -r whole whole99 wrong < <(timed "$clients")
  printf '%-8s %-10s %5.2f ms %5.2f ms %6s  %.2f x\n' "$clients" whole "$whole" "$whole99" "$wrong" \
    "$(awk -v a="$whole" -v b="$direct" 'BEGIN { print a / b }')"
done
