#!/bin/bash
# Healthy: the engine answers, and so does ChromaDB; ours, for any worker could
# listen at its port.
set -euo pipefail

port=${CHROMADB_PORT:-8000}

docker version --format '{{.Server.Version}}' >/dev/null

# Columns of /proc/net/tcp: 1 local address, 3 state (0A: listening), 9 inode.
local_address=$(printf '0100007F:%04X' "$port")
inode=
while read -r -a row; do
  if [ "${row[1]}" = "$local_address" ] && [ "${row[3]}" = 0A ]; then inode=${row[9]}; fi
done </proc/net/tcp
find "/proc/$(pgrep -o -f /opt/chromadb/chroma.mjs)/fd" -lname "socket:\[$inode\]" | grep -q .

exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /api/v2/heartbeat HTTP/1.0\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
