#!/bin/sh
# Starts the coordinator; any other command is run in its place.
[ $# -eq 0 ] || exec "$@"
exec /scripts/parent-entrypoint
