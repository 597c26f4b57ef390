# Profiles: each one builds, and a matching project builds and tests in its worker; your own
# profiles, a project's packages, and the pool's profiles.

# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load

claudy=$scripts/claudy.ts

setup() { project=$(make_project "profiled$BATS_TEST_NUMBER"); }

teardown() {
  after_failure
  stop_workers
  rm -rf "$HAL9000_HOME/profiles"
  docker images --quiet "$HAL9000_PREFIX-profile" | sort -u | xargs -r docker rmi --force >/dev/null
}

# Profiles that no earlier run has left are built from Debian's archive.
setup_file() {
  export BATS_TEST_TIMEOUT=900
  start_instance
}

teardown_file() {
  docker images --quiet "$HAL9000_PREFIX-apt" | sort -u | xargs -r docker rmi --force >/dev/null
}

# Starts the project's session without a terminal; its worker is $worker.
start_session() {
  run -0 --separate-stderr "$claudy" --detach --json "$@" "$project"
  worker=$(jq -r .worker <<<"$output")
}

image_of() { docker inspect --format '{{.Config.Image}}' "$1"; }

@test "a Python project builds and tests in the worker of the detected profile" {
  cat >"$project/pyproject.toml" <<<'[project]
name = "app"
version = "1"
[tool.setuptools]
py-modules = ["app"]'
  echo 'def add(a, b): return a + b' >"$project/app.py"
  printf 'import unittest, app\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(app.add(2, 3), 5)\n' \
    >"$project/test_app.py"
  start_session
  [ "$(image_of "$worker")" = "$HAL9000_IMAGE_REPO:worker-python" ]
  # Builds start many threads.
  [ "$(inspect "$worker" '{{.HostConfig.PidsLimit}}')" = 2048 ]
  # A program with a header of Python's, git-lfs, and pip without a venv.
  printf '#include <Python.h>\nint main() { return PY_MAJOR_VERSION; }\n' >"$project/main.c"
  run -3 docker exec "$worker" sh -c 'cc $(python3-config --includes) -o main main.c && ./main'
  run -0 docker exec "$worker" sh -c 'git lfs version && git config filter.lfs.clean && pytest --version &&
    pip install --no-index --no-build-isolation --quiet .'
  run -0 docker exec "$worker" sh -c 'python -m venv .venv && .venv/bin/pip --version && .venv/bin/python -m unittest'
  [[ $output == *"Ran 1 test"*OK* ]]
  [ "$(stat -c %u "$project/.venv/bin/python")" = "$(stat -c %u "$project")" ]
}

@test "a Node project builds and tests in the worker of the detected profile" {
  cat >"$project/package.json" <<<'{"name":"app","version":"1.0.0","scripts":{"build":"node build.js","test":"node --test"}}'
  echo 'require("fs").writeFileSync("built.js", "exports.add = (a, b) => a + b;")' >"$project/build.js"
  echo 'require("node:test")("adds", () => require("assert").equal(require("./built.js").add(2, 3), 5))' >"$project/add.test.js"
  start_session
  [ "$(image_of "$worker")" = "$HAL9000_IMAGE_REPO:worker-node" ]
  run -0 docker exec "$worker" sh -c 'npm run build && npm test'
  [[ $output == *"# pass 1"* ]]
}

@test "a Java project builds and tests in a worker with its own Debian packages" {
  mkdir -p "$project"/src/{main,test}/java
  cat >"$project/pom.xml" <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>app</groupId>
  <artifactId>app</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>21</maven.compiler.source>
    <maven.compiler.target>21</maven.compiler.target>
  </properties>
  <dependencies>
    <dependency>
      <groupId>junit</groupId><artifactId>junit</artifactId><version>4.x</version><scope>test</scope>
    </dependency>
  </dependencies>
</project>
XML
  echo 'class Sum { static int of(int a, int b) { return a + b; } }' >"$project/src/main/java/Sum.java"
  echo 'public class SumTest { @org.junit.Test public void adds() { org.junit.Assert.assertEquals(5, Sum.of(2, 3)); } }' \
    >"$project/src/test/java/SumTest.java"
  # Maven's plugins, from Debian's archive instead of Maven Central.
  echo 'HAL9000_APT="libmaven-compiler-plugin-java libmaven-resources-plugin-java libmaven-jar-plugin-java libsurefire-java junit4"' \
    >"$project/.hal9000.conf"
  start_session
  [[ $(image_of "$worker") == "$HAL9000_PREFIX-apt:"* ]]
  # shellcheck disable=SC2154  # of run
  [[ $stderr == *"Building $HAL9000_PREFIX-apt:"*"$HAL9000_PREFIX-apt:"*": "*" MB, "*" MB more than "* ]]
  run -0 docker exec "$worker" mvn --batch-mode --offline -Dmaven.repo.local=/usr/share/maven-repo package
  [[ $output == *"Tests run: 1, Failures: 0"*"BUILD SUCCESS"* ]]
  [ -s "$project/target/app-1.jar" ]
}

@test "profile list shows the size of each profile" {
  for name in python node java; do "$claudy" profile build "$name"; done
  run -0 --separate-stderr "$claudy" profile list --json
  sizes=$(jq -r '.[] | select(.own | not) | "\(.name) \((.sizeBytes / 1e6) | floor)"' <<<"$output")
  echo "# $(xargs <<<"$sizes") MB" >&3
  while read -r name megabytes; do
    case $name in
      base) [ "$megabytes" -lt 340 ] ;;
      python) [ "$megabytes" -lt 900 ] ;;
      node) [ "$megabytes" -lt 1050 ] ;;
      java) [ "$megabytes" -lt 1150 ] ;;
      *) false ;;
    esac
  done <<<"$sizes"
  [ "$(wc -l <<<"$sizes")" = 4 ]
}

own_profile() { # own_profile NAME LINES...
  mkdir -p "$HAL9000_HOME/profiles/$1"
  # shellcheck disable=SC2016  # Docker's variable
  printf '%s\n' 'ARG WORKER_IMAGE' 'FROM ${WORKER_IMAGE}' "${@:2}" >"$HAL9000_HOME/profiles/$1/Dockerfile"
}

@test "builds your own profile on first use and rebuilds it when its files change" {
  own_profile mine 'COPY greeting /greeting' 'LABEL hal9000.smoke="grep hello /greeting"'
  echo "hello one" >"$HAL9000_HOME/profiles/mine/greeting"
  start_session --profile mine
  [[ $stderr == *"Building $HAL9000_PREFIX-profile:mine"* ]]
  [ "$(docker exec "$worker" cat /greeting)" = "hello one" ]
  "$claudy" stop "$worker"
  # The profile is remembered and not built again.
  start_session
  [[ $stderr != *Building* ]]
  [ "$(docker exec "$worker" cat /greeting)" = "hello one" ]
  "$claudy" stop "$worker"
  echo "hello two" >"$HAL9000_HOME/profiles/mine/greeting"
  start_session
  [[ $stderr == *"Building $HAL9000_PREFIX-profile:mine"* ]]
  [ "$(docker exec "$worker" cat /greeting)" = "hello two" ]
  # Changing the profile of a running worker is refused.
  run -5 "$claudy" --detach --profile base "$project"
  [[ $output == *"claudy stop $worker"* ]]
  "$claudy" stop "$worker"
  start_session --profile auto
  [ "$(image_of "$worker")" = "$HAL9000_IMAGE_REPO:worker" ]
}

@test "does not use a profile that fails to build or fails its smoke test" {
  own_profile lame 'LABEL hal9000.smoke="echo it limps; false"'
  run -1 "$claudy" profile build lame
  [[ $output == *"Cannot build $HAL9000_PREFIX-profile:lame"*"it limps"* ]]
  run -1 "$claudy" --detach --profile lame "$project"
  own_profile lame 'RUN exit 7'
  run -1 "$claudy" profile build lame
  [[ $output == *"use the plain worker with --no-build"* ]]
  mkdir -p "$HAL9000_HOME/profiles/alien"
  printf '%s\n' 'ARG BASE_IMAGE' 'FROM ${BASE_IMAGE}' >"$HAL9000_HOME/profiles/alien/Dockerfile"
  run -1 "$claudy" profile build alien
  [[ $output == *"smoke test failed"* ]]
  [ "$(docker images --quiet "$HAL9000_PREFIX-profile" | wc -l)" = 0 ]
}

@test "a hanging smoke test ends on Ctrl-C or at its timeout" {
  own_profile endless 'LABEL hal9000.smoke="sleep 1000"'
  screen=$HAL9000_PREFIX-smoke
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "$claudy profile build endless; sleep 30"
  smoking() {
    docker ps --quiet --no-trunc --filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.role=helper |
      xargs -r docker inspect --format '{{.Config.Entrypoint}} {{.Config.Cmd}} {{.HostConfig.AutoRemove}}' | grep -F "sleep 1000"
  }
  wait_for 30 smoking
  # The test ends by timeout, and its container is removed, even if claudy is killed.
  [[ $(smoking) == "[timeout] [60 sh -c "*" true" ]]
  tmux -L "$screen" send-keys C-c
  gone() { ! smoking; }
  wait_for 15 gone
  tmux -L "$screen" kill-server
  [ -z "$(docker images --quiet "$HAL9000_PREFIX-profile")" ]
}

@test "ignores a stray file among your own profiles, and an image's entrypoint" {
  mkdir -p "$HAL9000_HOME/profiles"
  echo hello >"$HAL9000_HOME/profiles/readme"
  own_profile mine 'ENTRYPOINT ["/bin/false"]' 'CMD ["/bin/false"]'
  start_session --profile mine
  docker exec "$worker" true
  run -4 "$claudy" profile build readme
}

@test "--no-build uses the plain worker with a warning if a profile is not built" {
  own_profile unbuilt
  start_session --profile unbuilt --no-build
  [[ $stderr == *"warning: $HAL9000_PREFIX-profile:unbuilt is not built; using $HAL9000_IMAGE_REPO:worker"* ]]
  [ "$(image_of "$worker")" = "$HAL9000_IMAGE_REPO:worker" ]
  # A second --no-build accepts the worker with the plain image.
  start_session --profile unbuilt --no-build
  "$claudy" stop "$worker"
  # Without the packages' layer, it uses the profile's image.
  "$claudy" profile build python
  printf 'HAL9000_PROFILE=python\nHAL9000_APT=jq\n' >"$project/.hal9000.conf"
  start_session --profile auto --no-build
  [ "$(image_of "$worker")" = "$HAL9000_IMAGE_REPO:worker-python" ]
  run -2 docker exec "$parent" claudy profile build python
}

@test "refuses wrong names of profiles and packages with their location" {
  run -4 "$claudy" --detach --profile pyton "$project"
  [[ $output == *'There is no profile "pyton"'*python* ]]
  run -2 "$claudy" --detach --profile ../x "$project"
  run -2 "$scripts/spawn-worker.ts" --detach --profile python --image x "$project"
  echo 'HAL9000_APT=jq --allow-unauthenticated' >"$project/.hal9000.conf"
  run -2 "$claudy" --detach "$project"
  [[ $output == *"/.hal9000.conf:1: HAL9000_APT must be names of Debian packages"* ]]
  run -4 "$claudy" profile build nonsense
  run -2 "$claudy" profile build
}

@test "spawn-worker accepts a profile by name, also in the parent" {
  id=$(spawn --profile python "$project")
  docker exec "$id" python --version
  touch "$project/requirements.txt"
  name=$(docker exec "$parent" spawn-worker -d --profile auto "$project")
  [ "$(image_of "$name")" = "$HAL9000_IMAGE_REPO:worker-python" ]
  id=$(spawn "$project")
  [ "$(image_of "$id")" = "$HAL9000_IMAGE_REPO:worker" ]
}

@test "the pool keeps the configured profiles warm and claims a worker of the right profile" {
  "$claudy" profile build python
  echo 'WARM_PROFILES="base python missing"' >"$HAL9000_HOME/config/hal9000.conf"
  "$claudy" daemon restart >/dev/null
  "$claudy" pool start --min-warm 1 --max-warm 2 >/dev/null
  status=$("$claudy" pool warm --json)
  rm "$HAL9000_HOME/config/hal9000.conf"
  [ "$(jq -c '.profiles | map([.name, .present, .warm])' <<<"$status")" = '[["base",true,1],["python",true,1],["missing",false,0]]' ]
  touch "$project/requirements.txt"
  run -0 --separate-stderr "$claudy" --detach --json "$project"
  [ "$(jq -r .start <<<"$output")" = warm ]
  docker exec "$(jq -r .worker <<<"$output")" python --version
  start=$(spawn --json "$(make_project plain)" | jq -r .start)
  [ "$start" = warm ]
  "$claudy" pool stop >/dev/null
  "$claudy" daemon restart >/dev/null
}
