#!/bin/bash
# Compares a migration and a rollback of files of 20 kB with `cp -a` of the same tree, in one
# run: make benchmark-migration [FILES=50000 SAMPLES=3]. It never fails because a machine is
# slow.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$(mktemp -d "${TMPDIR:-/tmp}/hal9000-bench.XXXXXX")
export HAL9000_IMAGE_REPO=${HAL9000_IMAGE_REPO:-ghcr.io/hellblazer/hal-9000}
export HAL9000_PREFIX=hal9000-bench-$$ HAL9000_HOME=$root/home HAL9000_PROJECT_ROOTS=$root
samples=${SAMPLES:-3}
files=${FILES:-50000}

clean_up() {
  trap '' INT TERM # make repeats the signal
  scripts/claudy.ts daemon stop >/dev/null 2>&1 || true
  docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs -r docker rm --force >/dev/null
  docker volume ls --quiet --filter "name=$HAL9000_PREFIX" | xargs -r docker volume rm >/dev/null
  rm -rf "$root"
}
trap clean_up EXIT

echo "Making $files files of 20 kB" >&2
mkdir -p "$HAL9000_HOME"/{membank,plugins}
head -c $((files * 20000)) /dev/urandom >"$root/bytes"
for directory in $(seq 0 99); do mkdir "$HAL9000_HOME/plugins/$directory"; done
# The first digits of a file's number are its directory's.
(cd "$HAL9000_HOME/plugins" && split --bytes=20000 --numeric-suffixes --suffix-length=5 "$root/bytes" file)
for number in $(seq 0 99); do
  find "$HAL9000_HOME/plugins" -maxdepth 1 -name "file$(printf %02d "$number")*" -exec mv -t "$HAL9000_HOME/plugins/$number" {} +
done
rm "$root/bytes"

milliseconds() { # milliseconds COMMAND...
  local start
  start=$(date +%s%N)
  "$@" >/dev/null
  echo $((($(date +%s%N) - start) / 1000000))
}
copy() { cp -a "$HAL9000_HOME/plugins" "$root/copy" && sync -f "$root/copy"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
phase() { jq --arg what "$1" '[.phases[] | select(.what == $what) | .ms] | add' "$2"; }

for sample in $(seq "$samples"); do
  echo "Sample $sample of $samples" >&2
  sync # so that earlier writes are not measured
  milliseconds copy >>"$root/cp"
  rm -rf "$root/copy"
  sync
  migrated() { scripts/migrate.ts --yes --json >"$root/migrated" 2>/dev/null; }
  milliseconds migrated >>"$root/whole"
  phase "Copying plugins" "$root/migrated" >>"$root/moved"
  phase "Backing up plugins" "$root/migrated" >>"$root/backed"
  phase "Reading" "$root/migrated" >>"$root/read"
  phase "Checking the volumes" "$root/migrated" >>"$root/checked"
  scripts/rollback.ts --yes --json >"$root/rolled" 2>/dev/null
  phase "Copying plugins" "$root/rolled" >>"$root/back"
  rm -rf "$HAL9000_HOME/backups"/*
done

base=$(median <"$root/cp")
row() { # row WHAT FILE
  local value
  value=$(median <"$root/$2")
  awk -v what="$1" -v value="$value" -v base="$base" \
    'BEGIN { printf "%-34s %7d ms  %.2f of the rate of cp -a\n", what, value, base / value }'
}
echo "$files files, medians of $samples; cp -a and sync: $base ms"
row "copy into the volume" moved
row "copy into the backup" backed
row "copy back out of the volume" back
row "reading and checksums, source" read
row "reading and checksums, volume" checked
row "migration as a whole" whole
