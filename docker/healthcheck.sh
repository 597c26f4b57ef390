#!/bin/bash
# Healthy: the engine answers, and so does ChromaDB.
set -eu

docker version --format '{{.Server.Version}}' >/dev/null
exec 3<>"/dev/tcp/127.0.0.1/${CHROMADB_PORT:-8000}"
printf 'GET /api/v2/heartbeat HTTP/1.0\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
