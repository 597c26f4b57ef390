#!/bin/sh
# Run by Claude's hooks, see managed-settings.json: note-activity STATUS.
# A second signal, for a CLI that writes its own elsewhere or otherwise.
file=$CLAUDE_CONFIG_DIR/hal9000-activity.json
printf '{"status":"%s"}\n' "$1" >"$file.$$" && mv "$file.$$" "$file"
exit 0
