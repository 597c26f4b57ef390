// The variables by which programs in an isolated worker find the egress proxy.

/** The proxy's port on the worker's localhost. */
export const egressPort = 3128;

const proxy = `http://127.0.0.1:${egressPort}`;

/** What is on the worker's own localhost: ChromaDB, MCP servers, and servers of its own. */
export const localHosts = "localhost,127.0.0.1,::1,[::1]";

const javaOptions = [
  "-Dhttp.proxyHost=127.0.0.1",
  `-Dhttp.proxyPort=${egressPort}`,
  "-Dhttps.proxyHost=127.0.0.1",
  `-Dhttps.proxyPort=${egressPort}`,
  "-Dhttp.nonProxyHosts=localhost|127.*|[::1]",
];

/** KEY=VALUE. Programs read the names in upper or lower case; curl reads http_proxy only. */
export const egressVariables = [
  ...["HTTP_PROXY", "HTTPS_PROXY"].flatMap((name) => [
    `${name}=${proxy}`,
    `${name.toLowerCase()}=${proxy}`,
  ]),
  `NO_PROXY=${localHosts}`,
  `no_proxy=${localHosts}`,
  // Node's own fetch: https://nodejs.org/api/cli.html#node_use_env_proxy1
  "NODE_USE_ENV_PROXY=1",
  // It causes a line on stderr; Java has no other way to set this from outside.
  `JAVA_TOOL_OPTIONS=${javaOptions.join(" ")}`,
  // Maven's own transport asks for properties only with this one.
  "MAVEN_ARGS=-Daether.connector.http.useSystemProperties=true",
  // For ssh: docker/ssh-egress.conf.
  "HAL9000_EGRESS=1",
];
