/** What became of the cases that were flagged in this window: told once, when no more of them wait. */

import * as vscode from "vscode";

import type { Client } from "./client";
import { type Log, message } from "./log";
import type { CaseInfo } from "./protocol";
import { Queue } from "./queue";

export class Outcomes implements vscode.Disposable {
  private readonly followed = new Set<string>();
  private readonly queue = new Queue();
  private readonly subscription: { dispose(): void };
  /** While a batch repair tells its own verdict, nothing is told here. */
  silent: (caseId: string) => boolean = () => false;

  constructor(
    private readonly client: Client,
    private readonly log: Log,
    private readonly open: (patchId: string) => void,
  ) {
    this.subscription = client.onDidChange(({ what }) => {
      if (this.followed.size && what.includes("cases")) {
        void this.queue.once("look", () => this.look());
      }
    });
  }

  dispose(): void {
    this.subscription.dispose();
  }

  follow(caseId: string): void {
    this.followed.add(caseId);
    void this.queue.once("look", () => this.look());
  }

  leave(caseId: string): void {
    this.followed.delete(caseId);
  }

  /** Tell what became of some cases. */
  tell(ended: readonly CaseInfo[]): void {
    const solved = ended.filter(({ status }) => status === "solved");
    const failed = ended.filter(({ status }) => status === "failed");
    const [first] = solved;
    const report = first?.patchId
      ? [{ title: vscode.l10n.t("Show report"), run: () => this.open(first.patchId ?? "") }]
      : [];
    const cases = {
      title: vscode.l10n.t("Show cases"),
      run: () => vscode.commands.executeCommand("star-lsp.cases.focus"),
    };
    if (failed.length === 1 && ended.length === 1) {
      const why = failed[0]?.reason ?? "";
      this.log.notice(
        vscode.l10n.t("The completion could not be repaired: {0}", why),
        cases,
        this.log.showing,
      );
    } else if (failed.length) {
      this.log.warn(
        vscode.l10n.t(
          "{0} of {1} flagged completions are repaired; {2} could not be.",
          solved.length,
          ended.length,
          failed.length,
        ),
        ...report,
        cases,
      );
    } else if (solved.length === 1) {
      this.log.tell(vscode.l10n.t("Repaired: the completion is right from now on."), ...report);
    } else if (solved.length) {
      this.log.tell(
        vscode.l10n.t("Repaired: {0} completions are right from now on.", solved.length),
        ...report,
      );
    }
  }

  private async look(): Promise<void> {
    try {
      const all = await this.client.cases();
      const mine = all.filter(({ id }) => this.followed.has(id));
      if (mine.some(({ status }) => status === "pending" || status === "repairing")) {
        return;
      }
      this.followed.clear();
      this.tell(mine.filter(({ id }) => !this.silent(id)));
    } catch (error) {
      this.log.channel.info(`What became of the flagged cases is not known yet: ${message(error)}`);
    }
  }
}
