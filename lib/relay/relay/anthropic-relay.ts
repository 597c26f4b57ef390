// anthropic-relay: runs the relay in the parent. It opens its socket as root, then becomes a user
// of its own that cannot reach HAL9000_HOME. What it has to know comes as lines of JSON
// on stdin, what it reports leaves as such lines on stdout.

import process from "node:process";
import { command, execute, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";
import { homeOf } from "../../instance/config.ts";
import { homePaths } from "../../instance/paths.ts";
import { serviceUsers } from "../../instance/service-users.ts";
import { becomeService, listenForWorkers } from "../../std/become.ts";
import { parseJson } from "../../std/json.ts";
import { linesOf } from "../../std/lines.ts";
import { ownerOf } from "../../std/owned.ts";
import { createMeter } from "../../usage/meter.ts";
import { type Report, stateSchema } from "../state.ts";
import { defaultBounds } from "./bounds.ts";
import { Relay } from "./relay.ts";

/** More than the sessions of any instance, each with its certificates. */
const maxStateBytes = 64 * 1024 ** 2;

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("anthropic-relay");

  cli.command("", "Run the relay until stdin ends")
    .action(async () => {
      const report = (report: Report) =>
        process.stdout.write(`${JSON.stringify(report)}\n`);
      const relay = new Relay({
        bounds: defaultBounds,
        report,
        meter: createMeter((event) => report({ kind: "usage", event })),
      });
      await listen(relay, homeOf(io.env));
      process.on("SIGTERM", () => process.exit());
      for await (const line of linesOf(process.stdin, maxStateBytes)) {
        const state = parseJson(stateSchema, line);
        if (state) relay.setState(state);
        else io.log("The state is not valid");
      }
      // Without the parent, the credentials could no longer change.
      process.exit();
    });

  return await runCli(cli, argv, io);
}

async function listen(relay: Relay, home: string): Promise<void> {
  const { gid } = ownerOf(home);
  await listenForWorkers(relay.server(), homePaths(home).relayService, gid);
  process.chdir("/");
  becomeService({ uid: serviceUsers.relay, oomScore: 900 });
}

if (import.meta.main) await execute(main);
