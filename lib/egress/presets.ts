// The presets of the egress policy. They decide about hosts that no rule names.

import type { egressPresets } from "../instance/settings.ts";
import { matches, parseHost, type Rule } from "./rules.ts";
import type { Target } from "./target.ts";

export { egressPresets as presets } from "../instance/settings.ts";

export type Preset = (typeof egressPresets)[number];

/** What each preset allows, for help and documents. */
export const presetMeanings: Record<Preset, string> = {
  open: "every public address",
  balanced: "Anthropic, hosts of source code and package registries",
  closed: "nothing",
};

/**
 * The hosts of `balanced`, each with the reason. Only hosts whose content is needed to
 * work on a project. Everyone can publish on most of them, so a worker can send data out
 * through them: docs/dind/EGRESS.md.
 */
export const balancedHosts: [reason: string, ...hosts: string[]][] = [
  [
    "Claude: the API, the login, downloads and the status of features",
    "api.anthropic.com",
    "claude.ai",
    "platform.claude.com",
    "console.anthropic.com",
    "statsig.anthropic.com",
    "downloads.claude.ai",
    "code.claude.com",
    "docs.claude.com",
    "docs.anthropic.com",
  ],
  [
    "GitHub: clones, the API, archives, releases, packages",
    "github.com",
    "github.com:22",
    "ssh.github.com:443",
    "api.github.com",
    "codeload.github.com",
    "*.githubusercontent.com",
    "*.pkg.github.com",
    "ghcr.io",
  ],
  [
    "GitLab: clones, the API, archives, packages",
    "gitlab.com",
    "gitlab.com:22",
    "altssh.gitlab.com:443",
    "registry.gitlab.com",
  ],
  [
    "Bitbucket: clones",
    "bitbucket.org",
    "bitbucket.org:22",
    "api.bitbucket.org",
  ],
  ["npm: packages", "registry.npmjs.org", "registry.yarnpkg.com"],
  ["Node.js: headers for native modules, versions", "nodejs.org"],
  ["JSR and Deno: packages", "jsr.io", "npm.jsr.io", "deno.land", "esm.sh"],
  ["PyPI: packages", "pypi.org", "files.pythonhosted.org"],
  [
    "crates.io and Rust: packages, toolchains",
    "crates.io",
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
  ],
  [
    "Go: modules, checksums, toolchains",
    "proxy.golang.org",
    "sum.golang.org",
    "go.dev",
    "dl.google.com",
    "storage.googleapis.com",
  ],
  [
    "Maven and Gradle: packages, wrappers, plugins",
    "repo.maven.apache.org",
    "repo1.maven.org",
    "maven.google.com",
    "plugins.gradle.org",
    "plugins-artifacts.gradle.org",
    "services.gradle.org",
    "downloads.gradle.org",
  ],
  ["RubyGems: packages", "rubygems.org", "index.rubygems.org"],
  ["Packagist: packages of PHP", "packagist.org", "repo.packagist.org"],
  ["NuGet: packages of .NET", "api.nuget.org", "www.nuget.org"],
  [
    "Debian and Ubuntu: packages",
    "deb.debian.org",
    "security.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "ports.ubuntu.com",
  ],
  ["Alpine: packages", "dl-cdn.alpinelinux.org"],
];

const balanced: Rule[] = balancedHosts.flatMap(([, ...hosts]) =>
  hosts.map((host) => ({ action: "allow" as const, ...parseHost(host) }))
);

export function presetAllows(preset: Preset, target: Target): boolean {
  if (preset === "open") return true;
  return preset === "balanced" &&
    balanced.some((rule) => matches(rule, target));
}
