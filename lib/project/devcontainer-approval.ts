// Asks the user before an image is built from a project's devcontainer.json, and again when
// anything that it is built from has changed. See ADR 12.

import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { readRecords } from "../instance/record.ts";
import { isWithin } from "../std/hostpath.ts";
import { Unreviewable } from "../std/plain-below.ts";
import { approveContent, isApprovedContent } from "./config-approval.ts";
import {
  type DevcontainerReview,
  reviewDevcontainer,
} from "./devcontainer-files.ts";

/** Shows it to the user, and returns whether they approve it. */
export type AskDevcontainer = (review: DevcontainerReview) => Promise<boolean>;

const ignoreHint = "Open the project without it: claudy --profile base";

/**
 * The project's devcontainer, approved. Throws an `unsafe` Failure if it cannot be used, or
 * if the user does not approve it; without `ask`, nobody can.
 */
export async function approvedDevcontainer(
  instance: Pick<Instance, "home" | "owner" | "host">,
  { project, file }: { project: string; file: string },
  ask: AskDevcontainer | undefined,
): Promise<DevcontainerReview> {
  const { home, owner, host } = instance;
  refuseNested(instance, project);
  let review: DevcontainerReview;
  try {
    review = await reviewDevcontainer({ project, file }, host);
  } catch (error) {
    if (!(error instanceof Unreviewable)) throw error;
    throw new Failure(
      "unsafe",
      `Cannot use ${project}/${file}: ${error.message}`,
      { cause: error, hint: ignoreHint },
    );
  }
  const approval = home.devcontainerApproval(project);
  const content = { project, digest: review.digest };
  if (isApprovedContent(approval, content)) return review;
  if (!await ask?.(review)) {
    throw new Failure(
      "unsafe",
      `Cannot build an image from ${project}/${file}: it is not approved`,
      {
        hint: "Approve its content at a terminal, or with --trust-project. " +
          ignoreHint,
      },
    );
  }
  approveContent(approval, content, owner);
  return review;
}

/**
 * The image's own shell compares the mounts with what was checked (ADR 14). If that is
 * hostile, nothing would notice that a worker of the outer project has replaced the inner
 * one by a link to another directory.
 */
function refuseNested(
  instance: Pick<Instance, "home" | "owner">,
  project: string,
): void {
  const outer = readRecords(instance).find(({ project: { path } }) =>
    path !== project && isWithin(project, path)
  );
  if (outer === undefined) return;
  throw new Failure(
    "unsafe",
    `Cannot use the devcontainer of ${project}: the worker of ${outer.project.path} ` +
      "can replace the directory",
    { hint: `Stop that worker: claudy stop ${outer.worker}. ${ignoreHint}` },
  );
}
