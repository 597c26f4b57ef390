// claudy send: types a prompt into a running session.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { openInstance } from "../instance/open.ts";
import { sendText } from "../session/send.ts";
import { Failure } from "../std/errors.ts";
import { namedSession } from "./workers.ts";

export function sendCommand(io: Io): CAC {
  const cli = command("claudy send");
  cli.command("<name> [...text]", "Send a prompt to a running session")
    .example('claudy send shop "run the tests again"')
    .action(async (word: unknown, words: string[]) => {
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const text = words.length > 0 ? words.join(" ") : await io.readInput();
      if (text.trim() === "") {
        throw new Failure("usage", "There is no text to send", {
          hint: "Pass it as an argument or on stdin.",
        });
      }
      await sendText(instance, session.name, text);
      io.log(`Sent to ${session.name}`);
    });
  return cli;
}
