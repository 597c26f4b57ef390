# init-volumes without a daemon: what it creates, and what --clean removes.

load ../helper/load

other=$HAL9000_PREFIX-other

setup_file() { :; } # no instance

setup() {
  export HAL9000_HOME=$BATS_TEST_TMPDIR/home
  "$scripts/init-volumes.ts"
}

teardown() {
  after_failure
  remove_instance "$HAL9000_PREFIX"
  remove_instance "$other"
}

@test "--clean lists what it removes, asks, and follows no link" {
  mkdir "$BATS_TEST_TMPDIR/elsewhere"
  touch "$BATS_TEST_TMPDIR/elsewhere/kept" "$HAL9000_HOME/backups/kept" "$HAL9000_HOME/memorybank/lost"
  mkdir -p "$HAL9000_HOME/claude"
  ln -s "$BATS_TEST_TMPDIR/elsewhere" "$HAL9000_HOME/claude/link"
  rm -r "$HAL9000_HOME/pool" && ln -s "$BATS_TEST_TMPDIR/elsewhere" "$HAL9000_HOME/pool"
  run -6 "$scripts/init-volumes.ts" --clean
  [[ $output == *"$HAL9000_HOME/memorybank"*" MB"* ]]
  [[ $output == *"volume $HAL9000_PREFIX-chromadb"* ]]
  [[ $output != *"$HAL9000_HOME/backups"* ]]
  [ -e "$HAL9000_HOME/memorybank/lost" ]
  run -0 "$scripts/init-volumes.ts" --clean --yes
  [ -e "$BATS_TEST_TMPDIR/elsewhere/kept" ]
  [ -e "$HAL9000_HOME/backups/kept" ]
  [ ! -e "$HAL9000_HOME/memorybank/lost" ]
  [ -d "$HAL9000_HOME/pool" ] && [ ! -L "$HAL9000_HOME/pool" ]
}

@test "refuses a directory with unrelated files as home, and follows no link in a home" {
  theirs=$BATS_TEST_TMPDIR/theirs
  mkdir -p "$theirs/config" "$theirs/logs"
  chmod 755 "$theirs" "$theirs"/*
  HAL9000_HOME=$theirs HAL9000_PREFIX=$other run -6 "$scripts/init-volumes.ts"
  [[ $output == *"contains unrelated files"* ]]
  [ "$(stat -c %a "$theirs/config")" = 755 ]
  [ "$(find "$theirs" | wc -l)" = 3 ]

  mkdir -p "$BATS_TEST_TMPDIR/former/chromadb" # as version 0.5 leaves it
  ln -s "$theirs" "$BATS_TEST_TMPDIR/former/pool"
  HAL9000_HOME=$BATS_TEST_TMPDIR/former HAL9000_PREFIX=$other run -2 "$scripts/init-volumes.ts"
  [[ $output == *"is a link"* ]]
  [ "$(stat -c %a "$theirs")" = 755 ]
}

@test "--clean creates a home if there is none" {
  HAL9000_HOME=$BATS_TEST_TMPDIR/new HAL9000_PREFIX=$other run -0 "$scripts/init-volumes.ts" --clean --yes
  [ -d "$BATS_TEST_TMPDIR/new/config" ]
}

@test "--clean does not cross into another file system" {
  mkdir -p "$HAL9000_HOME/claude/mounted"
  as_root mount -t tmpfs none "$HAL9000_HOME/claude/mounted" || skip "mounting needs root, or sudo without a password"
  touch "$HAL9000_HOME/claude/mounted/kept"
  run -6 "$scripts/init-volumes.ts" --clean --yes
  present=$(ls "$HAL9000_HOME/claude/mounted")
  as_root umount "$HAL9000_HOME/claude/mounted"
  [[ $output == *'another file system is mounted at "'*'/claude/mounted"'* ]]
  [ "$present" = kept ]
}

@test "--clean leaves the home and volumes of another instance" {
  touch "$HAL9000_HOME/memorybank/theirs"
  HAL9000_PREFIX=$other run -5 "$scripts/init-volumes.ts" --clean --yes
  [ -e "$HAL9000_HOME/memorybank/theirs" ]
  docker volume create --label "hal9000.instance=$other-other" "$other-plugins"
  HAL9000_PREFIX=$other HAL9000_HOME=$BATS_TEST_TMPDIR/others "$scripts/init-volumes.ts"
  HAL9000_PREFIX=$other HAL9000_HOME=$BATS_TEST_TMPDIR/others \
    run -5 "$scripts/init-volumes.ts" --clean --yes
  docker volume rm "$other-plugins"
  [[ $output == *"is not this instance"* ]]
}

@test "--status changes nothing" {
  HAL9000_HOME=$BATS_TEST_TMPDIR/none HAL9000_PREFIX=$other \
    run -0 "$scripts/init-volumes.ts" --status
  [[ $output == *absent* ]]
  [ ! -e "$BATS_TEST_TMPDIR/none" ]
  [ -z "$(docker volume ls --quiet --filter "label=hal9000.instance=$other")" ]
}
