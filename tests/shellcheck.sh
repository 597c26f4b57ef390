#!/bin/bash
# Usage: tests/shellcheck.sh FILE...; brings shellcheck where it is absent.
set -euo pipefail

if ! command -v shellcheck >/dev/null; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  echo "Installing shellcheck"
  { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install --yes shellcheck; } \
    >/dev/null || { echo "error: Cannot install shellcheck; install it by hand" >&2; exit 1; }
fi
# Names come from helpers and from bats itself (SC2154); single quotes protect scripts for
# a container's shell (SC2016); functions are called by helpers (SC2317).
shellcheck --exclude=SC2016,SC2154,SC2317 "$@"
