#!/bin/sh
# Runs Claude as the session of this worker. What it says of itself while it runs
# (see lib/session/activity.ts) is of no worth before and after, nor when it was killed.
forget() {
  rm -f "$CLAUDE_CONFIG_DIR"/sessions/*.json "$CLAUDE_CONFIG_DIR"/hal9000-activity.json
}
forget
# Whatever ends it: who lists sessions believes these files.
trap forget EXIT
trap 'exit 129' HUP TERM
# Files of the home, so that no value stands in what can be inspected; and here,
# not in the environment of whoever calls: that of tmux is everybody's.
if [ -f "$CLAUDE_CONFIG_DIR/.oauth_token" ]; then
  CLAUDE_CODE_OAUTH_TOKEN=$(cat "$CLAUDE_CONFIG_DIR/.oauth_token")
  export CLAUDE_CODE_OAUTH_TOKEN
fi
for file in "$CLAUDE_CONFIG_DIR"/.secret-env.*; do
  [ -f "$file" ] && export "${file##*/.secret-env.}=$(cat "$file")"
done
# Those of all sessions, which none of them can change.
shared=/run/hal9000/plugins/plugins
if [ -d "$shared" ]; then
  CLAUDE_CODE_PLUGIN_SEED_DIR=$shared
  export CLAUDE_CODE_PLUGIN_SEED_DIR
fi
claude "$@"
exit $?
