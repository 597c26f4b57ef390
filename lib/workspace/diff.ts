// Compares what a session has in its copy with the user's branch.

import type * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import type { Log } from "../std/log.ts";
import { copyMount, readBase, sourceIn, sourceMounts } from "./base.ts";
import { inside, perform } from "./container.ts";
import { projectOf, requireSameRepository, withScratch } from "./exchange.ts";
import { diffResultSchema } from "./git/diff.ts";
import { defaultMaxBytes, Limits } from "./git/limits.ts";
import { repositoryOf } from "./repository.ts";
import { requireCopy } from "./workspace.ts";

/** The difference between the user's branch and that of a session, as a patch. */
export async function diffCopy(
  instance: Instance,
  record: SessionRecord,
  { changes, stat, maxBytes = defaultMaxBytes }: {
    changes: boolean;
    stat: boolean;
    maxBytes?: number | undefined;
  },
  log: Log,
): Promise<v.InferOutput<typeof diffResultSchema>> {
  const session = record.name;
  const subject = `Cannot compare session "${session}"`;
  const project = await projectOf(instance, record);
  const repository = repositoryOf(instance, project, true);
  if (repository) requireSameRepository(instance, record, repository);
  const copy = requireCopy(instance, record);
  const { format, head } = readBase(instance, session);
  return await withScratch(
    instance,
    session,
    (scratch) =>
      perform(instance, diffResultSchema, scratch, {
        subject,
        user: project,
        mounts: [
          copyMount(copy, true),
          ...(repository
            ? sourceMounts({ ...repository, tree: undefined })
            : []),
        ],
        work: {
          do: "diff",
          tree: inside.copy,
          format,
          source: repository ? { ...sourceIn(repository), tree: null } : null,
          base: head,
          changes,
          stat,
          scratch: inside.own,
          maxBytes,
        },
        log,
        limits: new Limits(maxBytes),
      }),
  );
}
