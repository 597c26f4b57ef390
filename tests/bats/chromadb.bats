# ChromaDB's database for each project, and what isolated workers can do in others.

load ../helper/load
load ../helper/sessions

databases=/api/v2/tenants/default_tenant/databases

setup() {
  one=$(make_project one)
  two=$(make_project two)
}

teardown() {
  after_failure
  stop_workers
}

database() { docker exec "$1" printenv HAL9000_CHROMA_DATABASE; }
# Prints the status and, on the next line, the body.
ask() { # ask WORKER METHOD PATH [BODY]
  docker exec "$1" curl --silent --max-time 10 --path-as-is --request "$2" --header 'content-type: application/json' \
    ${4:+--data "$4"} --write-out '\n%{http_code}\n' "http://localhost:8000$3" | tac
}
status() { ask "$@" | head -n 1; }
made() { [ "$(status "$1" GET "$databases/$(database "$1")")" = 200 ]; }
# Makes a collection with one document; prints its id.
fill() { # fill WORKER DATABASE
  local id
  id=$(ask "$1" POST "$databases/$2/collections" '{"name": "notes", "get_or_create": true}' | tail -n 1 | jq -r .id)
  [ "$(status "$1" POST "$databases/$2/collections/$id/upsert" '{"ids": ["1"], "embeddings": [[1, 2]], "documents": ["kept"]}')" = 200 ]
  echo "$id"
}
documents() { # documents WORKER DATABASE ID
  ask "$1" POST "$databases/$2/collections/$3/get" '{}' | tail -n 1 | jq -c .documents
}

@test "each project has a database in ChromaDB, beside the one that all share" {
  spawn -n one-$$ "$one"
  spawn -n two-$$ "$two"
  wait_for 20 made one-$$
  wait_for 20 made two-$$
  [ "$(database one-$$)" != "$(database two-$$)" ]
  for name in "$(database one-$$)" default_database; do
    id=$(fill one-$$ "$name")
    [ "$(documents one-$$ "$name" "$id")" = '["kept"]' ]
  done
  # In the shared network it is a convention: the other project can use it by its name.
  [ "$(ask two-$$ GET "$databases/$(database one-$$)/collections" | tail -n 1 | jq -r .[].name)" = notes ]
  # The databases are there again after the parent was replaced, and a deleted one with the next worker.
  "$scripts/claudy.ts" daemon restart
  wait_for 20 made one-$$
  [ "$(status one-$$ DELETE "$databases/$(database one-$$)")" = 200 ]
  spawn -n third-$$ "$one"
  wait_for 20 made third-$$
}

@test "a session has the database of its project" {
  use_stub
  open "$one"
  [[ $(docker exec "$session" sh -c 'tr "\0" "\n" </proc/$(pgrep -o claude)/environ | grep HAL9000_CHROMA_DATABASE') == *=claudy-one-* ]]
  [[ $(cat "$HAL9000_HOME/claude/$session/hal9000-context.md") == *HAL9000_CHROMA_DATABASE* ]]
}

@test "an isolated worker can use its own and the shared database, and no other" {
  spawn -n shared-$$ "$two"
  wait_for 20 made shared-$$
  theirs=$(database shared-$$)
  id=$(fill shared-$$ "$theirs")
  spawn --network isolated -n alone-$$ "$one"
  mine=$(database alone-$$)
  # ChromaDB itself would find it by its id in any database.
  [ "$(documents shared-$$ default_database "$id")" = '["kept"]' ]
  for name in "$mine" default_database; do
    own=$(fill alone-$$ "$name")
    [ "$(documents alone-$$ "$name" "$own")" = '["kept"]' ]
    [ "$(status alone-$$ POST "$databases/$name/collections/$id/get" '{}')" = 404 ]
    [ "$(status alone-$$ POST "$databases/$name/collections/$id/delete" '{"ids": ["1"]}')" = 404 ]
    [ "$(status alone-$$ PUT "$databases/$name/collections/$id" '{"new_name": "taken"}')" = 404 ]
  done
  [ "$(status alone-$$ DELETE "$databases/$mine/collections/notes")" = 200 ]
  refused=("GET $databases/$theirs/collections" "POST $databases/$theirs/collections/$id/get" "DELETE $databases/$theirs"
    "DELETE $databases/default_database" "GET $databases" "POST $databases" "POST /api/v2/reset" "POST /api/v2/tenants"
    "GET $databases/$mine/../$theirs/collections" "GET $databases/%63${theirs#c}/collections" "POST /api/v1/reset"
    "GET /$databases/$theirs/collections" "GET /api/v2/collections/default_tenant:$theirs:notes")
  for request in "${refused[@]}"; do
    # shellcheck disable=SC2086  # method and path
    [ "$(status alone-$$ $request '{}')" = 403 ] || { echo "not refused: $request"; return 1; }
  done
  [[ $(ask alone-$$ GET "$databases" | tail -n 1) == *"An isolated worker may use collections in $mine and default_database"* ]]
  [ "$(documents shared-$$ "$theirs" "$id")" = '["kept"]' ]
}

@test "a claimed worker that is isolated can use the database of its project, until the parent is gone" {
  export WORKER_NETWORK=isolated
  "$scripts/claudy.ts" daemon restart
  "$scripts/claudy.ts" pool start --min-warm 1 >/dev/null
  "$scripts/claudy.ts" pool warm >/dev/null
  spawn --warm-only -n claimed-$$ "$one"
  # A claimed worker has no variable of its project.
  mine=$(docker exec --user 0 "$parent" sh -c 'cat /root/.hal9000/sessions/claimed-'$$'.json' | jq -r .project.path)
  mine=claudy-one-$(printf %s "$mine" | sha256sum | head -c 8)
  used() { [ "$(status claimed-$$ GET "$databases/$mine/collections")" = 200 ]; }
  wait_for 20 used
  [ "$(status claimed-$$ GET "$databases/claudy-two-12345678/collections")" = 403 ]
  "$scripts/claudy.ts" pool stop >/dev/null
  docker kill "$parent"
  [[ $(status claimed-$$ GET "$databases/default_database") == 50[0-9] || $(status claimed-$$ GET "$databases/default_database") == 000 ]]
  "$scripts/claudy.ts" daemon start
  wait_for 20 used
  stop_workers
  unset WORKER_NETWORK
  "$scripts/claudy.ts" daemon restart
}
