# One of the engines of `make test-engines`.

load ../helper/load

setup_file() { export BATS_TEST_TIMEOUT=1200; }

@test "every operation works on Docker 28 with the minimum API of Docker 29" {
  need_root
  run "$repo/tests/engines.sh" docker-28
  echo "$output"
  reason=$(sed -n 's/^docker-28: \(mmdebstrap\|Debian sid\) /\1 /p' <<<"$output")
  [ -z "$reason" ] || skip "$reason"
  [ "$status" = 0 ]
}
