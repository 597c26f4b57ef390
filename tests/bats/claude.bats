# End to end: the real Claude CLI in a worker, with a stub for the API.

load ../helper/load
load ../helper/sessions

teardown() {
  after_failure
  stop_workers
}

@test "a file written by a tool call belongs to the project's owner on the host" {
  project=$(make_others_project two)
  spawn -n real-$$ "$project"
  call='TOOL Bash {"command":"printf daisy > /workspace/song","description":"sing"}'
  run -0 --separate-stderr claude real-$$ -p "$call" --dangerously-skip-permissions
  [ "$output" = "tool done" ]
  [ "$(cat "$project/song")" = daisy ]
  [ "$(owner_of "$project/song")" = "$(owner_of "$project")" ]
}

@test "sends the key to the API and stores it nowhere else" {
  project=$(make_project three)
  spawn -n real-$$ "$project"
  claude real-$$ -p hello
  grep -q "\"x-api-key\":\"$key\"" "$HAL9000_TEST_ROOT/session-stub/requests"
  { docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs docker inspect
    for container in real-$$ "$parent" "$net" "$stub"; do docker logs "$container" 2>&1; done
    "$scripts/coordinator.ts" list --json
    "$scripts/claudy.ts" daemon status --json
    ps axww -o args
    cat "$HAL9000_HOME"/sessions/*.json
    find "$HAL9000_HOME/logs" -type f -exec cat {} +
    find "$project" -type f -exec cat {} +
  } >"$BATS_TEST_TMPDIR/everything"
  [ "$(wc -c <"$BATS_TEST_TMPDIR/everything")" -gt 10000 ]
  run -1 grep -c "$key" "$BATS_TEST_TMPDIR/everything"
}

@test "a second worker reads from ChromaDB what the first one stored" {
  spawn -n writer-$$ "$(make_project four)"
  spawn -n reader-$$ "$(make_project five)"
  base=/api/v2/tenants/default_tenant/databases/default_database/collections
  id=$(http writer-$$ POST "$base" '{"name":"logbook"}' | jq -r .id)
  http writer-$$ POST "$base/$id/add" \
    '{"ids":["a","b"],"embeddings":[[1,0],[0,1]],"documents":["jupiter","saturn"]}'
  run -0 http reader-$$ POST "$base/$id/query" '{"query_embeddings":[[0.1,0.9]],"n_results":1,"include":["documents"]}'
  [ "$(jq -r '.documents[0][0]' <<<"$output")" = saturn ]
  http reader-$$ DELETE "$base/logbook"
}
