#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// healthcheck: whether the engine answers the parent, and ChromaDB the workers; what
// Docker and claudy doctor run in the parent.

import process from "node:process";
import { chromadbFault } from "../lib/chromadb.ts";
import { readSettings } from "../lib/config.ts";
import { homeOf } from "../lib/config.ts";
import { connect } from "../lib/docker.ts";
import { Failure } from "../lib/errors.ts";
import { homePaths } from "../lib/paths.ts";
import { command, runCli } from "./cli.ts";

const cli = command("healthcheck");

cli.command("", "Fail where the engine or ChromaDB does not answer")
  .action(async () => {
    const { env } = process;
    const settings = readSettings(env, { warn: () => {} });
    const home = homePaths(homeOf(env));
    await (await connect(env)).ping();
    const fault = await chromadbFault({ home, settings });
    if (fault === undefined) return;
    throw new Failure("failed", `ChromaDB does not answer workers: ${fault}`);
  });

await runCli(cli);
