#!/bin/sh
# Tests the integration points on the engine, in an instance of the tests' own.
checkout=$(dirname "$(readlink -f "$0")")/..
exec make -C "$checkout" test-dind FILES=tests/bats/integration-points.bats
