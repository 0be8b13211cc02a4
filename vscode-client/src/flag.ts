/** "Mark completion as wrong", in three ways: say what is right, write it in place, or let the server see. */

import * as vscode from "vscode";

import { type Client, Gone } from "./client";
import { type Correction, type Corrections, rangeOf, typedOf } from "./correct";
import type { KeptFlags } from "./kept";
import { type Action, type Log, message } from "./log";
import type { Outcomes } from "./outcome";
import type { FlagResult } from "./protocol";
import { setting } from "./settings";
import type { Completion, Shown } from "./shown";

/** What a command is told: by a key binding that ghost text shows, by a CodeLens which completion it is. */
export interface Asked {
  readonly ghost?: boolean;
  readonly id?: string;
}

const NEAR_LINES = 2;

export class Flags {
  /** Called when a completion has been flagged. */
  flagged: () => void = () => undefined;

  constructor(
    private readonly client: Client,
    private readonly shown: Shown,
    private readonly corrections: Corrections,
    private readonly outcomes: Outcomes,
    private readonly log: Log,
    private readonly kept: () => KeptFlags,
  ) {}

  /** Ask for the right code; a fix of several lines is written in an editor. */
  async mark(asked?: Asked): Promise<void> {
    const completion = this.meant(asked);
    if (!completion) {
      this.nothing();
    } else if (completion.text.includes("\n")) {
      await this.write(completion);
    } else {
      this.ask(completion);
    }
  }

  /** Have the right code written where the wrong one stands or was shown. */
  async inPlace(asked?: Asked): Promise<void> {
    const completion = this.meant(asked);
    if (completion) {
      await this.write(completion);
    } else {
      this.nothing();
    }
  }

  /** What now stands in the document is right: the server reads it there. */
  async last(asked?: Asked): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    const completion = asked?.id
      ? this.shown.get(asked.id)
      : (this.shown.last(editor?.document.uri.toString()) ?? this.shown.last());
    if (!completion) {
      this.nothing();
      return;
    }
    try {
      if (!completion.remembered) {
        await this.keepStanding(completion);
        return;
      }
      this.sent(await this.client.flag({ completionId: completion.id }), completion);
    } catch (error) {
      this.refused(completion, error);
    }
  }

  async submit(asked?: Asked): Promise<void> {
    const correction = this.corrections.meant(asked?.id);
    if (!correction || correction.busy) {
      return;
    }
    const fix = this.corrections.fix(correction);
    if (same(fix, correction.completion)) {
      this.log.tell(
        vscode.l10n.t("What stands there is what was suggested. Change it to what is right, then submit."),
      );
      return;
    }
    correction.busy = true;
    try {
      await this.send(correction.completion, fix);
      await this.corrections.done(correction);
    } catch (error) {
      this.log.fail(
        vscode.l10n.t("The fix was not taken: {0} What you wrote is still there.", message(error)),
        error,
        {
          title: vscode.l10n.t("Submit again"),
          run: () => this.submit({ id: correction.completion.id }),
        },
      );
    } finally {
      correction.busy = false;
    }
  }

  async cancel(asked?: Asked): Promise<void> {
    const correction: Correction | undefined = this.corrections.meant(asked?.id);
    if (correction && !correction.busy) {
      await this.corrections.cancel(correction);
    }
  }

  /** Tell that a case was stored, and offer to undo it. */
  sent(result: FlagResult, completion: Pick<Completion, "id" | "text">): void {
    this.shown.drop(completion.id);
    this.flagged();
    this.outcomes.follow(result.caseId);
    const code = clipped(completion.text);
    const schedule = setting("repair.schedule", "at once");
    if (result.masked?.length) {
      const kinds = result.masked.join(", ");
      this.log.tell(
        vscode.l10n.t("What looks like a secret was masked before the case was kept: {0}.", kinds),
      );
    }
    const undo: Action = { title: vscode.l10n.t("Undo"), run: () => this.undo(result.caseId, code) };
    if (schedule === "at once") {
      this.log.tell(vscode.l10n.t("Flagged {0}. The model is being repaired.", code), undo);
    } else if (schedule === "idle") {
      this.log.tell(vscode.l10n.t("Flagged {0}. The model is repaired when the editor is idle.", code), undo);
    } else {
      const now = {
        title: vscode.l10n.t("Repair now"),
        run: () => this.client.repairAll({ cases: [result.caseId] }),
      };
      this.log.tell(
        vscode.l10n.t("Flagged {0}. The model is repaired when you ask for it.", code),
        now,
        undo,
      );
    }
  }

  // -- inside ----------------------------------------------------------------------------------

  private async undo(caseId: string, code: string): Promise<void> {
    this.outcomes.leave(caseId);
    try {
      const { was } = await this.client.unflag({ caseId });
      const said =
        was === "solved"
          ? vscode.l10n.t("The flag of {0} is undone, and its repair is reverted.", code)
          : vscode.l10n.t("The flag of {0} is undone.", code);
      vscode.window.setStatusBarMessage(`$(discard) ${said}`, 8000);
    } catch (error) {
      this.log.fail(vscode.l10n.t("The flag could not be undone: {0}", message(error)), error, {
        title: vscode.l10n.t("Show cases"),
        run: () => vscode.commands.executeCommand("star-lsp.cases.focus"),
      });
    }
  }

  private meant(asked?: Asked): Completion | undefined {
    if (asked?.id) {
      return this.shown.get(asked.id);
    }
    const editor = vscode.window.activeTextEditor;
    if (!editor) {
      return this.shown.last();
    }
    const { document, selection } = editor;
    const uri = document.uri.toString();
    const offset = document.offsetAt(selection.active);
    const ghost = () =>
      this.shown.ghost(uri, offset, (start, end) => document.getText(rangeOf(document, { start, end })));
    const line = (at: number) => document.positionAt(at).line;
    const near = (a: number, b: number) => Math.abs(line(a) - line(b)) <= NEAR_LINES;
    const around = () => this.shown.around(uri, offset);
    // A key pressed over ghost text means that; a command from elsewhere, first what has been accepted here.
    return (asked?.ghost ? ghost() : (around() ?? ghost())) ?? this.shown.at(uri, offset, near);
  }

  private nothing(): void {
    this.log.tell(
      vscode.l10n.t("No completion has been shown here yet. Type until one shows, then mark it as wrong."),
      {
        title: vscode.l10n.t("Why was nothing suggested?"),
        run: () => vscode.commands.executeCommand("star-lsp.why"),
      },
    );
  }

  private async write(completion: Completion): Promise<void> {
    const editor = this.editorOf(completion);
    if (!editor) {
      await this.corrections.inScratch(completion);
      return;
    }
    const { document } = editor;
    const { start, end } = completion.region;
    const stands = document.getText(rangeOf(document, { start: Math.max(0, start - 40), end: start }));
    const prefix = completion.around.prefix.slice(-40);
    // The place must still be there: after what preceded it, or with some of the completion in it.
    if (prefix.endsWith(stands) || (completion.accepted ? end > start : typedOf(completion, editor))) {
      await this.corrections.inPlace(completion, editor);
    } else {
      await this.corrections.inScratch(completion);
    }
  }

  private editorOf(completion: Completion): vscode.TextEditor | undefined {
    const mine = (each: vscode.TextEditor) => each.document.uri.toString() === completion.uri;
    const active = vscode.window.activeTextEditor;
    return active && mine(active) ? active : vscode.window.visibleTextEditors.find(mine);
  }

  private ask(completion: Completion): void {
    const box = vscode.window.createInputBox();
    const write = {
      iconPath: new vscode.ThemeIcon("edit"),
      tooltip: vscode.l10n.t("Write it in place (several lines)"),
    };
    const other = {
      iconPath: new vscode.ThemeIcon("list-selection"),
      tooltip: vscode.l10n.t("Another completion…"),
    };
    box.title = vscode.l10n.t("Mark completion as wrong");
    box.prompt = vscode.l10n.t("What should have been suggested? Leave it empty if nothing should.");
    box.value = completion.text;
    box.ignoreFocusOut = true;
    box.buttons = this.shown.recent().length > 1 ? [write, other] : [write];
    box.onDidChangeValue(() => (box.validationMessage = undefined));
    box.onDidTriggerButton((button) => {
      const text = box.value;
      box.hide();
      void (button === write
        ? this.write({ ...completion }).then(() => this.take(completion, text))
        : this.another());
    });
    box.onDidAccept(async () => {
      if (!box.enabled) {
        return;
      }
      if (same(box.value, completion)) {
        box.validationMessage = vscode.l10n.t("This is what was suggested. Change it to what is right.");
        return;
      }
      box.busy = true;
      box.enabled = false;
      try {
        await this.send(completion, box.value);
        box.hide();
      } catch (error) {
        this.log.channel.error(message(error));
        box.validationMessage = vscode.l10n.t("{0} (Enter tries again.)", message(error));
      } finally {
        box.busy = false;
        box.enabled = true;
      }
    });
    box.onDidHide(() => box.dispose());
    box.show();
  }

  /** What was typed into the box goes on in the document. */
  private async take(completion: Completion, text: string): Promise<void> {
    const correction = this.corrections.meant(completion.id);
    if (correction && text !== completion.text) {
      const edit = new vscode.WorkspaceEdit();
      edit.replace(correction.document.uri, rangeOf(correction.document, correction.region), text);
      await vscode.workspace.applyEdit(edit);
    }
  }

  private async another(): Promise<void> {
    const items = this.shown.recent().map((completion) => ({
      label: clipped(completion.text),
      description: completion.accepted ? vscode.l10n.t("accepted") : vscode.l10n.t("shown"),
      detail: vscode.workspace.asRelativePath(vscode.Uri.parse(completion.uri).fsPath),
      completion,
    }));
    const title = vscode.l10n.t("Which completion is wrong?");
    const chosen = await vscode.window.showQuickPick(items, {
      title,
      matchOnDetail: true,
      ignoreFocusOut: true,
    });
    if (chosen) {
      await this.mark({ id: chosen.completion.id });
    }
  }

  /** Flag a completion with its fix; one that no server knows is kept until one is there. */
  private async send(completion: Completion, expected: string): Promise<void> {
    const now = this.shown.get(completion.id) ?? completion;
    if (this.client.life === "running" && now.remembered) {
      try {
        this.sent(await this.client.flag({ completionId: completion.id, expected }), completion);
        return;
      } catch (error) {
        if (!(error instanceof Gone)) {
          throw error;
        }
        await this.keep(now, expected);
        this.log.tell(vscode.l10n.t("Your fix is kept, and is flagged as soon as the STAR server is back."));
        return;
      }
    }
    await this.keep(now, expected);
  }

  private async keep(completion: Completion, expected: string): Promise<void> {
    await this.kept().keep(completion, expected);
    this.shown.drop(completion.id);
    if (this.client.life === "starting") {
      this.log.tell(vscode.l10n.t("Your fix is kept, and is flagged as soon as the STAR server is back."));
    } else if (this.client.life !== "running") {
      this.log.warn(
        vscode.l10n.t(
          "The STAR server is not running. Your fix is kept, and is flagged when the server is back.",
        ),
        {
          title: vscode.l10n.t("Start the server"),
          run: () => vscode.commands.executeCommand("star-lsp.restart"),
        },
      );
    }
  }

  /** The server cannot tell what stands where a forgotten completion was; we can, if it is still followed. */
  private async keepStanding(completion: Completion): Promise<void> {
    const editor = this.editorOf(completion);
    const fix = editor?.document
      .getText(rangeOf(editor.document, completion.region))
      .replaceAll("\r\n", "\n");
    if (completion.accepted && fix !== undefined && !same(fix, completion)) {
      await this.keep(completion, fix);
    } else {
      throw new Error(
        vscode.l10n.t(
          "The server was started again since it suggested this, so it cannot see what is right.",
        ),
      );
    }
  }

  private refused(completion: Completion, error: unknown): void {
    const open = this.editorOf(completion);
    const tell: Action = {
      title: vscode.l10n.t("Say what is right"),
      run: () => this.mark({ id: completion.id }),
    };
    const show: Action = {
      title: vscode.l10n.t("Open the file"),
      run: () => vscode.window.showTextDocument(vscode.Uri.parse(completion.uri)),
    };
    this.log.fail(message(error), error, ...(open ? [tell] : [tell, show]));
  }
}

function same(fix: string, completion: Completion): boolean {
  return fix.trimEnd() === completion.text.trimEnd();
}

function clipped(text: string): string {
  const lines = text.split("\n").filter((line) => line.trim());
  const first = (lines[0] ?? "").trim();
  return `“${first.length > 50 || lines.length > 1 ? `${first.slice(0, 50)}…` : first}”`;
}
