// Commands that change the record of a stopped session: claudy rename, claudy move.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { openInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { resolveProject } from "../project/project.ts";
import { moveSession, renameSession } from "../session/move.ts";
import { namedSession } from "./workers.ts";

interface Options {
  allowAnyPath?: boolean;
  json?: boolean;
}

export function renameCommand(io: Io): CAC {
  const cli = command("claudy rename");
  cli.command("<name> <new_name>", "Rename a stopped session")
    .option("--json", "Print the session as JSON")
    .action(async (word: unknown, name: unknown, { json }: Options) => {
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const renamed = await renameSession(
        instance,
        session,
        String(name),
        io.log,
      );
      answer(io, renamed, json);
    });
  return cli;
}

export function moveCommand(io: Io): CAC {
  const cli = command("claudy move");
  cli.command(
    "<name> <directory>",
    "Continue a stopped session in the directory that its project was moved to",
  )
    .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
    .option("--json", "Print the session as JSON")
    .example("claudy move shop ~/code/new-shop")
    .action(async (word: unknown, directory: unknown, options: Options) => {
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const { path } = await resolveProject(instance, {
        path: String(directory),
        cwd: io.cwd(),
        as: "project",
        allowAny: options.allowAnyPath ?? false,
      });
      const moved = await moveSession(instance, session, path, io.log);
      answer(io, moved, options.json);
    });
  return cli;
}

function answer(io: Io, session: SessionRecord, json?: boolean): void {
  const { name, project } = session;
  io.answer({ session: name, project }, `${name}  ${project}`, json);
}
