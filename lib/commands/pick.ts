// claudy pick: merges one of the sessions that were forked from the same one, and removes the
// others.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { removeSession } from "../session/session.ts";
import { Failure, onEach } from "../std/errors.ts";
import {
  aloneText,
  refuseLoss,
  unfetchedIn,
  unfetchedText,
} from "../workspace/unfetched.ts";
import { fetchToMerge, maxBytesIn, merge, sizeOption } from "./copies.ts";
import { namedSession } from "./workers.ts";

interface Options {
  withChanges?: boolean;
  maxSize?: unknown;
  yes?: boolean;
  force?: boolean;
}

export function pickCommand(io: Io): CAC {
  const cli = command("claudy pick");
  cli.command(
    "<name>",
    "Merge a fork, then ask whether to remove the others of the same session",
  )
    .option("--with-changes", "Also what the session has not committed")
    .option(...sizeOption)
    .option("--yes", "Remove the others without asking, if nothing is lost")
    .option("--force", "Remove the others, and what only they have")
    .example("claudy pick shop-f2")
    .action(async (word: unknown, options: Options) => {
      maxBytesIn(options);
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      return await pick(io, instance, session, options);
    });
  return cli;
}

/** Returns the exit code of git merge; nothing is removed unless that is 0. */
export async function pick(
  io: Pick<Io, "env" | "log" | "isInteractive" | "isConfirmed">,
  instance: Instance,
  session: SessionRecord,
  options: Options,
): Promise<number> {
  const { withChanges = false, yes = false, force = false } = options;
  const ref = await fetchToMerge(io, instance, session, {
    changes: withChanges,
    maxBytes: maxBytesIn(options),
  });
  const others = readSessions(instance).filter((other) =>
    session.forkedFrom !== undefined && other.name !== session.name &&
    other.forkedFrom === session.forkedFrom &&
    // A session of another project may have had the same name.
    other.project === session.project
  );
  const names = others.map(({ name }) => name).sort().join(", ");
  const isAsked = !yes && !force && io.isInteractive;
  const losses = isAsked || yes && !force
    ? await lossesOf(io, instance, others, session)
    : new Map<string, string>();
  const lines = [...losses].map(([name, lost]) => aloneText(name, lost));
  if (yes && lines.length > 0) {
    throw new Failure("unsafe", lines.join("; "), {
      hint:
        "Nothing was merged. Fetch them: claudy fetch --with-changes NAME. " +
        `Or remove them: claudy pick --force ${session.name}`,
    });
  }
  const code = await merge(session.project, ref, io.env);
  if (code !== 0 || others.length === 0) return code;
  if (!yes && !force && !isAsked) {
    io.log(`Kept: ${names}. To remove them: claudy sessions rm NAME`);
    return code;
  }
  lines.forEach((line) => io.log(line));
  const what = lines.length === 0 ? "" : ", with all of this";
  const question = `Remove the others${what}: ${names}?`;
  if (isAsked && !await io.isConfirmed(question)) return code;
  await onEach(
    others,
    ({ name }) =>
      removeSession(instance, name, io.log, async () => {
        if (force) return;
        const other = { name, fetched: session.name };
        await refuseLoss(instance, other, io.log, losses.get(name));
      }),
    (removed) => {
      if (removed.length > 0) io.log(`Removed ${removed.join(", ")}`);
    },
  );
  return code;
}

/** What each session alone has, by its name. */
async function lossesOf(
  io: Pick<Io, "log">,
  instance: Instance,
  others: SessionRecord[],
  picked: SessionRecord,
): Promise<Map<string, string>> {
  const losses = new Map<string, string>();
  for (const { name } of others) {
    // They may have commits of the session that all were forked from.
    const text = unfetchedText(
      await unfetchedIn(instance, { name, fetched: picked.name }, io.log),
    );
    if (text !== "") losses.set(name, text);
  }
  return losses;
}
