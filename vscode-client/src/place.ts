/** Opens the place of a case in the editor; where there is none any more, shows the case itself. */

import * as vscode from "vscode";

import { caseText } from "./caseText";
import { words } from "./locale";
import { nearest } from "./nearest";
import type { CaseInfo } from "./protocol";
import type { Star } from "./star";
import { fileName } from "./words";

const SCHEME = "star-lsp-case";

/** Have cases shown that have no place; once, when the extension comes up. */
export function registerCaseTexts(star: Star): vscode.Disposable {
  return vscode.workspace.registerTextDocumentContentProvider(SCHEME, {
    provideTextDocumentContent: (uri) => textOf(star, uri),
  });
}

/** Show the place of a case, or say why it cannot be shown and show the case. */
export async function openPlace(one: CaseInfo): Promise<void> {
  const why = one.uri === null ? vscode.l10n.t("This case has no file.") : await reveal(one, one.uri);
  if (why === null) return;
  const uri = vscode.Uri.from({ scheme: SCHEME, path: `/case ${one.id}.md`, query: why });
  const document = await vscode.workspace.openTextDocument(uri);
  await vscode.window.showTextDocument(document, { preview: true });
  vscode.window.setStatusBarMessage(why, 8000);
}

/** Show a place; what is returned says why that cannot be done. */
async function reveal(one: CaseInfo, where: string): Promise<string | null> {
  const uri = vscode.Uri.parse(where);
  if (uri.scheme === "vscode-notebook-cell") return await revealCell(uri);
  const open = vscode.workspace.textDocuments.find((each) => each.uri.toString() === uri.toString());
  if (!open && uri.scheme === "untitled") {
    return vscode.l10n.t(
      "{0} was never saved and is closed, so its place is gone; the case is shown instead.",
      fileName(where),
    );
  }
  try {
    await show(open ?? (await vscode.workspace.openTextDocument(uri)), one);
    return null;
  } catch {
    return vscode.l10n.t(
      "{0} was deleted, moved, or cannot be opened; the case is shown instead.",
      fileName(where),
    );
  }
}

async function show(document: vscode.TextDocument, one: CaseInfo): Promise<void> {
  await vscode.window.showTextDocument(document, { selection: selection(document, one) });
}

function selection(document: vscode.TextDocument, one: CaseInfo): vscode.Range {
  const { line, character } = one.position ?? { line: 0, character: 0 };
  const flagged = document.validatePosition(new vscode.Position(line, character));
  const found = nearest(document.getText(), document.offsetAt(flagged), [one.expected, one.rejected]);
  if (!found) return new vscode.Range(flagged, flagged);
  return new vscode.Range(document.positionAt(found[0]), document.positionAt(found[1]));
}

async function revealCell(uri: vscode.Uri): Promise<string | null> {
  try {
    const notebook =
      vscode.workspace.notebookDocuments.find((each) => each.uri.path === uri.path) ??
      (await vscode.workspace.openNotebookDocument(uri.with({ scheme: "file", fragment: "" })));
    const cell = notebook.getCells().find((each) => each.document.uri.toString() === uri.toString());
    const range = cell && new vscode.NotebookRange(cell.index, cell.index + 1);
    const editor = await vscode.window.showNotebookDocument(notebook, range ? { selections: [range] } : {});
    if (!range || !cell) {
      return vscode.l10n.t("The cell is no longer in {0}; the case is shown instead.", fileName(uri.path));
    }
    editor.revealRange(range, vscode.NotebookEditorRevealType.InCenterIfOutsideViewport);
    return null;
  } catch {
    return vscode.l10n.t(
      "{0} was deleted, moved, or cannot be opened; the case is shown instead.",
      fileName(uri.path),
    );
  }
}

async function textOf(star: Star, uri: vscode.Uri): Promise<string> {
  const id = /\/case (.+)\.md$/.exec(uri.path)?.[1];
  const one = (await star.cases()).find((each) => each.id === id);
  if (!one) return vscode.l10n.t("This case has been deleted.");
  const report =
    one.patchId === null ? null : await star.showPatch({ patchId: one.patchId }).catch(() => null);
  const around = report?.cases.find((each) => each.case.id === id);
  return caseText(around ?? { case: one }, uri.query, words());
}
