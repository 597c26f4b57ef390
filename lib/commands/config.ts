// claudy config: shows and checks the settings.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import {
  confPath,
  explainSettings,
  settingFaults,
} from "../instance/config.ts";
import { columns } from "../std/text.ts";

interface Options {
  json?: boolean;
}

export function configCommand(io: Io): CAC {
  const cli = command("claudy config");
  const jsonOption = ["--json", "Print it as JSON"] as const;

  cli.command("show", "Show each setting and where it comes from")
    .option(...jsonOption)
    .action(({ json }: Options) => {
      const settings = explainSettings(io.env, { warn: io.log });
      const rows = settings.map(({ key, text, place }) => [key, text, place]);
      const text = columns([["SETTING", "VALUE", "FROM"], ...rows]);
      io.answer(settings, text, json);
    });

  cli.command("path", "Print where the settings file is")
    .option(...jsonOption)
    .action(({ json }: Options) => {
      const path = confPath(io.env);
      io.answer({ path }, path, json);
    });

  cli.command(
    "check",
    "Check the settings; exit code 2 if something is wrong",
  )
    .option(...jsonOption)
    .action(({ json }: Options) => {
      const faults = settingFaults(io.env);
      io.answer(faults, faults.join("\n") || "No errors", json);
      return faults.length === 0 ? 0 : 2;
    });

  return cli;
}
