// egress-proxy: runs the egress proxy in the parent. It opens its socket as root, then
// becomes a user of its own that cannot reach HAL9000_HOME. The policy comes as lines of
// JSON on stdin, decisions leave as such lines on stdout.

import process from "node:process";
import * as v from "valibot";
import { homeOf } from "../../instance/config.ts";
import { homePaths } from "../../instance/paths.ts";
import { serviceUsers } from "../../instance/service-users.ts";
import { becomeService, listenForWorkers } from "../../std/become.ts";
import { linesOf } from "../../std/lines.ts";
import { ownerOf } from "../../std/owned.ts";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";
import { policySchema } from "../policy.ts";
import { defaultBounds } from "./bounds.ts";
import { EgressProxy } from "./proxy.ts";
import { realWorld } from "./world.ts";

/** More than the rules and workers of any instance. */
const maxPolicyBytes = 32 * 1024 ** 2;

const policyText = v.pipe(v.string(), v.parseJson(), policySchema);

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("egress-proxy");

  cli.command("", "Run the egress proxy until stdin ends")
    .action(async () => {
      const proxy = new EgressProxy({
        world: realWorld,
        bounds: defaultBounds,
        record: (entry) => process.stdout.write(`${JSON.stringify(entry)}\n`),
      });
      await listen(proxy, homeOf(io.env));
      process.on("SIGTERM", () => process.exit());
      for await (const line of linesOf(process.stdin, maxPolicyBytes)) {
        const policy = v.safeParse(policyText, line);
        if (!policy.success) {
          // Not the message, which may contain a secret.
          const at = v.getDotPath(policy.issues[0]);
          io.log(`The policy is not valid${at === null ? "" : ` at ${at}`}`);
        }
        proxy.setPolicy(policy.success ? policy.output : undefined);
      }
      // Without the parent, the policy could no longer change.
      process.exit();
    });

  return await runCli(cli, argv, io);
}

async function listen(proxy: EgressProxy, home: string): Promise<void> {
  const { gid } = ownerOf(home);
  await listenForWorkers(proxy.server, homePaths(home).egressSocket, gid);
  process.chdir("/");
  becomeService({ uid: serviceUsers.egress, oomScore: 900 });
}

if (import.meta.main) await execute(main);
