# The egress policy and its proxy. The public address is in a network namespace of the test,
# and names are in the parent's hosts file.

load ../helper/load
load ../helper/found

claudy=$scripts/claudy.ts
deno=$(echo "$repo"/node_modules/@deno/*/deno)
public=93.184.216.34

# The names of this file are not to be asked of a proxy that the machine may use.
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy

setup() {
  need_root
  socket=$HAL9000_HOME/run/ways/services/3128.sock
  log=$HAL9000_HOME/logs/egress.jsonl
  project=$(make_project reaching)
  begin internet unshare --net sleep infinity
  internet=$(cat "$BATS_TEST_TMPDIR/pid.internet")
  wait_for 10 in_own_namespace "$internet"
  connect_parent
}

teardown() {
  after_failure
  # shellcheck disable=SC2046  # several
  as_root kill $(cat "$BATS_TEST_TMPDIR"/pid.* 2>/dev/null) 2>/dev/null || true
  stop_workers
  rm -rf "$HAL9000_HOME/config/egress/"*/*.json "$HAL9000_HOME/config/egress/instance.json"
  rm -f "$HAL9000_HOME/secrets/egress-host.json" "$HAL9000_HOME/secrets/named/"*
}

# Starts a command in the background; unlike $!, this is its own pid.
begin() { # begin NAME COMMAND...
  local file=$BATS_TEST_TMPDIR/pid.$1
  as_root sh -c 'echo $$ >"$0"; exec "$@"' "$file" "${@:2}" >/dev/null 3>&- &
  wait_for 10 test -s "$file"
}

in_own_namespace() { [ "$(as_root readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

outside() { as_root nsenter --net --target "$internet" "$@"; }

# The parent's way to a network namespace with the public address.
connect_parent() {
  local pid
  pid=$(inspect "$parent" '{{.State.Pid}}')
  # The one of the test before may still be there.
  as_root nsenter --net --target "$pid" ip link delete outside 2>/dev/null || true
  as_root nsenter --net --target "$pid" ip link add outside type veth peer name inside netns "$internet"
  as_root nsenter --net --target "$pid" sh -c 'ip address add 93.184.216.1/24 dev outside && ip link set outside up'
  outside sh -c "ip address add $public/24 dev inside && ip link set inside up && ip link set lo up"
  docker exec "$parent" sh -c "printf '%s\n' '$public allowed.example evil.example' '10.9.9.9 inside.example' >>/etc/hosts"
}

serve() { # serve PORT: answers with "from PORT" at the public address
  begin server nsenter --net --target "$internet" "$deno" eval \
    "Deno.serve({ port: $1, hostname: '$public' }, () => new Response('from $1'))"
  wait_for 10 outside bash -c "</dev/tcp/$public/$1"
}

client() { # client WORKER PLACE: a request from that worker
  "$deno" run --allow-all --no-lock --quiet "$repo/tests/helper/egress-client.ts" \
    "$socket" "$(inspect "$1" '{{.Id}}')" "$2"
}

status_is() { [[ "$(client "$2" "$3")" == "HTTP/1.1 $1 "* ]]; }

@test "the egress proxy has its own user, without capabilities and access to the home" {
  wait_for 5 docker exec "$parent" pgrep --euid 65432 -f egress-proxy
  pid=$(docker exec "$parent" pgrep -f egress-proxy)
  docker exec "$parent" cat "/proc/$pid/status" >"$BATS_TEST_TMPDIR/status"
  grep -Pq '^Uid:\t65432\t65432\t65432\t65432$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Gid:\t65432\t65432\t65432\t65432$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Groups:\t *$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^CapPrm:\t0+$' "$BATS_TEST_TMPDIR/status"
  [ "$(docker exec "$parent" cat "/proc/$pid/oom_score_adj")" = 900 ]
  [ "$(stat -c '%a %u' "$socket")" = "660 0" ]
  for path in /run/docker.sock /root/.hal9000/run "/host$HAL9000_PROJECT_ROOTS"; do
    run -2 docker exec --user 65432:65432 "$parent" ls "$path"
    [[ $output == *"Permission denied"* ]]
  done
}

@test "a worker reaches allowed hosts alone, and the log shows each decision" {
  spawn -n reaching-$$ "$project"
  serve 80
  run -0 client reaching-$$ http://allowed.example/
  [[ $output == "HTTP/1.1 403 "*"claudy egress allow allowed.example"* ]]
  run -0 "$claudy" egress allow allowed.example inside.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  run -0 client reaching-$$ allowed.example:80
  [[ $output == *"200 Connection established"*"from 80"* ]]
  run -0 client reaching-$$ evil.example:80
  [[ $output == "HTTP/1.1 403 "* ]]
  run -0 client reaching-$$ inside.example:80
  [[ $output == *"it resolves to 10.9.9.9, a private address"* ]]
  for place in 169.254.169.254:80 127.0.0.1:8000 "[::1]:8000" "$(inspect "$parent" '{{.NetworkSettings.IPAddress}}'):80"; do
    run -0 client reaching-$$ "$place"
    [[ $output == "HTTP/1.1 403 "* ]]
  done
  logged() { [ "$(jq -r 'select(.host == "evil.example" and .worker == "reaching-'$$'") | .verdict' "$log")" = refused ]; }
  wait_for 2 logged
  jq -es 'any(.host == "allowed.example" and .verdict == "allowed" and .bytesDown > 0 and .address == "'$public'")' "$log"
  [ "$(stat -c '%a %u:%g' "$log")" = "600 $(owner_of "$HAL9000_HOME")" ]
  run -0 "$claudy" egress log
  [[ $output == *"reaching-$$"*"refused"*"evil.example:80"*"preset balanced"* ]]
}

@test "rules of a project and changes apply within a second, also to open tunnels" {
  spawn -n reaching-$$ "$project"
  spawn -n other-$$ "$(make_project other)"
  serve 8443
  "$claudy" egress allow --project "$project" allowed.example:8443
  wait_for 1 status_is 200 reaching-$$ allowed.example:8443
  status_is 403 other-$$ allowed.example:8443
  "$claudy" egress deny --project "$project" allowed.example
  wait_for 1 status_is 403 reaching-$$ allowed.example:8443
  "$claudy" egress deny --remove --project "$project" allowed.example
  wait_for 1 status_is 200 reaching-$$ allowed.example:8443
  "$claudy" egress preset closed
  "$claudy" egress preset open --project "$project"
  "$claudy" egress allow --remove --project "$project" allowed.example:8443
  status_is 200 reaching-$$ allowed.example:8443
  status_is 403 other-$$ allowed.example:8443
  # Nothing of it is in the project.
  [ -z "$(ls -A "$project")" ]
}

@test "rules that cannot be read refuse everything" {
  spawn -n reaching-$$ "$project"
  serve 80
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  echo broken >"$HAL9000_HOME/config/egress/instance.json"
  wait_for 1 status_is 403 reaching-$$ http://allowed.example/
  run -1 "$claudy" egress show
  [[ $output == *"Cannot read $HAL9000_HOME/config/egress/instance.json"* ]]
  rm "$HAL9000_HOME/config/egress/instance.json"
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
}

@test "check asks the proxy, which connects to nothing" {
  "$claudy" egress allow allowed.example
  # By the rule that was just written.
  [[ $("$claudy" egress check https://allowed.example/) == 'Egress to allowed.example:443 is allowed by the rule "allow allowed.example" of the instance.' ]]
  run -6 "$claudy" egress check http://169.254.169.254/latest/meta-data
  [[ $output == *"a link-local address, which no rule can allow"* ]]
  run -6 "$claudy" egress check --json evil.example:22
  [ "$(jq -r '"\(.host) \(.port) \(.allowed) \(.rule)"' <<<"$output")" = "evil.example 22 false preset balanced" ]
  run -2 "$claudy" egress check 'http://user:x@/'
}

@test "a killed proxy lets nothing out, and is back within 5 seconds" {
  spawn -n reaching-$$ "$project"
  serve 80
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  docker exec "$parent" pkill -9 -f egress-proxy
  run -1 client reaching-$$ http://allowed.example/
  wait_for 5 status_is 200 reaching-$$ http://allowed.example/
  # Nor does one without a parent that gives it the policy.
  docker restart --time 5 "$parent"
  connect_parent
  wait_for 10 status_is 403 reaching-$$ http://evil.example/
}

# Files that package managers read from static servers, as WWW/NAME/PATH.
registries() { # registries DIRECTORY
  local work=$BATS_TEST_TMPDIR/registries
  mkdir -p "$work/package" "$work/mod-1.0" "$1/git.example" "$1/npm.example" "$1/pypi.example/simple/mod"
  git init --quiet "$work/repository"
  echo cloned >"$work/repository/file"
  git -C "$work/repository" add file
  git -C "$work/repository" -c user.name=t -c user.email=t@example.com commit --quiet --message one
  git clone --quiet --bare "$work/repository" "$1/git.example/r.git"
  git -C "$1/git.example/r.git" update-server-info
  echo '{"name":"left","version":"1.0.0"}' >"$work/package/package.json"
  tar -czf "$1/npm.example/left-1.0.0.tgz" -C "$work" package
  jq -n '{name: "left", "dist-tags": {latest: "1.0.0"}, versions: {"1.0.0": {name: "left", version: "1.0.0",
    dist: {tarball: "https://npm.example/left-1.0.0.tgz"}}}}' >"$1/npm.example/left"
  echo 'from setuptools import setup; setup(name="mod", version="1.0", py_modules=["mod"])' >"$work/mod-1.0/setup.py"
  echo 'answer = 42' >"$work/mod-1.0/mod.py"
  tar -czf "$1/pypi.example/mod-1.0.tar.gz" -C "$work" mod-1.0
  echo '<a href="https://pypi.example/mod-1.0.tar.gz">mod-1.0.tar.gz</a>' >"$1/pypi.example/simple/mod/index.html"
}

# A certificate for *.example, signed by the test's own CA.
certificate() { # certificate DIRECTORY
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=HAL-9000 test CA" \
    -keyout "$1/ca.key" -out "$1/ca.pem" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=example" -keyout "$1/key.pem" -out "$1/request.pem" 2>/dev/null
  openssl x509 -req -days 2 -in "$1/request.pem" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial \
    -extfile <(echo "subjectAltName=DNS:git.example,DNS:npm.example,DNS:pypi.example,DNS:evil.example,DNS:deb.example,DNS:maven.example,DNS:crates.example") \
    -out "$1/cert.pem" 2>/dev/null
}

serve_files() { # serve_files DIRECTORY CERTIFICATES: over TLS on port 443, plain on port 80
  cat >"$BATS_TEST_TMPDIR/files.ts" <<'TS'
const [www, keys, hostname] = Deno.args;
const text = (name: string) => Deno.readTextFileSync(`${keys}/${name}`);
async function serve(request: Request) {
  const { hostname, pathname } = new URL(request.url);
  const line = `${hostname}${pathname} ${request.headers.get("authorization")}\n`;
  Deno.writeTextFileSync(`${keys}/requests`, line, { append: true });
  const path = `${www}/${hostname}${pathname}${pathname.endsWith("/") ? "index.html" : ""}`;
  try {
    const type = path.endsWith(".html") ? "text/html" : "application/octet-stream";
    return new Response(await Deno.readFile(path), { headers: { "content-type": type } });
  } catch {
    return new Response("none", { status: 404 });
  }
}
Deno.serve({ port: 443, hostname, cert: text("cert.pem"), key: text("key.pem") }, serve);
Deno.serve({ port: 80, hostname }, serve);
TS
  begin server nsenter --net --target "$internet" \
    "$deno" run --allow-all --no-lock --quiet "$BATS_TEST_TMPDIR/files.ts" "$1" "$2" "$public"
  wait_for 10 outside bash -c "</dev/tcp/$public/443"
}

@test "git, pip, npm, curl, Node's fetch, ssh and Java use the proxy in isolated workers" {
  local keys=$BATS_TEST_TMPDIR/keys www=$BATS_TEST_TMPDIR/www
  mkdir "$keys" "$www"
  certificate "$keys"
  registries "$www"
  docker exec "$parent" sh -c "echo '$public git.example npm.example pypi.example' >>/etc/hosts"
  serve_files "$www" "$keys"
  "$claudy" egress allow --project "$project" git.example npm.example pypi.example
  ca=(--mount "$keys/ca.pem:/ca.pem:ro" --env GIT_SSL_CAINFO=/ca.pem --env NODE_EXTRA_CA_CERTS=/ca.pem
    --env CURL_CA_BUNDLE=/ca.pem --env PIP_CERT=/ca.pem)
  for kind in python node java; do
    WORKER_NETWORK=isolated spawn -n "$kind-$$" --profile "$kind" --caches npm,pip,maven "${ca[@]}" "$project"
    [ "$(docker exec "$kind-$$" ls /sys/class/net)" = lo ]
  done
  docker exec -w /tmp python-$$ git clone --quiet https://git.example/r.git
  [ "$(docker exec python-$$ cat /tmp/r/file)" = cloned ]
  run ! docker exec -w /tmp python-$$ git clone --quiet https://evil.example/r.git other
  echo "$output"
  [[ $output == *403* ]]
  docker exec python-$$ pip install --quiet --no-build-isolation --index-url https://pypi.example/simple mod
  [ "$(docker exec python-$$ python -c 'import mod; print(mod.answer)')" = 42 ]
  [ "$(docker exec python-$$ curl --silent https://git.example/r.git/HEAD)" = "ref: refs/heads/$(git -C "$www/git.example/r.git" symbolic-ref --short HEAD)" ]
  run -0 docker exec python-$$ curl --silent http://evil.example/
  [[ $output == *"claudy egress allow evil.example"* ]]
  # ssh reaches the proxy; the server is no ssh server.
  run ! docker exec python-$$ ssh -o BatchMode=yes -p 8022 user@git.example
  echo "$output"
  [[ $output == *"claudy egress allow git.example:8022"* ]]
  docker exec -w /tmp node-$$ npm install --silent --no-audit --no-fund --registry https://npm.example/ left
  [ "$(docker exec node-$$ node -p 'require("/tmp/node_modules/left/package.json").version')" = 1.0.0 ]
  # What npm has downloaded is in the other workers, too, and what they change is downloaded again.
  run -0 docker exec java-$$ find /home/claude/_cacache/content-v2 -type f -exec sh -c 'echo changed >"$1"; echo "$1"' sh {} \;
  [[ $output == */_cacache/content-v2/* ]]
  docker exec -w /tmp node-$$ npm ci --silent --no-audit --no-fund
  [ "$(docker exec node-$$ node -p 'require("/tmp/node_modules/left/package.json").version')" = 1.0.0 ]
  run -0 --separate-stderr "$claudy" prune --caches --dry-run --older-than 3650
  [[ $stderr == *"Kept: the package cache of npm, "*": used by "*"node-$$"* ]]
  echo "<project><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>a</artifactId><version>1</version><packaging>pom</packaging></project>" >"$project/pom.xml"
  [[ $(docker exec java-$$ mvn --debug --offline validate) == *"Using local repository at /cache/maven"*"BUILD SUCCESS"* ]]
  fetched() { docker exec node-$$ node -e 'fetch(process.argv[1]).then(async (r) => console.log(r.status, await r.text()))' "$1"; }
  [[ $(fetched https://git.example/r.git/HEAD) == "200 ref: "* ]]
  run ! fetched https://evil.example/
  cat >"$project/Fetch.java" <<'JAVA'
import java.net.URI;
import java.net.http.*;
class Fetch {
  public static void main(String[] args) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(args[0])).build();
    System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    System.out.println(new String(URI.create(args[0]).toURL().openStream().readAllBytes()));
  }
}
JAVA
  docker exec java-$$ keytool -importcert -noprompt -alias test -file /ca.pem -keystore /tmp/trust -storepass changeit
  run -0 --separate-stderr docker exec java-$$ java -Djavax.net.ssl.trustStore=/tmp/trust \
    -Djavax.net.ssl.trustStorePassword=changeit /workspace/Fetch.java https://git.example/r.git/HEAD
  [ "$(grep -c '^ref: ' <<<"$output")" = 2 ]
  # What the worker itself serves is not the proxy's.
  heartbeat node-$$
}

@test "the egress proxy sets a secret for its host, of which an isolated worker has a placeholder" {
  local keys=$BATS_TEST_TMPDIR/keys www=$BATS_TEST_TMPDIR/www session token=planted-$HAL9000_PREFIX
  mkdir "$keys" "$www" "$project/bin"
  certificate "$keys"
  registries "$www"
  docker exec "$parent" sh -c "echo '$public git.example npm.example' >>/etc/hosts"
  serve_files "$www" "$keys"
  jq -n --rawfile ca "$keys/ca.pem" '{version: 1, upstream: {http: null, https: null, noProxy: "", ca: $ca}, addresses: []}' \
    >"$HAL9000_HOME/secrets/egress-host.json"
  "$claudy" secret set GIT_TOKEN --host git.example --user me <<<"$token-git"
  run -0 "$claudy" secret set NPM_TOKEN --env --host npm.example <<<"$token-npm"
  [[ $output == *"warning: Egress to npm.example:443 is refused"* ]]
  "$claudy" egress allow git.example npm.example
  # One of the caller's is kept, the others are those of the image.
  unset NODE_EXTRA_CA_CERTS SSL_CERT_FILE GIT_SSL_CAINFO REQUESTS_CA_BUNDLE
  session=$(ANTHROPIC_API_KEY=sk-ant-planted CURL_CA_BUNDLE=$keys/ca.pem WORKER_NETWORK=isolated "$claudy" --detach --json --profile node "$project" | jq -r .session)
  [ "$(docker exec "$session" ls /sys/class/net)" = lo ]
  # Programs with the environment of the session's Claude.
  printf '#!/bin/sh\nexec "$@"\n' >"$project/bin/claude"
  chmod +x "$project/bin/claude"
  runs() { docker exec -e PATH=/workspace/bin:/usr/local/bin:/usr/bin:/bin -w /tmp "$session" claude-session "$@"; }
  # shellcheck disable=SC2016  # in the worker
  placeholder=$(runs sh -c 'echo "$NPM_TOKEN"')
  [[ $placeholder == hal9000-placeholder-* ]]
  [[ $(runs printenv CURL_CA_BUNDLE GIT_SSL_CAINFO) == */.caller.CURL_CA_BUNDLE*/tmp/hal9000-certificates.pem ]]
  # git asks without a token, curl sends one of its own, npm the placeholder, and fetch nothing.
  runs git clone --quiet https://git.example/r.git
  [ "$(docker exec "$session" cat /tmp/r/file)" = cloned ]
  [[ $(runs curl --silent --header 'Authorization: Bearer mine' https://git.example/r.git/HEAD) == "ref: "* ]]
  # shellcheck disable=SC2016  # npm replaces it
  docker exec "$session" sh -c 'echo "//npm.example/:_authToken=\${NPM_TOKEN}" >/tmp/.npmrc'
  runs npm install --silent --no-audit --no-fund --registry https://npm.example/ left
  [ "$(runs node -p 'require("/tmp/node_modules/left/package.json").version')" = 1.0.0 ]
  fetched() { runs node -e 'fetch(process.argv[1]).then(async (r) => console.log(r.status, (await r.text()).length))' https://npm.example/left; }
  [[ $(fetched) == "200 "* ]]
  [ "$(grep -c ^git.example "$keys/requests")" -gt 3 ]
  [ "$(grep -c ^npm.example "$keys/requests")" -ge 3 ]
  [ "$(sed 's/^[^ ]* //' "$keys/requests" | sort -u)" = "Basic $(printf 'me:%s-git' "$token" | base64 -w 0)
Bearer $token-npm" ]
  # The search finds what there is.
  run -0 found_in "$session" "$placeholder"
  run ! found_in "$session" "$token
$(printf 'me:%s' "$token" | base64 -w 0 | cut -c 1-20)
PRIVATE KEY"
  run ! found_in_memory "$session" "$token"
  run ! grep -qF -- "$token" <<<"$(docker inspect "$session" "$parent")$("$claudy" egress log --json)"
  run ! grep -rqF -- "$token" "$HAL9000_HOME/logs"
  logged() { jq -es --arg session "$session" 'any(.session == $session and .verdict == "allowed" and .secrets == ["NPM_TOKEN"] and .host == "npm.example")' "$log"; }
  wait_for 2 logged
  [[ $("$claudy" egress check --session "$session" https://npm.example/) == *"sets Authorization there from the secret NPM_TOKEN."* ]]
  # Another value, and none: at once.
  "$claudy" secret set NPM_TOKEN --env --host npm.example <<<"$token-second"
  second() { fetched && [[ $(tail -n 1 "$keys/requests") == "npm.example/left Bearer $token-second" ]]; }
  wait_for 2 second
  "$claudy" secret rm --yes NPM_TOKEN
  ended() { ! fetched; } # the session does not trust the server itself
  wait_for 2 ended
  [[ $(tail -n 1 "$keys/requests") == *second ]]
}

# A package repository for apt, one for Maven and a registry for Cargo, as static files.
archives() { # archives DIRECTORY
  local work=$BATS_TEST_TMPDIR/archives crate=left-1.0.0
  mkdir -p "$work/deb/DEBIAN" "$work/deb/opt" "$work/$crate/src" "$1/deb.example" "$1/crates.example/1.0.0" \
    "$1/crates.example/index/le/ft" "$1/maven.example/test/parent/1"
  printf 'Package: left\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: test\n' >"$work/deb/DEBIAN/control"
  echo installed >"$work/deb/opt/left"
  dpkg-deb --root-owner-group --build "$work/deb" "$1/deb.example/left.deb" >/dev/null
  {
    dpkg-deb --field "$1/deb.example/left.deb"
    printf 'Filename: ./left.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s "$1/deb.example/left.deb")" \
      "$(sha256sum "$1/deb.example/left.deb" | cut -d ' ' -f 1)"
  } >"$1/deb.example/Packages"
  printf '[package]\nname = "left"\nversion = "1.0.0"\n' >"$work/$crate/Cargo.toml"
  echo 'pub fn answer() -> i32 { 42 }' >"$work/$crate/src/lib.rs"
  tar -czf "$1/crates.example/1.0.0/download" -C "$work" "$crate"
  echo '{"dl":"https://crates.example/{version}/download"}' >"$1/crates.example/index/config.json"
  jq -nc --arg sum "$(sha256sum "$1/crates.example/1.0.0/download" | cut -d ' ' -f 1)" \
    '{name: "left", vers: "1.0.0", deps: [], cksum: $sum, features: {}, yanked: false}' >"$1/crates.example/index/le/ft/left"
  echo '<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>parent</artifactId>
    <version>1</version><packaging>pom</packaging></project>' >"$1/maven.example/test/parent/1/parent-1.pom"
}

@test "apt, Maven and Cargo use the proxy in isolated workers, and Go has its variables" {
  local keys=$BATS_TEST_TMPDIR/keys www=$BATS_TEST_TMPDIR/www rust=()
  mkdir "$keys" "$www"
  certificate "$keys"
  archives "$www"
  docker exec "$parent" sh -c "echo '$public deb.example maven.example crates.example' >>/etc/hosts"
  serve_files "$www" "$keys"
  "$claudy" egress allow --project "$project" deb.example maven.example crates.example
  # Worker images have no Cargo; the test uses that of the machine, if there is one.
  sysroot=$(rustc --print sysroot 2>/dev/null) && rust=(--mount "$sysroot:/opt/rust:ro" --allow-any-path)
  WORKER_NETWORK=isolated spawn -n java-$$ --profile java --secret "ca=$keys/ca.pem" "${rust[@]}" "$project"
  # apt, over http and https.
  for url in http://deb.example https://deb.example; do
    docker exec java-$$ sh -c "mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial && echo 'deb [trusted=yes] $url ./' >/tmp/apt/sources"
    apt=(apt-get -o Dir::Etc::SourceList=/tmp/apt/sources -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=/tmp/apt/lists
      -o Dir::Cache=/tmp/apt/cache -o APT::Sandbox::User= -o Acquire::https::CAInfo=/run/secrets/ca -o Debug::NoLocking=true)
    docker exec java-$$ "${apt[@]}" --quiet update
    docker exec -w /tmp java-$$ "${apt[@]}" --quiet download left
    [ "$(docker exec java-$$ sh -c 'dpkg-deb --fsys-tarfile /tmp/left*.deb | tar -xO ./opt/left; rm -r /tmp/apt /tmp/left*.deb')" = installed ]
  done
  # Maven.
  docker exec java-$$ keytool -importcert -noprompt -alias test -file /run/secrets/ca -keystore /tmp/trust -storepass changeit
  mkdir "$project/maven"
  echo '<project><modelVersion>4.0.0</modelVersion><parent><groupId>test</groupId><artifactId>parent</artifactId>
    <version>1</version><relativePath/></parent><artifactId>child</artifactId><packaging>pom</packaging></project>' >"$project/maven/pom.xml"
  echo '<settings><mirrors><mirror><id>m</id><mirrorOf>*</mirrorOf><url>https://maven.example</url></mirror></mirrors></settings>' >"$project/maven/settings.xml"
  docker exec -w /workspace/maven -e MAVEN_OPTS='-Djavax.net.ssl.trustStore=/tmp/trust -Djavax.net.ssl.trustStorePassword=changeit' \
    java-$$ mvn --quiet --batch-mode --settings settings.xml -Dmaven.repo.local=/tmp/m2 validate
  docker exec java-$$ test -f /tmp/m2/test/parent/1/parent-1.pom
  # Go asks for these names: https://pkg.go.dev/net/http#ProxyFromEnvironment
  for name in HTTP_PROXY HTTPS_PROXY; do
    [ "$(docker exec java-$$ printenv "$name")" = http://127.0.0.1:3128 ]
  done
  [[ $(docker exec java-$$ printenv NO_PROXY) == localhost,127.0.0.1* ]]
  [ "${#rust[@]}" != 0 ] || skip "without Cargo: this machine has none"
  mkdir -p "$project/rust/src"
  printf '[package]\nname = "app"\nversion = "1.0.0"\n[dependencies]\nleft = "1"\n' >"$project/rust/Cargo.toml"
  echo 'fn main() {}' >"$project/rust/src/main.rs"
  mkdir "$project/rust/.cargo"
  printf '[source.crates-io]\nreplace-with = "test"\n[source.test]\nregistry = "sparse+https://crates.example/index/"\n[http]\ncainfo = "/run/secrets/ca"\n' >"$project/rust/.cargo/config.toml"
  docker exec -w /workspace/rust -e CARGO_HOME=/tmp/cargo -e RUSTC=/opt/rust/bin/rustc java-$$ /opt/rust/bin/cargo fetch
  docker exec java-$$ sh -c 'ls /tmp/cargo/registry/src/*/left-1.0.0/src/lib.rs'
}

@test "an isolated worker has no way out while the proxy is killed, and one within 5 seconds" {
  WORKER_NETWORK=isolated spawn -n alone-$$ "$project"
  serve 80
  "$claudy" egress allow allowed.example inside.example
  fetched() { [ "$(docker exec alone-$$ curl --silent --max-time 5 http://allowed.example/)" = "from 80" ]; }
  wait_for 5 fetched
  for url in http://inside.example/ http://169.254.169.254/ http://evil.example/ "http://$(inspect "$parent" '{{.NetworkSettings.IPAddress}}'):8000/"; do
    run -0 docker exec alone-$$ curl --silent --output /dev/null --write-out '%{http_code}' "$url"
    [ "$output" = 403 ]
  done
  # Without the proxy's help, nothing.
  run ! docker exec alone-$$ curl --silent --max-time 5 --noproxy '*' "http://$public/"
  docker exec "$parent" pkill -9 -f egress-proxy
  run ! docker exec alone-$$ curl --silent --max-time 5 http://allowed.example/
  wait_for 5 fetched
}
