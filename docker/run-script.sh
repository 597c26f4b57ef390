#!/bin/sh
# Runs the script with this file's name, without .sh: coordinator.sh runs coordinator.
# Links give it the original names, on the host in docker/, in the parent in /scripts.
set -eu

name=${0##*/}
script=$(dirname "$(readlink -f "$0")")/../scripts/${name%.sh}
[ -e "$script" ] || script=$script.ts
exec "$script" "$@"
