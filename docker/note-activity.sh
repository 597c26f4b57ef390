#!/bin/sh
# Run by Claude's hooks, see managed-settings.json: note-activity STATUS.
# A fallback for CLI versions that write their own state elsewhere or in another format.
file=$CLAUDE_CONFIG_DIR/hal9000-activity.json
printf '{"status":"%s"}\n' "$1" >"$file.$$" && mv "$file.$$" "$file"
exit 0
