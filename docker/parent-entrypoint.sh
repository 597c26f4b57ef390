#!/bin/sh
# Starts the coordinator, or the given command instead.
[ $# -eq 0 ] || exec "$@"
exec /scripts/parent-entrypoint
