// Host paths that no worker may mount without --allow-any-path.

import { readFileSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { checkout } from "../std/checkout.ts";
import { isWithin } from "../std/hostpath.ts";

export interface HostPlaces {
  /** HAL9000_HOME as a path of the host. */
  home: string;
  /** The engine's socket as a path of the host. */
  socket: string;
  /** Home directories of the host's users. */
  userHomes?: string[];
  /** Checkouts of HAL-9000, whose scripts run on the host. */
  checkouts?: string[];
}

/** Refused, with everything in them. */
const systemTrees = [
  "/Library",
  "/System",
  "/bin",
  "/boot",
  "/dev",
  "/etc",
  "/lib",
  "/lib32",
  "/lib64",
  // Windows, in WSL
  "/mnt/c/Program Files",
  "/mnt/c/Program Files (x86)",
  "/mnt/c/ProgramData",
  "/mnt/c/Windows",
  "/mnt/wsl",
  "/mnt/wslg",
  // macOS, where /etc and /var lead here
  "/private/etc",
  "/private/var/db",
  "/private/var/log",
  "/private/var/root",
  "/private/var/run",
  "/proc",
  "/run",
  "/sbin",
  "/sys",
  "/var/lib",
  "/var/log",
  "/var/run",
];

/** Refused themselves, but directories in them are allowed. */
export const systemDirectories = [
  "/",
  "/Applications",
  "/Users",
  "/Users/Shared",
  "/Volumes",
  "/home",
  "/media",
  "/mnt",
  "/mnt/c",
  "/mnt/c/Users",
  "/mnt/c/Users/Public",
  "/opt",
  "/private",
  "/private/tmp",
  "/private/var",
  "/private/var/folders",
  "/srv",
  "/tmp",
  "/usr",
  "/usr/bin",
  "/usr/lib",
  "/usr/local",
  "/usr/sbin",
  "/usr/share",
  "/var",
  "/var/tmp",
];

/** Contain keys and logins, wherever they are; not usual names of projects. */
const keyDirectories = [
  ".aws",
  ".azure",
  ".gnupg",
  ".kube",
  ".password-store",
  ".ssh",
];

/**
 * Paths in a home directory: logins, keys, histories, and files that the desktop or a
 * shell runs automatically.
 */
const privateDirectories = [
  ...keyDirectories,
  ".1password",
  ".bash_history",
  ".bash_profile",
  ".bashrc",
  ".cargo/credentials.toml",
  ".claude",
  ".claude.json",
  ".config",
  ".docker",
  ".gem/credentials",
  ".git-credentials",
  ".gitconfig",
  ".local/bin",
  ".local/share/applications",
  ".local/share/keyrings",
  ".local/share/kwalletd",
  ".local/share/systemd",
  ".m2/settings.xml",
  ".mozilla",
  ".netrc",
  ".npmrc",
  ".pki",
  ".profile",
  ".pypirc",
  ".subversion/auth",
  ".terraform.d",
  ".thunderbird",
  ".vault-token",
  ".zprofile",
  ".zsh_history",
  ".zshenv",
  ".zshrc",
  "AppData",
  "Library",
  "snap",
];

/** Homes that /etc/passwd does not name: of macOS, of Windows in WSL, of a directory service. */
const usualHome = /^(?:\/home|\/Users|\/mnt\/[a-z]\/Users)\/[^/]+/;

/** Why a worker may not mount `path`; undefined if it may. */
export function refusalOf(
  path: string,
  { home, socket, userHomes = [], checkouts = [] }: HostPlaces,
): string | undefined {
  if (systemDirectories.includes(path)) return "it is a system directory";
  if (systemTrees.some((tree) => isWithin(path, tree))) {
    return "it is part of the system";
  }
  if (isWithin(path, home)) return "it is part of HAL9000_HOME";
  if (isWithin(socket, path)) return "it contains the engine's socket";
  if (userHomes.includes(path) || isUsualHome(path)) {
    return "it is a home directory";
  }
  const above = userHomes.find((user) => isWithin(user, path));
  if (above !== undefined) return `it contains the home directory ${above}`;
  if (isWithin(home, path)) return `it contains HAL9000_HOME, ${home}`;
  const secret = privateTreeOf(path, userHomes);
  if (secret !== undefined) return `${secret} holds keys, logins or settings`;
  const own = checkouts
    .find((root) => isWithin(path, root) || isWithin(root, path));
  if (own !== undefined) return `the scripts in ${own} run on the host`;
  return undefined;
}

/** Not below /home, where a directory may also be a project's. */
function isUsualHome(path: string): boolean {
  return !path.startsWith("/home/") && usualHome.exec(path)?.[0] === path;
}

/** The private directory or file that contains the path, or is in it, if there is one. */
function privateTreeOf(path: string, userHomes: string[]): string | undefined {
  const parts = path.split("/");
  const at = parts.findIndex((part) => keyDirectories.includes(part));
  if (at !== -1) return parts.slice(0, at + 1).join("/");
  const usual = usualHome.exec(path)?.[0];
  return [...userHomes, "/root", ...(usual ? [usual] : [])]
    .flatMap((home) => privateDirectories.map((name) => join(home, name)))
    .find((tree) => isWithin(path, tree) || isWithin(tree, path));
}

/** Variables that pass to the parent what is visible only on the host. */
export const placeVariables = {
  userHomes: "HAL9000_HOST_HOMES",
  checkouts: "HAL9000_HOST_CHECKOUTS",
} as const;

export type UserPlaces = Required<Pick<HostPlaces, "userHomes" | "checkouts">>;

/** The protected places of the host; in the parent, read from its variables. */
export function userPlaces(env: NodeJS.ProcessEnv): UserPlaces {
  if (env["HAL9000_ROLE"] === "parent") {
    return {
      userHomes: listIn(env[placeVariables.userHomes]),
      checkouts: listIn(env[placeVariables.checkouts]),
    };
  }
  const homes = [env["HOME"] || homedir(), ...passwdHomes(passwd())];
  return {
    userHomes: [...new Set(homes.map(realPath).filter(isHome))],
    checkouts: checkout === "/" ? [] : [checkout],
  };
}

/** The variables that pass the protected places to the parent. */
export function placeEnv(
  { userHomes, checkouts }: UserPlaces,
): Record<string, string> {
  return {
    [placeVariables.userHomes]: userHomes.join(":"),
    [placeVariables.checkouts]: checkouts.join(":"),
  };
}

function listIn(text: string | undefined): string[] {
  return (text ?? "").split(":").filter(isAbsolute);
}

/** The homes of root and of regular users in a passwd(5) file. */
export function passwdHomes(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    const [, , uid, , , home] = line.split(":");
    const person = uid === "0" || Number(uid) >= 1000 && Number(uid) < 65534;
    return home && person ? [home] : [];
  });
}

function isHome(path: string): boolean {
  return isAbsolute(path) && !systemDirectories.includes(path) &&
    !path.includes(":") && !systemTrees.some((tree) => isWithin(path, tree));
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // missing, or not accessible
  }
}

function passwd(): string {
  try {
    return readFileSync("/etc/passwd", "utf8");
  } catch {
    return "";
  }
}
