/** CodeLenses: over a fix that is being written, and over a completion that has just been accepted. */

import * as vscode from "vscode";

import { type Corrections, eolOf, rangeOf } from "./correct";
import { setting } from "./settings";
import type { Completion, Shown } from "./shown";

/** After accepting, lines should not jump while the typing goes on. */
const WAIT = 1000;
const LASTS = 3 * 60 * 1000;

export class Lenses implements vscode.CodeLensProvider, vscode.Disposable {
  private readonly changes = new vscode.EventEmitter<void>();
  private readonly disposables: vscode.Disposable[];
  private accepted: string | undefined;
  private timer: NodeJS.Timeout | undefined;
  private visible = false;

  readonly onDidChangeCodeLenses = this.changes.event;

  constructor(
    private readonly shown: Shown,
    private readonly corrections: Corrections,
  ) {
    this.disposables = [
      this.changes,
      corrections.onDidChange(() => this.changes.fire()),
      vscode.languages.registerCodeLensProvider({ pattern: "**" }, this),
      vscode.languages.registerCodeLensProvider(
        [{ scheme: "untitled" }, { scheme: "vscode-notebook-cell" }],
        this,
      ),
      vscode.workspace.onDidChangeTextDocument(({ document }) => this.typed(document)),
    ];
  }

  dispose(): void {
    clearTimeout(this.timer);
    vscode.Disposable.from(...this.disposables).dispose();
  }

  /** A completion was accepted: offer to correct it, once the typing pauses. */
  offer(id: string): void {
    this.dismiss();
    if (setting("editor.lensAfterAccept", true)) {
      this.accepted = id;
      this.later(WAIT, () => this.show());
    }
  }

  dismiss(): void {
    clearTimeout(this.timer);
    const was = this.visible;
    this.accepted = undefined;
    this.visible = false;
    if (was) {
      this.changes.fire();
    }
  }

  provideCodeLenses(document: vscode.TextDocument): vscode.CodeLens[] {
    return [...this.correcting(document), ...this.accepting(document)];
  }

  private correcting(document: vscode.TextDocument): vscode.CodeLens[] {
    return this.corrections.of(document).flatMap(({ completion, region }) => {
      const range = rangeOf(document, { start: region.start, end: region.start });
      const args = [{ id: completion.id }];
      const lens = (title: string, tooltip: string, command: string) =>
        new vscode.CodeLens(range, { title, tooltip, command, arguments: args });
      return [
        lens(
          `$(check) ${vscode.l10n.t("Submit")}`,
          vscode.l10n.t("Repair the model, so that it writes this"),
          "star-lsp.submitCorrection",
        ),
        lens(
          `$(close) ${vscode.l10n.t("Cancel")}`,
          vscode.l10n.t("Put back what stood there, and flag nothing"),
          "star-lsp.cancelCorrection",
        ),
      ];
    });
  }

  private accepting(document: vscode.TextDocument): vscode.CodeLens[] {
    const completion = this.offered(document);
    if (!completion || !this.visible) {
      return [];
    }
    const range = rangeOf(document, { start: completion.region.start, end: completion.region.start });
    const stands = document.getText(rangeOf(document, completion.region));
    const changed = stands !== completion.text.replaceAll("\n", eolOf(document)) && stands.trim() !== "";
    const args = [{ id: completion.id }];
    return [
      changed
        ? new vscode.CodeLens(range, {
            title: `$(wand) ${vscode.l10n.t("Repair the model with my fix")}`,
            tooltip: vscode.l10n.t("What was accepted here was wrong, and what stands here now is right"),
            command: "star-lsp.flagLast",
            arguments: args,
          })
        : new vscode.CodeLens(range, {
            title: `$(edit) ${vscode.l10n.t("Wrong? Correct it")}`,
            tooltip: vscode.l10n.t("Write what is right, and have the model repaired"),
            command: "star-lsp.correctInPlace",
            arguments: args,
          }),
      new vscode.CodeLens(range, {
        title: "$(close)",
        tooltip: vscode.l10n.t("Dismiss"),
        command: "star-lsp.dismissLens",
      }),
    ];
  }

  /** What is offered in a document: not while it is being corrected already. */
  private offered(document: vscode.TextDocument): Completion | undefined {
    const completion = this.accepted === undefined ? undefined : this.shown.get(this.accepted);
    const busy = this.corrections.all().some((each) => each.completion.id === this.accepted);
    return completion?.uri === document.uri.toString() && !busy ? completion : undefined;
  }

  private typed(document: vscode.TextDocument): void {
    // Once they show, the editor asks for them anew by itself at every change.
    if (!this.visible && this.offered(document)) {
      this.later(WAIT, () => this.show());
    }
  }

  private show(): void {
    this.visible = true;
    this.changes.fire();
    this.later(LASTS, () => this.dismiss());
  }

  private later(milliseconds: number, run: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(run, milliseconds);
  }
}
