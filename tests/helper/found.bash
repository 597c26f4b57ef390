# Searches a worker, and what tells of it, for a planted text.

# Whether a text is anywhere in a worker: in its files, and in the environments, the
# arguments and the memory of its processes. What is mounted from the image is left out.
found_in() { # found_in WORKER TEXT
  local pid process
  pid=$(inspect "$1" '{{.State.Pid}}')
  for process in $(docker top "$1" -eo pid | tail -n +2); do
    as_root grep -qaF -- "$2" "/proc/$process/environ" "/proc/$process/cmdline" && { echo "in process $process"; return 0; }
  done
  as_root grep -rlaF --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev --exclude-dir=usr \
    -- "$2" "/proc/$pid/root/" 2>/dev/null
}

# Whether a text is in the process memory of a worker's CLI.
found_in_memory() { # found_in_memory WORKER TEXT
  local process
  for process in $(docker top "$1" -eo pid,comm | awk '$2 == "claude" { print $1 }'); do
    as_root python3 - "$process" "$2" <<'PY' && return 0
import sys
pid, text = sys.argv[1], sys.argv[2].encode()
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in maps:
        span, rights = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if "r" not in rights or end - start > 1 << 31: continue
        try:
            memory.seek(start)
            if text in memory.read(end - start): sys.exit(0)
        except OSError: pass
sys.exit(1)
PY
  done
  return 1
}

found_nowhere() { # found_nowhere WORKER TEXT
  run ! found_in "$1" "$2"
  run ! found_in_memory "$1" "$2"
  run ! grep -qF -- "$2" <<<"$(docker inspect "$1")"
  run ! grep -rqF -- "$2" "$HAL9000_HOME/logs"
  run ! grep -qF -- "$2" <<<"$("$claudy" sessions --json)$("$claudy" daemon status --json)"
}
