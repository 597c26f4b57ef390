// Asks the user before an image is built from a project's devcontainer.json, and again when
// anything that it is built from has changed. See ADR 12.

import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { Unreviewable } from "../std/plain-below.ts";
import { approveContent, isApprovedContent } from "./config-approval.ts";
import {
  type DevcontainerReview,
  reviewDevcontainer,
} from "./devcontainer-files.ts";

/** Shows it to the user, and returns whether they approve it. */
export type AskDevcontainer = (review: DevcontainerReview) => Promise<boolean>;

const ignoreHint = "Open the project without it: --profile base";

/**
 * The project's devcontainer, approved. Throws an `unsafe` Failure if it cannot be used, or
 * if the user does not approve it; without `ask`, nobody can.
 */
export async function approvedDevcontainer(
  { home, owner, host }: Pick<Instance, "home" | "owner" | "host">,
  { project, file }: { project: string; file: string },
  ask: AskDevcontainer | undefined,
): Promise<DevcontainerReview> {
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
        hint:
          `Approve its content at a terminal, or with --trust-project. ${ignoreHint}`,
      },
    );
  }
  approveContent(approval, content, owner);
  return review;
}
