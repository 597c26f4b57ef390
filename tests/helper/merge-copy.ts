// Fetches from a session on a fake engine, and merges: merge-copy.ts ROOT SESSION. Prints how
// far it has come, since it may be killed at any moment.

import process from "node:process";
import { fetchToMerge, merge } from "../../lib/commands/copies.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import { fakeInstance } from "./fake-engine.ts";
import { runWorkspace } from "./workspace-program.ts";

const [root, name = ""] = process.argv.slice(2);
const { instance, engine, log } = fakeInstance(root);
engine.reply = runWorkspace;
const session = readSession(instance, name);
if (!session) throw new Error(`There is no session ${name}`);
console.log("begin");
const ref = await fetchToMerge({ log }, instance, session, { changes: false });
console.log("fetched");
console.log(`merged ${await merge(session.project, ref, process.env)}`);
process.exit(0);
