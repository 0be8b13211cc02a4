/** What could not be done, said with the way to find out more. */

import * as vscode from "vscode";

/** The sentence in what was thrown. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Say that something failed; the log is one click away. */
export async function tellFailure(error: unknown): Promise<void> {
  const log = vscode.l10n.t("Show log");
  if ((await vscode.window.showErrorMessage(reasonOf(error), log)) === log) {
    await vscode.commands.executeCommand("star-lsp.showLog");
  }
}
