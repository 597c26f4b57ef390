# claudy images: the images of an instance in a file.

load ../helper/load
load ../helper/sessions

# Other files use the images of this run, so these have names of their own.
setup_file() {
  export HAL9000_IMAGE_REPO=$HAL9000_PREFIX-file
  "$scripts/build-images.ts" >/dev/null
  export SAVED=$BATS_FILE_TMPDIR/images.tar.gz
  "$claudy" images save "$SAVED" >"$BATS_FILE_TMPDIR/names"
}

teardown() {
  after_failure
}

teardown_file() { remove_images; }

own_images() { docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' "$HAL9000_IMAGE_REPO" | sort; }

remove_images() { own_images | cut -d ' ' -f 1 | xargs --no-run-if-empty docker rmi >/dev/null; }

@test "images that were saved are loaded where there are none, and start workers" {
  before=$(own_images)
  remove_images
  [ -z "$(own_images)" ]
  run -4 "$claudy" daemon start
  [[ $output == *"There is no image $HAL9000_IMAGE_REPO:parent"* ]]
  run -0 --separate-stderr "$claudy" images load --json "$SAVED"
  [ "$(jq -r '.images[]' <<<"$output" | sort)" = "$(sort "$BATS_FILE_TMPDIR/names")" ]
  [ "$(own_images)" = "$before" ]
  # Nothing has to be built.
  run -0 --separate-stderr "$scripts/build-images.ts" --json
  [ "$(jq -c 'map(.built) | unique' <<<"$output")" = "[false]" ]
  start_instance
  spawn -n loaded-$$ "$(make_project loaded)"
  docker exec loaded-$$ claude --version
  stop_workers
  "$claudy" daemon stop
}

@test "the file has the images of this instance alone" {
  tar -xzOf "$SAVED" manifest.json | jq -r '.[].RepoTags[]' | sort >"$BATS_TEST_TMPDIR/tags"
  diff "$BATS_TEST_TMPDIR/tags" <(own_images | cut -d ' ' -f 1) >&2
}

@test "refuses a damaged file and a file with other images, and loads nothing of it" {
  remove_images
  head -c 20000000 "$SAVED" >"$BATS_TEST_TMPDIR/part.tar.gz"
  run -1 "$claudy" images load "$BATS_TEST_TMPDIR/part.tar.gz"
  [[ $output == *"Cannot load $BATS_TEST_TMPDIR/part.tar.gz: "*"claudy images save"* ]]
  other=$HAL9000_PREFIX-other:worker
  tar -C "$repo" -c LICENSE | docker import - "$other"
  docker save "$other" >"$BATS_TEST_TMPDIR/other.tar"
  docker rmi "$other"
  run -6 "$claudy" images load "$BATS_TEST_TMPDIR/other.tar"
  run -1 docker image inspect "$other"
  HAL9000_IMAGE_REPO=$HAL9000_PREFIX-elsewhere run -6 "$claudy" images load "$SAVED"
  [[ $output == *"has the image \"$HAL9000_PREFIX-file:"*"HAL9000_IMAGE_REPO"* ]]
  [ -z "$(own_images)" ]
}

@test "an interrupted save leaves the former file, and no other" {
  mkdir "$BATS_TEST_TMPDIR/kept"
  echo former >"$BATS_TEST_TMPDIR/kept/images.tar"
  "$scripts/build-images.ts" >/dev/null
  "$claudy" images save "$BATS_TEST_TMPDIR/kept/images.tar" 3>&- &
  begun() { compgen -G "$BATS_TEST_TMPDIR/kept/.*.part"; }
  wait_for 10 begun
  kill -INT $!
  wait $! && false || [ $? = 130 ]
  [ "$(ls -A "$BATS_TEST_TMPDIR/kept")" = images.tar ]
  [ "$(cat "$BATS_TEST_TMPDIR/kept/images.tar")" = former ]
}
