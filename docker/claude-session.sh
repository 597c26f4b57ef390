#!/bin/sh
# Runs Claude as the session of this worker. What it says of itself while it runs
# (see lib/activity.ts) is of no worth before and after, nor when it was killed.
forget() {
  rm -f "$CLAUDE_CONFIG_DIR"/sessions/*.json "$CLAUDE_CONFIG_DIR"/hal9000-activity.json
}
forget
claude "$@"
status=$?
forget
exit $status
