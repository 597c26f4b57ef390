// Brings the user's commits into the copy of a session.

import { statSync } from "node:fs";
import type * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import type { Log } from "../std/log.ts";
import { copyMount, readBase, sourceIn, sourceMounts } from "./base.ts";
import { inside, perform } from "./container.ts";
import {
  remember,
  userRepository,
  withKnown,
  withScratch,
} from "./exchange.ts";
import { hostRemote } from "./git/clone-config.ts";
import { defaultMaxBytes, Limits } from "./git/limits.ts";
import { offerResultSchema } from "./git/pack.ts";
import { receiveResultSchema } from "./git/receive.ts";
import { requireCopy } from "./workspace.ts";

/** Brings the user's new commits into the copy of a session. */
export async function pullIntoCopy(
  instance: Instance,
  record: SessionRecord,
  log: Log,
): Promise<v.InferOutput<typeof receiveResultSchema>["updated"]> {
  const session = record.name;
  const subject = `Cannot pull into session "${session}"`;
  const { project, repository } = await userRepository(
    instance,
    record,
    subject,
  );
  const copy = requireCopy(instance, record);
  const base = readBase(instance, session);
  const attempt = async (known: string[]) =>
    await withScratch(instance, session, async (scratch) => {
      const { branches } = await perform(instance, offerResultSchema, scratch, {
        subject,
        user: project,
        mounts: sourceMounts({ ...repository, tree: undefined }),
        work: {
          do: "offer",
          source: { ...sourceIn(repository), tree: null },
          known,
          scratch: inside.own,
        },
        log,
      });
      const { updated } = await perform(
        instance,
        receiveResultSchema,
        scratch,
        {
          subject,
          user: copy,
          mounts: [copyMount(copy, false)],
          work: {
            do: "receive",
            common: `${inside.copy}/.git`,
            pack: `${inside.own}/pack`,
            format: base.format,
            branches,
            prefix: `refs/remotes/${hostRemote}/`,
            // Their commits are in the user's repository.
            isCopy: true,
          },
          log,
          // The copy may be hostile.
          limits: new Limits(
            defaultMaxBytes + statSync(`${scratch.path}/pack`).size,
          ),
        },
        { ownReadOnly: true },
      );
      return { branches, updated };
    });
  const { branches, updated } = await withKnown(base, attempt);
  remember(instance, session, Object.values(branches));
  return updated;
}
