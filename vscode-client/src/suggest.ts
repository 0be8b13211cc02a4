/** Between the editor and the server when a completion is asked for: when to ask, and what was shown. */

import * as vscode from "vscode";

import { Debounce } from "./debounce";
import { type Log, message } from "./log";
import type { ServerState } from "./protocol";
import { setting } from "./settings";
import type { Shown } from "./shown";

type Items = vscode.InlineCompletionItem[] | vscode.InlineCompletionList | null | undefined;
export type Next = (
  document: vscode.TextDocument,
  position: vscode.Position,
  context: vscode.InlineCompletionContext,
  token: vscode.CancellationToken,
) => vscode.ProviderResult<vscode.InlineCompletionItem[] | vscode.InlineCompletionList>;

/** More than the most tokens that a model reads on either side. */
const AROUND = 32_768;

export class Suggestions implements vscode.Disposable {
  private readonly debounce = new Debounce();
  private readonly changes = new vscode.EventEmitter<void>();
  private stopped = false;
  private waiting: vscode.TextDocument | undefined;
  /** Whether a document shall be left alone, because a fix is being written in it. */
  quiet: (document: vscode.TextDocument) => boolean = () => false;

  constructor(
    private readonly shown: Shown,
    private readonly log: Log,
  ) {}

  readonly onDidChange = this.changes.event;

  get paused(): boolean {
    return this.stopped;
  }

  set paused(value: boolean) {
    this.stopped = value;
    void vscode.commands.executeCommand("setContext", "star-lsp.paused", value);
    this.changes.fire();
  }

  /** The middleware of the language client. */
  readonly provide = async (
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
    next: Next,
  ): Promise<Items> => {
    if (this.stopped || this.quiet(document)) {
      return null;
    }
    if (context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic) {
      const wait = this.debounce.ask(performance.now(), setting("editor.debounceMilliseconds", 75));
      if (await cancelled(token, wait)) {
        return null;
      }
    }
    const { version } = document;
    const start = performance.now();
    let items: Items;
    try {
      items = await next(document, position, context, token);
    } catch (error) {
      // A request that was overtaken is none that failed; and nothing is shown for one that did.
      if (!(error instanceof vscode.CancellationError) && !token.isCancellationRequested) {
        this.log.channel.warn(`No completion: ${message(error)}`);
      }
      return null;
    }
    if (token.isCancellationRequested) {
      return null;
    }
    this.debounce.answered(performance.now() - start);
    // Later edits are followed from here on; what came before an answer was not.
    if (document.version === version) {
      this.remember(document, position, items);
    }
    return items;
  };

  /** Someone types; what was typed before there was a model has been answered with nothing. */
  typed(document: vscode.TextDocument, state: ServerState | undefined): void {
    this.waiting = state === "ready" || state === "repairing" ? undefined : document;
  }

  /** The model is there: ask for what was waited for, if the cursor is still where that was typed. */
  came(state: ServerState): void {
    if (state === "ready" && this.waiting) {
      if (vscode.window.activeTextEditor?.document === this.waiting && vscode.window.state.focused) {
        void vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
      }
      this.waiting = undefined;
    }
  }

  dispose(): void {
    this.changes.dispose();
  }

  private remember(document: vscode.TextDocument, position: vscode.Position, items: Items): void {
    const offset = document.offsetAt(position);
    for (const item of [...(Array.isArray(items) ? items : (items?.items ?? []))].reverse()) {
      const given = item.command?.arguments?.[0] as { completionId?: unknown } | undefined;
      const text = typeof item.insertText === "string" ? item.insertText : item.insertText.value;
      if (typeof given?.completionId === "string") {
        const around = {
          language: document.languageId,
          line: position.line,
          prefix: document.getText(new vscode.Range(document.positionAt(offset - AROUND), position)),
          suffix: document.getText(new vscode.Range(position, document.positionAt(offset + AROUND))),
        };
        this.shown.add(given.completionId, document.uri.toString(), offset, text, around);
      }
    }
  }
}

/** Whether a request was cancelled while it was held back. */
function cancelled(token: vscode.CancellationToken, milliseconds: number): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (value: boolean) => {
      clearTimeout(timer);
      listening.dispose();
      resolve(value);
    };
    const timer = setTimeout(() => done(token.isCancellationRequested), milliseconds);
    const listening = token.onCancellationRequested(() => done(true));
  });
}
