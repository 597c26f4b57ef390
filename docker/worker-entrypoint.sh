#!/bin/sh
# Runs the command of a worker, and explains a mount that had an effect in the original.
if [ -e /root/.claude ]; then
  echo "warning: /root/.claude is not used: Claude's files are in $CLAUDE_CONFIG_DIR
Open the project with claudy instead, which copies the settings of ~/.claude. To sign in: claudy login" >&2
fi
exec "$@"
