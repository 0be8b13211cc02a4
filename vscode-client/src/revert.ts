/** Takes back a patch, once the developer has said so twice. */

import * as vscode from "vscode";

import { tellFailure } from "./failure";
import { words } from "./locale";
import type { Star } from "./star";
import { counted } from "./viewModel";

/** Ask, then revert a patch that stands for so many cases; whether it was done. */
export async function revertPatch(star: Star, patchId: string, cases: number): Promise<boolean> {
  return await confirmed(
    vscode.l10n.t("Revert patch {0}?", patchId),
    vscode.l10n.t(
      "The model is rebuilt from its base without this patch, which stands for {0}. The cases stay, as reverted; they can be repaired again.",
      counted(cases, words()),
    ),
    vscode.l10n.t("Revert"),
    async () => {
      const { revision } = await star.revert({ patchId });
      return vscode.l10n.t("Patch {0} is reverted; the model is at revision {1}.", patchId, revision);
    },
  );
}

/** Ask by a modal, do it, and say what came of it or why it failed; whether it was done. */
export async function confirmed(
  question: string,
  detail: string,
  yes: string,
  act: () => Promise<string>,
): Promise<boolean> {
  if ((await vscode.window.showWarningMessage(question, { modal: true, detail }, yes)) !== yes) return false;
  try {
    const done = await act();
    if (done) void vscode.window.showInformationMessage(done);
    return true;
  } catch (error) {
    void tellFailure(error);
    return false;
  }
}
