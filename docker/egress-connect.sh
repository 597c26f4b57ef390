#!/bin/bash
# egress-connect HOST PORT: pipes its input and output to a server through the egress proxy
# of an isolated worker; ssh runs it as its ProxyCommand.
exec 3<>/dev/tcp/127.0.0.1/3128 || exit
printf 'CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\n\r\n' "$1" "$2" "$1" "$2" >&3
read -r _ status _ <&3
while read -r line && [ "${line%$'\r'}" ]; do :; done <&3
if [ "$status" != 200 ]; then
  cat <&3 >&2
  exit 1
fi
cat <&3 &
cat >&3
wait
