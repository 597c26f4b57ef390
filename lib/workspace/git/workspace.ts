// workspace: makes and reads the copies that sessions work in. Runs in a helper container
// without a network, as the owner of the project; see ADR 42. Prints its progress on stderr
// and its result on stdout.

import { statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { command, runCli } from "../../cli/cli.ts";
import { Io } from "../../cli/io.ts";
import { Failure, messageOf } from "../../std/errors.ts";
import { changed, changedRequestSchema } from "./changed.ts";
import { clone, cloneRequestSchema } from "./clone.ts";
import { diff, diffRequestSchema } from "./diff.ts";
import { fork, forkRequestSchema } from "./fork.ts";
import { type Host, hostOf, hostWithoutFreeze } from "./host.ts";
import { offer, offerRequestSchema, pack, packRequestSchema } from "./pack.ts";
import { receive, receiveRequestSchema } from "./receive.ts";

export const requestSchema = v.object({
  work: v.variant("do", [
    cloneRequestSchema,
    packRequestSchema,
    offerRequestSchema,
    receiveRequestSchema,
    diffRequestSchema,
    changedRequestSchema,
    forkRequestSchema,
  ]),
  /** Mounted directories with the inodes that they must have; the first is our own. */
  checks: v.array(v.object({ path: v.string(), inode: v.string() })),
});

export type Request = v.InferOutput<typeof requestSchema>;

/** The result, or why there is none. */
export type Answer =
  | { result: unknown }
  | { failure: { kind: string; message: string; hint: string | null } };

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("workspace");
  cli.command("", "Make or read the copy that a session works in")
    .action(async () => {
      const nextLine = linesOfInput();
      const host = hostOf(
        (message) => void io.stderr.write(`${JSON.stringify(message)}\n`),
        nextLine,
      );
      const request = v.parse(requestSchema, JSON.parse(await nextLine()));
      io.answer(await perform(request, host), "", true);
    });
  return await runCli(cli, argv, io);
}

/**
 * The request, which may be too long for an argument, and answers. Stdin ends with the
 * command that started this program, and this program with it.
 */
function linesOfInput(): () => Promise<string> {
  const lines = createInterface({ input: process.stdin });
  lines.on("close", () => process.exit(1));
  const iterator = lines[Symbol.asyncIterator]();
  return async () => (await iterator.next()).value ?? "";
}

/** Never throws: what fails is an answer too. */
export async function perform(
  { work, checks }: Request,
  host: Host,
): Promise<Answer> {
  try {
    requireInodes(checks);
    switch (work.do) {
      case "clone":
        return { result: await clone(work, liveHost(work, host)) };
      case "pack":
        return { result: await pack(work) };
      case "offer":
        return { result: await offer(work) };
      case "receive":
        return { result: await receive(work) };
      case "fork":
        return { result: await fork(work, liveHost(work, host)) };
      case "changed":
        return { result: await changed(work) };
      case "diff":
        return { result: await diff(work) };
    }
  } catch (error) {
    const { kind = "failed", hint = null } = error instanceof Failure
      ? error
      : {};
    const message = messageOf(error);
    // git does not always say why it cannot write.
    return kind === "failed" && isFull(work)
      ? {
        failure: {
          kind: "resources",
          message: `the disk is full (${message})`,
          hint: "Make room, for example with claudy prune, then try again.",
        },
      }
      : { failure: { kind, message, hint: hint ?? null } };
  }
}

const liveHost = ({ live }: { live: boolean }, host: Host) =>
  live ? host : hostWithoutFreeze(host.log);

/** Whether the file system has no room that the program writes to. */
function isFull(work: Request["work"]): boolean {
  const place = work.do === "receive"
    ? work.common
    : "scratch" in work
    ? work.scratch
    : dirname(work.target);
  try {
    const { bavail, bsize } = statfsSync(place);
    return bavail * bsize < minFreeBytes;
  } catch {
    return false;
  }
}

const minFreeBytes = 256 * 1024;

/**
 * Throws if a directory is another one than was judged: a worker may have replaced it by a
 * link since. On another kernel the inode of our own directory differs too.
 */
function requireInodes([own, ...others]: Request["checks"]): void {
  const inodeOf = (path: string) => {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  };
  if (own === undefined || inodeOf(own.path) !== own.inode) return;
  for (const { path, inode } of others) {
    if (inodeOf(path) === inode) continue;
    throw new Failure(
      "unsafe",
      "A directory was replaced while it was mounted",
    );
  }
}

if (import.meta.main) {
  // The image's is root's, and no program can be started from a directory that is closed.
  process.chdir("/");
  process.exit(await main(process.argv.slice(2)));
}
