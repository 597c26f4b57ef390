#!/bin/sh
# Runs Claude as the session of this worker. Its state files (see lib/session/activity.ts)
# are valid only while it runs, so they are removed before and after.
forget() {
  rm -f "$CLAUDE_CONFIG_DIR"/sessions/*.json "$CLAUDE_CONFIG_DIR"/hal9000-activity.json
}
ending=$CLAUDE_CONFIG_DIR/hal9000-ended
forget
rm -f "$ending"
# However it ends, because claudy sessions relies on these files.
trap forget EXIT
trap 'exit 129' HUP TERM
# Secrets are read from files of the home, so that docker inspect does not show them, and
# only here, because all programs in tmux see the environment of tmux.
if [ -f "$CLAUDE_CONFIG_DIR/.oauth_token" ]; then
  CLAUDE_CODE_OAUTH_TOKEN=$(cat "$CLAUDE_CONFIG_DIR/.oauth_token")
  export CLAUDE_CODE_OAUTH_TOKEN
fi
# Variables of the caller first, so that secrets of the same name win.
for prefix in .caller-env. .secret-env.; do
  for file in "$CLAUDE_CONFIG_DIR/$prefix"*; do
    [ -f "$file" ] && export "${file##*/"$prefix"}=$(cat "$file")"
  done
done
# Of hosts of secrets, for which the egress proxy answers; the variables above name the result.
authorities=$CLAUDE_CONFIG_DIR/.caller.secret-hosts.pem
if [ -f "$authorities" ]; then
  certificates=/tmp/hal9000-certificates.pem
  cat /etc/ssl/certs/ca-certificates.crt "$authorities" >"$certificates.$$" && mv -f "$certificates.$$" "$certificates"
fi
# Plugins that all sessions share, read-only.
shared=/run/hal9000/plugins/plugins
if [ -d "$shared" ]; then
  CLAUDE_CODE_PLUGIN_SEED_DIR=$shared
  export CLAUDE_CODE_PLUGIN_SEED_DIR
fi
claude "$@"
code=$?
# claudy shows how it ended, and with an error also what it said last.
if [ -n "${TMUX-}" ]; then
  last=
  if [ "$code" != 0 ]; then
    sleep 0.2 # until tmux has read its last words
    last=$(tmux capture-pane -p -t "$TMUX_PANE" | grep -v '^[[:space:]]*$' | tail -n 20)
  fi
  printf '%s\n' "$code" "$last" >"$ending.$$" && mv "$ending.$$" "$ending"
fi
exit $code
