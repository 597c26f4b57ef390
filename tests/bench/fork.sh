#!/bin/bash
# Compares a session's copy and a fork of it with `git clone` and `cp -a` of the same repository, on
# the disk of TMPDIR: make benchmark-fork [FILES=5000 COMMITS=1000 SAMPLES=3]. A gigabyte needs
# FILES=50000 COMMITS=10000.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$(mktemp -d "${TMPDIR:-/tmp}/hal9000-bench.XXXXXX")
export HAL9000_IMAGE_REPO=${HAL9000_IMAGE_REPO:-ghcr.io/hellblazer/hal-9000}
export HAL9000_PREFIX=hal9000-bench-$$ HAL9000_HOME=$root/home HAL9000_PROJECT_ROOTS=$root
# Claude waits at its prompt.
export ANTHROPIC_API_KEY=sk-ant-none ANTHROPIC_BASE_URL=http://127.0.0.1:9
claudy=${CLAUDY:-scripts/claudy.ts}
files=${FILES:-5000}
commits=${COMMITS:-1000}
samples=${SAMPLES:-3}

clean_up() {
  trap '' INT TERM # make repeats the signal
  "$claudy" daemon stop >/dev/null 2>&1 || true
  docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs -r docker rm --force >/dev/null
  docker volume ls --quiet --filter "name=$HAL9000_PREFIX" | xargs -r docker volume rm >/dev/null
  rm -rf "$root"
}
trap clean_up EXIT
trap 'cat "$root/errors" >&2' ERR

touch "$root/errors"
echo "Making a repository of $files files of 20 kB with $commits commits" >&2
app=$root/app
git init --quiet --initial-branch=main "$app"
git -C "$app" config gc.auto 0
head -c $((files * 20000)) /dev/urandom >"$root/bytes"
(cd "$app" && split --bytes=20000 --numeric-suffixes --suffix-length=6 "$root/bytes" file)
rm "$root/bytes"
# The first digits of a file's number are its directory's.
for directory in $(find "$app" -maxdepth 1 -name 'file*' -printf '%f\n' | cut -c 5-8 | sort -u); do
  mkdir "$app/$directory"
  mv "$app/file$directory"* "$app/$directory"
done
git -C "$app" add --all
git -C "$app" -c user.name=a -c user.email=a@b commit --quiet --message begin
seq 2 "$commits" | awk '{
  print "commit refs/heads/main\ncommitter a <a@b> " 1700000000 + $1 " +0000\ndata 1\nc"
  if (NR == 1) print "from refs/heads/main^0"
  text = "commit " $1
  print "M 100644 inline changed/" $1 % 1000 "\ndata " length(text) "\n" text
}' | git -C "$app" fast-import --quiet --force
git -C "$app" reset --quiet --hard
git -C "$app" gc --quiet

"$claudy" daemon start >/dev/null

milliseconds() { # milliseconds COMMAND...
  local start
  start=$(date +%s%N)
  "$@" >/dev/null
  echo $((($(date +%s%N) - start) / 1000000))
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
copied() { "$claudy" --clone --detach --name "copy-$1" "$app" 2>"$root/errors"; }
forked() { "$claudy" fork "$2" --json >"$root/forked" 2>"$root/errors"; }

for sample in $(seq "$samples"); do
  echo "Sample $sample of $samples" >&2
  for way in "git clone --quiet --no-hardlinks" "cp -a --reflink=auto"; do
    sync # so that earlier writes are not measured
    # shellcheck disable=SC2086  # words
    milliseconds $way "$app" "$root/copy" >>"$root/${way%% *}"
    rm -rf "$root/copy"
  done
  sync
  milliseconds copied "$sample" >>"$root/copied"
  # A session that works.
  docker exec --detach "copy-$sample" sh -c 'while :; do date >now; sleep 0.05; done'
  [ "$sample" != 1 ] || "$claudy" --detach --name project "$app" >/dev/null 2>&1
  for session in project "copy-$sample"; do
    sync
    milliseconds forked "" "$session" >>"$root/fork-${session%-*}"
    jq .frozenMs "$root/forked" >>"$root/frozen-${session%-*}"
    jq -r '.shared | if . then "shares blocks" else "shares no blocks" end' "$root/forked" >"$root/shared"
    "$claudy" sessions rm --yes --force "$(jq -r '.sessions[0].session' "$root/forked")" >/dev/null 2>&1
  done
  "$claudy" sessions rm --yes --force "copy-$sample" >/dev/null 2>&1
done

row() { printf '%-46s %7d ms\n' "$1" "$(median <"$root/$2")"; } # row WHAT FILE
echo "$files files, $commits commits, $(du -sh "$app" | cut -f 1); medians of $samples; a copy $(cat "$root/shared")"
row "git clone --no-hardlinks" git
row "cp -a" cp
row "claudy --clone, with its start" copied
row "claudy fork of a copy, with its start" fork-copy
row "  the session stands still" frozen-copy
row "claudy fork of a session in the project" fork-project
row "  the session stands still" frozen-project
