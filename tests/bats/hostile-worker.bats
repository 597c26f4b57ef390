# What a hostile worker tries to get out of its container, or to reach in the machine.

load ../helper/load
load ../helper/sessions

deno=$(echo "$repo"/node_modules/@deno/*/deno)

setup() { use_stub; }
teardown() {
  after_failure
  [ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null || true
  stop_workers
}

# Spawns an idle worker for root's project, and one for another user's; both get a program
# of tests/helper.
spawn_both() { # spawn_both PROGRAM
  make_project of-root
  make_others_project of-user
  for user in root user; do
    spawn -n "$user-$$" --mount "$deno:/opt/deno:ro" --mount "$repo/tests/helper/$1:/opt/$1:ro" "$HAL9000_PROJECT_ROOTS/of-$user"
  done
}
in_worker() { docker exec "$1" /opt/deno run -A --no-lock --no-config --quiet "/opt/$2" "${@:3}"; }

@test "the kernel refuses calls that lead out of a container or change the machine" {
  spawn_both syscalls.ts
  for user in root user; do
    run -0 in_worker "$user-$$" syscalls.ts
    [[ $output =~ ^refused\ 4[0-9]$ ]]
  done
}

@test "a worker cannot write the kernel's files, its configuration or account files" {
  spawn_both syscalls.ts
  for user in root user; do
    run docker exec "$user-$$" bash -c '
      for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/pid_max /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger \
        /proc/sys/fs/inotify/max_user_instances /proc/1/oom_score_adj /sys/kernel/uevent_helper /sys/power/state /sys/fs/cgroup/*/release_agent \
        /sys/fs/cgroup/*/*.max /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/cgroup.procs /dev/mem /dev/kmsg /dev/sda /dev/vda \
        /etc/passwd /etc/group /etc/hosts /config/claude/settings.json; do
        [ -e "$file" ] && [ "$file" != /proc/1/oom_score_adj ] && (: >>"$file") 2>/dev/null && echo "$file"
      done
      for directory in /config/claude /home/claude/.claude/plugins/* /proc/sys /sys/fs/cgroup /sys/fs/cgroup/* "$CLAUDE_SECURESTORAGE_CONFIG_DIR"; do
        [ "$directory" != /home/claude/.claude ] && [ -d "$directory" ] && mkdir "$directory/made" 2>/dev/null && echo "$directory"
      done
      true'
    [ "$output" = "" ]
  done
}

@test "a session that starts to wait again and again runs one notification at a time" {
  open "$(make_project nags)"
  export HAL9000_NOTIFY_COMMAND="echo notified >>$BATS_TEST_TMPDIR/notified; sleep 30"
  "$claudy" watch >"$BATS_TEST_TMPDIR/changes" 3>&- &
  watcher=$!
  docker exec --detach "$session" bash -c 'cd "$CLAUDE_CONFIG_DIR/sessions" && while rm -f *.json; do
    for status in idle waiting; do echo "{\"status\":\"$status\"}" >../hal9000-activity.json; sleep 0.7; done; done'
  changed() { [ "$(grep -c "$session waiting" "$BATS_TEST_TMPDIR/changes")" -ge 3 ]; }
  wait_for 20 changed
  [ "$(wc -l <"$BATS_TEST_TMPDIR/notified")" = 1 ]
}

@test "a worker cannot reach the engine's socket, another home or a device" {
  spawn -n curious-$$ "$(make_project app)"
  docker exec curious-$$ bash -c '
    [ ! -e /var/run/docker.sock ] && [ ! -e /root/.hal9000 ] && ! : >/etc/passwd &&
    ! mknod /tmp/sda b 8 0 && ! : >/proc/sys/kernel/core_pattern && ! : >/config/claude/x' 2>/dev/null
}
