/** Fixes that are written in the document itself, or in an editor of their own, until submitted or cancelled. */

import * as vscode from "vscode";

import type { Log } from "./log";
import { after, narrowed, type Region } from "./region";
import type { Completion } from "./shown";

/** One fix that is being written. */
export interface Correction {
  readonly completion: Completion;
  readonly document: vscode.TextDocument;
  readonly scratch: boolean;
  /** What stood there before; put back by a cancel. */
  readonly before: string;
  region: Region;
  /** The document as it was before the next change: tells what a change replaced. */
  text: string;
  busy: boolean;
}

export class Corrections implements vscode.Disposable {
  private readonly open = new Map<string, Correction>();
  private readonly changes = new vscode.EventEmitter<void>();
  private readonly disposables: vscode.Disposable[];
  private readonly written = vscode.window.createTextEditorDecorationType({
    backgroundColor: new vscode.ThemeColor("diffEditor.insertedTextBackground"),
    borderColor: new vscode.ThemeColor("focusBorder"),
    border: "1px dotted",
    rangeBehavior: vscode.DecorationRangeBehavior.OpenOpen,
    overviewRulerColor: new vscode.ThemeColor("editorOverviewRuler.modifiedForeground"),
    overviewRulerLane: vscode.OverviewRulerLane.Left,
  });
  private readonly struck = vscode.window.createTextEditorDecorationType({
    after: { color: new vscode.ThemeColor("editorGhostText.foreground"), margin: "0 0 0 2em" },
  });
  private hint: vscode.Disposable | undefined;

  readonly onDidChange = this.changes.event;

  constructor(private readonly log: Log) {
    this.disposables = [
      this.changes,
      this.written,
      this.struck,
      vscode.workspace.onDidChangeTextDocument((event) => this.edited(event)),
      vscode.workspace.onDidCloseTextDocument((document) => this.closed(document)),
      vscode.window.onDidChangeVisibleTextEditors(() => this.draw()),
      vscode.window.onDidChangeActiveTextEditor(() => this.draw()),
    ];
  }

  dispose(): void {
    this.hint?.dispose();
    vscode.Disposable.from(...this.disposables).dispose();
  }

  all(): readonly Correction[] {
    return [...this.open.values()];
  }

  of(document: vscode.TextDocument): Correction[] {
    return this.all().filter((each) => each.document === document);
  }

  /** The one that a command is for: named, or around the cursor, or the only one of the document, or of all. */
  meant(id?: string): Correction | undefined {
    const editor = vscode.window.activeTextEditor;
    const mine = editor ? this.of(editor.document) : [];
    const offset = editor ? editor.document.offsetAt(editor.selection.active) : 0;
    return (
      (id === undefined ? undefined : this.open.get(id)) ??
      mine.find(({ region }) => region.start <= offset && offset <= region.end) ??
      mine[0] ??
      (this.open.size === 1 ? this.all()[0] : undefined)
    );
  }

  /** What is written there now, as the server has it. */
  fix({ document, region }: Correction): string {
    return document.getText(rangeOf(document, region)).replaceAll("\r\n", "\n");
  }

  /** Begin to write the fix of a completion where it stands, or where it was shown. */
  async inPlace(completion: Completion, editor: vscode.TextEditor): Promise<void> {
    const same = this.open.get(completion.id);
    if (same) {
      await this.reveal(same);
      return;
    }
    await vscode.commands.executeCommand("editor.action.inlineSuggest.hide");
    const { document } = editor;
    const text = completion.text.replaceAll("\n", eolOf(document));
    let region = completion.region;
    if (!completion.accepted) {
      const typed = typedOf(completion, editor);
      region = { start: region.start, end: region.start + typed.length };
    }
    const before = document.getText(rangeOf(document, region));
    if (!completion.accepted) {
      const done = await editor.edit((edit) => edit.replace(rangeOf(document, region), text));
      if (!done) {
        this.log.fail(
          vscode.l10n.t("The document cannot be changed here. Run “STAR: Mark completion as wrong” instead."),
        );
        return;
      }
      region = { start: region.start, end: region.start + text.length };
    }
    const correction = {
      completion,
      document,
      scratch: false,
      before,
      region,
      text: document.getText(),
      busy: false,
    };
    this.begin(correction);
    await this.reveal(correction);
  }

  /** Begin to write a fix in an editor of its own, which starts with the wrong text. */
  async inScratch(completion: Completion): Promise<void> {
    const same = this.open.get(completion.id);
    if (same) {
      await this.reveal(same);
      return;
    }
    const document = await vscode.workspace.openTextDocument({
      language: completion.around.language,
      content: completion.text,
    });
    const text = document.getText();
    const region = { start: 0, end: text.length };
    const correction = { completion, document, scratch: true, before: "", region, text, busy: false };
    this.begin(correction);
    await this.reveal(correction);
  }

  /** The fix is on its way; the text stays as it is. */
  async done(correction: Correction): Promise<void> {
    this.end(correction);
    if (correction.scratch) {
      await discard(correction.document);
    }
  }

  /** Put back what stood there. */
  async cancel(correction: Correction): Promise<void> {
    this.end(correction);
    const { document, region, before, scratch } = correction;
    if (scratch) {
      await discard(document);
      return;
    }
    if (document.getText(rangeOf(document, region)) !== before) {
      const edit = new vscode.WorkspaceEdit();
      edit.replace(document.uri, rangeOf(document, region), before);
      await vscode.workspace.applyEdit(edit);
    }
  }

  /** Draw everything anew, where it is now. */
  private draw(): void {
    const active = vscode.window.activeTextEditor;
    const here = active ? this.of(active.document) : [];
    if (here.length > 0 !== (this.hint !== undefined)) {
      void vscode.commands.executeCommand("setContext", "star-lsp.correcting", here.length > 0);
      this.hint?.dispose();
      this.hint = here.length
        ? vscode.window.setStatusBarMessage(
            vscode.l10n.t("$(edit) Write what is right: {0} submits, Escape cancels", submitKey()),
          )
        : undefined;
    }
    for (const editor of vscode.window.visibleTextEditors) {
      const mine = this.of(editor.document);
      const ranges = mine.map(({ region }) => rangeOf(editor.document, region));
      editor.setDecorations(this.written, ranges);
      editor.setDecorations(
        this.struck,
        mine.map(({ completion, region }) => this.beside(editor.document, completion, region)),
      );
    }
  }

  private beside(
    document: vscode.TextDocument,
    completion: Completion,
    region: Region,
  ): vscode.DecorationOptions {
    const line = document.lineAt(document.positionAt(region.start).line);
    const hover = new vscode.MarkdownString(`${vscode.l10n.t("Flagged as wrong:")}\n`);
    hover.appendCodeblock(completion.text, completion.around.language);
    return {
      range: new vscode.Range(line.range.end, line.range.end),
      hoverMessage: hover,
      renderOptions: {
        after: {
          contentText: shortened(completion.text),
          textDecoration: "line-through",
          fontStyle: "italic",
        },
      },
    };
  }

  private begin(correction: Correction): void {
    this.open.set(correction.completion.id, correction);
    this.draw();
    this.changes.fire();
  }

  private end(correction: Correction): void {
    this.open.delete(correction.completion.id);
    this.draw();
    this.changes.fire();
  }

  private async reveal({ document, region, completion, text }: Correction): Promise<void> {
    const column = vscode.window.visibleTextEditors.find((each) => each.document === document)?.viewColumn;
    const cell = document.uri.scheme === "vscode-notebook-cell";
    const editor = cell
      ? vscode.window.activeTextEditor // a cell has no editor that could be shown by itself
      : await vscode.window.showTextDocument(document, column === undefined ? {} : { viewColumn: column });
    if (editor?.document !== document) {
      return;
    }
    const range = rangeOf(document, region);
    // All of it is selected as long as it is the wrong text: typing replaces it, an arrow key keeps it.
    const untouched = text.slice(region.start, region.end).replaceAll("\r\n", "\n") === completion.text;
    editor.selection = untouched
      ? new vscode.Selection(range.start, range.end)
      : new vscode.Selection(range.end, range.end);
    editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
  }

  private edited({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    const mine = this.of(document);
    if (!mine.length || !contentChanges.length) {
      return;
    }
    for (const correction of mine) {
      const edits = contentChanges.map(({ rangeOffset, rangeLength, text }) =>
        narrowed(
          { offset: rangeOffset, length: rangeLength, text },
          correction.text.slice(rangeOffset, rangeOffset + rangeLength),
        ),
      );
      const region = correction.scratch
        ? { start: 0, end: document.getText().length }
        : after(correction.region, edits);
      correction.text = document.getText();
      if (region) {
        correction.region = region;
      } else {
        this.open.delete(correction.completion.id);
        this.changes.fire();
        this.log.warn(
          vscode.l10n.t(
            "The place of the correction was overwritten as a whole, so the correction was closed. Nothing was flagged: run “STAR: Flag last completion” if the right code stands there now.",
          ),
        );
      }
    }
    this.draw();
  }

  private closed(document: vscode.TextDocument): void {
    for (const correction of this.of(document)) {
      this.end(correction);
    }
  }
}

/** What has been typed of a ghost text up to the cursor. */
export function typedOf(completion: Completion, editor: vscode.TextEditor): string {
  const { document, selection } = editor;
  const start = document.positionAt(completion.region.start);
  if (selection.active.isBefore(start)) {
    return "";
  }
  const typed = document.getText(new vscode.Range(start, selection.active));
  return completion.text.startsWith(typed.replaceAll("\r\n", "\n")) ? typed : "";
}

export function rangeOf(document: vscode.TextDocument, { start, end }: Region): vscode.Range {
  return new vscode.Range(document.positionAt(start), document.positionAt(end));
}

export function eolOf(document: vscode.TextDocument): string {
  return document.eol === vscode.EndOfLine.CRLF ? "\r\n" : "\n";
}

function submitKey(): string {
  return process.platform === "darwin" ? "Cmd+Enter" : "Ctrl+Enter";
}

function shortened(text: string): string {
  const lines = text.split("\n").filter((line) => line.trim());
  const first = (lines[0] ?? "").trim();
  const clipped = first.length > 80 ? `${first.slice(0, 79)}…` : first;
  return lines.length > 1 && !clipped.endsWith("…") ? `${clipped} …` : clipped || "⏎";
}

/** Close an editor of ours without asking whether to save it. */
async function discard(document: vscode.TextDocument): Promise<void> {
  if (!document.isClosed) {
    await vscode.window.showTextDocument(document);
    await vscode.commands.executeCommand("workbench.action.revertAndCloseActiveEditor");
  }
}
