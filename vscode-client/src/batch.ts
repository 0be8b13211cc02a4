/** "Repair flagged completions": which cases, how long it takes, how it goes, and what it came to. */

import * as vscode from "vscode";

import type { Client } from "./client";
import { words } from "./locale";
import { type Log, message } from "./log";
import type { Outcomes } from "./outcome";
import type { CaseInfo } from "./protocol";
import { standing, statusName } from "./viewModel";
import type { Progress } from "./wire";

interface Item extends vscode.QuickPickItem {
  readonly id: string;
}

export class Batch {
  constructor(
    private readonly client: Client,
    private readonly outcomes: Outcomes,
    private readonly log: Log,
  ) {}

  async run(): Promise<void> {
    try {
      const cases = (await this.client.cases()).filter(({ status }) => status !== "repairing");
      const chosen = cases.length ? await this.choose(cases) : this.none();
      if (chosen?.length) {
        await this.repair(chosen);
      }
    } catch (error) {
      this.log.fail(vscode.l10n.t("The batch repair was not begun: {0}", message(error)), error);
    }
  }

  private none(): undefined {
    this.log.tell(
      vscode.l10n.t(
        "No completion has been flagged yet. Run “STAR: Mark completion as wrong” on one that is wrong.",
      ),
    );
  }

  private choose(cases: readonly CaseInfo[]): Promise<string[] | undefined> {
    const pick = vscode.window.createQuickPick<Item>();
    const items = cases.map((each): Item => {
      const where = each.uri
        ? vscode.workspace.asRelativePath(vscode.Uri.parse(each.uri).fsPath)
        : each.language;
      const at = each.position ? `:${each.position.line + 1}` : "";
      return {
        id: each.id,
        label: `${clipped(each.rejected)} $(arrow-right) ${clipped(each.expected)}`,
        description: [statusName(standing(each), words()), where + at].filter(Boolean).join(" · "),
        ...(each.reason ? { detail: each.reason } : {}),
      };
    });
    const pending = new Set(cases.filter((each) => standing(each) === "pending").map(({ id }) => id));
    pick.title = vscode.l10n.t("Repair flagged completions");
    pick.placeholder = vscode.l10n.t("Cases to repair in one go");
    pick.canSelectMany = true;
    pick.matchOnDescription = true;
    pick.ignoreFocusOut = true;
    pick.items = [
      ...items.filter(({ id }) => pending.has(id)),
      ...items.filter(({ id }) => !pending.has(id)),
    ];
    pick.selectedItems = pick.items.filter(({ id }) => pending.has(id));
    let asked = 0;
    const estimate = async (chosen: readonly Item[]) => {
      const mine = ++asked;
      let title = vscode.l10n.t("Repair flagged completions");
      if (chosen.length) {
        try {
          pick.busy = true;
          const { seconds } = await this.client.estimate({ cases: chosen.map(({ id }) => id) });
          title = vscode.l10n.t(
            "Repair {0} flagged completions: about {1}",
            chosen.length,
            duration(seconds),
          );
        } catch (error) {
          this.log.channel.info(`No estimate: ${message(error)}`);
        }
      }
      if (mine === asked) {
        pick.title = title;
        pick.busy = false;
      }
    };
    pick.onDidChangeSelection(estimate);
    void estimate(pick.selectedItems);
    return new Promise((resolve) => {
      pick.onDidAccept(() => {
        resolve(pick.selectedItems.map(({ id }) => id));
        pick.hide();
      });
      pick.onDidHide(() => {
        resolve(undefined);
        pick.dispose();
      });
      pick.show();
    });
  }

  private async repair(chosen: readonly string[]): Promise<void> {
    const early: Progress[] = [];
    let on = (now: Progress) => void early.push(now);
    const working = this.client.onProgress((now) => on(now));
    let mine = chosen;
    this.outcomes.silent = (id) => mine.includes(id);
    try {
      const { repairId, cases } = await this.client.repairAll({ cases: [...chosen] });
      mine = cases; // what another model has learnt is a case of its own here
      const word = await vscode.window.withProgress(
        {
          location: vscode.ProgressLocation.Notification,
          title: vscode.l10n.t("Repairing {0} flagged completions", chosen.length),
          cancellable: true,
        },
        (progress, token) =>
          new Promise<string>((resolve) => {
            token.onCancellationRequested(() => void this.cancel(repairId));
            let percent = 0;
            on = (now) => {
              if (now.token !== repairId) {
                return;
              }
              if (now.kind === "end") {
                resolve(now.message);
              } else {
                progress.report({
                  message: `${now.message} (${now.percent} %)`,
                  increment: Math.max(0, now.percent - percent),
                });
                percent = Math.max(percent, now.percent);
              }
            };
            early.forEach(on);
            const life = this.client.onDidChangeLife((now) => {
              if (now !== "running") {
                life.dispose();
                resolve(vscode.l10n.t("The server stopped; the cases are pending again."));
              }
            });
          }),
      );
      await this.verdict(cases, word);
    } finally {
      working.dispose();
      this.outcomes.silent = () => false;
    }
  }

  private async cancel(repairId: string): Promise<void> {
    try {
      await this.client.cancelRepair({ repairId });
    } catch (error) {
      this.log.fail(vscode.l10n.t("The repair could not be cancelled: {0}", message(error)), error);
    }
  }

  private async verdict(cases: readonly string[], word: string): Promise<void> {
    this.log.channel.info(`Batch repair: ${word}`);
    if (this.client.life !== "running") {
      this.log.warn(word);
      return;
    }
    const mine = (await this.client.cases()).filter(({ id }) => cases.includes(id));
    const ended = mine.filter(({ status }) => status === "solved" || status === "failed");
    if (ended.length) {
      this.outcomes.tell(ended);
    } else {
      this.log.tell(vscode.l10n.t("Batch repair: {0}. The cases are kept.", word));
    }
  }
}

/** A time as people say it. */
export function duration(seconds: number): string {
  return seconds < 90
    ? vscode.l10n.t("{0} s", Math.max(1, Math.round(seconds)))
    : vscode.l10n.t("{0} min", Math.round(seconds / 60));
}

function clipped(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 40 ? `${line.slice(0, 39)}…` : line || "∅";
}
