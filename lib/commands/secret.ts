// claudy secret: named secrets of sessions.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { policyOf } from "../egress/check.ts";
import { checkHostUse, type HostUse } from "../egress/host-secrets.ts";
import { judgeHost } from "../egress/policy.ts";
import {
  checkSecret,
  listSecrets,
  removeSecret,
  setHostSecret,
  setSecret,
} from "../home/named-secrets.ts";
import type { Instance } from "../instance/instance.ts";
import { Failure, onEach } from "../std/errors.ts";
import { columns } from "../std/text.ts";
import { openWithHome } from "./login.ts";

interface SetOptions {
  env?: boolean;
  host?: unknown;
  header?: unknown;
  format?: unknown;
  user?: unknown;
}

export function secretCommand(io: Io): CAC {
  const cli = command("claudy secret");

  cli.command("set <name>", "Save a secret (prompt or stdin)")
    .option("--env", "Also set it as an environment variable of Claude")
    .option(
      "--host <host>",
      "Give isolated sessions a placeholder, and set the secret in their requests to this host",
    )
    .option(
      "--header <name>",
      "With --host: the header (default: Authorization)",
    )
    .option(
      "--format <text>",
      "With --host: the header's value, with %s for the secret (default: 'Bearer %s')",
    )
    .option(
      "--user <name>",
      "With --host: send it as this user's password, by HTTP Basic authentication",
    )
    .example("claudy secret set GITHUB_TOKEN --env <token.txt")
    .example(
      "claudy secret set GITHUB_TOKEN --env --host api.github.com <token.txt",
    )
    .action(async (given: unknown, options: SetOptions) => {
      const name = String(given);
      const variable = options.env ?? false;
      checkSecret({ name, variable });
      const sent = sentBy(options);
      const instance = await openWithHome(io);
      const value = await io.askHidden(`Value of ${name}`);
      if (value === "") {
        throw new Failure("usage", `Cannot save ${name}: the value is empty`, {
          hint: `Type it at the prompt, or pipe it in: ` +
            `claudy secret set ${name} <FILE`,
        });
      }
      if (sent === undefined) {
        setSecret(instance, { name, variable }, value);
      } else {
        const saved = { name, variable, sent };
        await setHostSecret(instance, saved, value);
        warnOfRules(io, instance, sent.host);
      }
      io.log(`${name} is saved. Sessions use it from their next start.`);
    });

  cli.command("list", "List the names of the secrets")
    .option("--json", "Print them as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const secrets = listSecrets(await openWithHome(io));
      const rows = secrets.map(({ name, variable, sent }) => [
        name,
        variable ? `file and variable` : "file",
        sent ? `${sent.host} (${sent.header})` : "",
      ]);
      const text = columns([["NAME", "AS", "HOST"], ...rows]);
      const answer = secrets.map(({ name, variable, sent }) => ({
        name,
        variable,
        ...sent,
      }));
      io.answer(answer, text, json);
    });

  cli.command("rm <...names>", "Remove secrets, after asking")
    .option("--yes", "Do not ask")
    .action(async (given: string[], { yes }: { yes?: boolean }) => {
      const names = [...new Set(given)];
      const instance = await openWithHome(io);
      const what = names.length === 1 ? "secret" : "secrets";
      await io.confirm(`Remove ${what} ${names.join(", ")}?`, yes);
      const remove = ({ name }: { name: string }) => {
        if (removeSecret(instance, name)) return Promise.resolve();
        throw new Failure("notFound", `There is no secret ${name}`, {
          hint: "List them: claudy secret list",
        });
      };
      await onEach(
        names.map((name) => ({ name })),
        async (secret) => await remove(secret),
        (removed) => io.answer(null, removed.join("\n")),
      );
    });

  return cli;
}

/** Undefined without --host. Throws a `usage` Failure if options do not go together. */
function sentBy(options: SetOptions): HostUse | undefined {
  const { host, header, format, user } = options;
  if (host === undefined) {
    const other = (["header", "format", "user"] as const)
      .find((name) => options[name] !== undefined);
    if (other === undefined) return undefined;
    throw new Failure("usage", `--${other} only applies with --host`);
  }
  return checkHostUse({
    host: String(host),
    header: String(header ?? "Authorization"),
    format: String(format ?? (user === undefined ? "Bearer %s" : "Basic %s")),
    user: user === undefined ? null : String(user),
  });
}

/** A secret does not allow its host. */
function warnOfRules(io: Io, instance: Instance, host: string): void {
  const asking = { session: null, project: null };
  const policy = policyOf(instance, {});
  const verdict = judgeHost(policy, asking, { host, port: 443 });
  if (!verdict.allowed) io.log(`warning: ${verdict.sentence}`);
}
