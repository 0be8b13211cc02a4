/** The view "STAR": cases and patches, and what can be done with them. */

import * as vscode from "vscode";

import { reasonOf, tellFailure } from "./failure";
import { words } from "./locale";
import { openPlace, registerCaseTexts } from "./place";
import type { CaseInfo, PatchInfo } from "./protocol";
import { compareInReport } from "./report";
import { confirmed, revertPatch } from "./revert";
import type { Star } from "./star";
import {
  caseGroups,
  caseName,
  counted,
  patchRows,
  pending,
  standing,
  type CaseRow,
  type GroupRow,
  type Look,
  type PatchRow,
  type Standing,
} from "./viewModel";

const SETTLED_MILLISECONDS = 150;
/** Context key: what the empty view says depends on whether the server has answered yet. */
const LISTED = "star-lsp.listed";

/** The view with its commands; `open` shows the report on a patch. */
export function registerViews(
  context: vscode.ExtensionContext,
  star: Star,
  open: (patchId: string) => void,
): vscode.Disposable {
  const lists = new Lists(star);
  const cases = new CaseTree();
  const patches = new PatchTree();
  const caseView = vscode.window.createTreeView("star-lsp.cases", {
    treeDataProvider: cases,
    canSelectMany: true,
    showCollapseAll: false,
  });
  const patchView = vscode.window.createTreeView("star-lsp.patches", { treeDataProvider: patches });
  const shown = lists.onDidChange(() => {
    const say = words();
    cases.show(caseGroups(lists.cases, say));
    patches.show(patchRows(lists.patches, lists.cases, say));
    const waiting = pending(lists.cases);
    caseView.badge = waiting
      ? { value: waiting, tooltip: vscode.l10n.t("{0} waiting for a repair", counted(waiting, say)) }
      : undefined;
    const away =
      lists.listed && lists.failure !== null
        ? vscode.l10n.t("As last seen; the server does not answer: {0}", lists.failure)
        : "";
    caseView.message = away;
    patchView.message = away;
    void vscode.commands.executeCommand("setContext", LISTED, lists.listed);
  });
  const command = (id: string, act: (...given: unknown[]) => Promise<void> | void): vscode.Disposable =>
    vscode.commands.registerCommand(`star-lsp.${id}`, async (...given: unknown[]) => {
      try {
        await act(...given);
      } catch (error) {
        void tellFailure(error);
      }
    });
  /** The cases that a command is for: those of the rows it was given, or else of the selected ones. */
  const chosen = (given: unknown[], ...statuses: Standing[]): CaseInfo[] =>
    casesOf(given, caseView.selection).filter((each) => statuses.includes(standing(each)));
  const patchOf = async (given: unknown[], active: boolean): Promise<PatchInfo | undefined> => {
    const [row] = given as [PatchRow | undefined];
    const known = row?.kind === "patch" ? row.patch : undefined;
    return known ?? (await pickPatch(lists, active));
  };

  void lists.refresh();
  return vscode.Disposable.from(
    lists,
    shown,
    caseView,
    patchView,
    registerCaseTexts(star),
    command("case.open", async (...given) => {
      const [one] = casesOf(given, caseView.selection);
      if (one) await openPlace(one);
    }),
    command("case.retry", async (...given) => {
      const ids = chosen(given, "pending", "failed", "reverted", "elsewhere").map((each) => each.id);
      if (!ids.length)
        return nothing(vscode.l10n.t("Only a pending, failed or reverted case can be repaired."));
      await star.repairAll({ cases: ids, fromBase: false });
    }),
    command("case.cancel", async (...given) => {
      for (const each of chosen(given, "repairing")) await star.cancelRepair({ caseId: each.id });
    }),
    command("case.delete", async (...given) => {
      const some = chosen(given, "pending", "failed", "reverted");
      if (!some.length) {
        return nothing(
          vscode.l10n.t(
            "A solved case is reverted first, and the repair of one under way cancelled, before it is deleted.",
          ),
        );
      }
      await deleteCases(star, some);
    }),
    command("case.undo", async (...given) => {
      for (const each of casesOf(given, caseView.selection)) await undo(star, each);
    }),
    command("case.revert", async (...given) => {
      const [one] = chosen(given, "solved");
      if (one) await revertCase(star, one);
    }),
    command("case.report", (...given) => {
      const [one] = casesOf(given, caseView.selection);
      if (one?.patchId != null) open(one.patchId);
    }),
    command("patch.report", async (...given) => {
      const patch = await patchOf(given, false);
      if (patch) open(patch.id);
    }),
    command("patch.compare", async (...given) => {
      const patch = await patchOf(given, true);
      if (patch) await compareInReport(context, star, patch.id);
    }),
    command("patch.revert", async (...given) => {
      const patch = await patchOf(given, true);
      if (patch) await revertPatch(star, patch.id, patch.cases.length);
    }),
  );
}

/** The cases and patches as last seen, read again when the server says that they changed. */
class Lists implements vscode.Disposable {
  cases: CaseInfo[] = [];
  patches: PatchInfo[] = [];
  /** Whether the server has answered at all. */
  listed = false;
  failure: string | null = null;
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChange = this.changed.event;
  private readonly news: { dispose(): void };
  private settling: NodeJS.Timeout | undefined;
  private asked = 0;

  constructor(private readonly star: Star) {
    this.news = star.onDidChange(({ what, state }) => {
      // Until it has answered once, any news may be that it can now.
      const ours = what.some((each) => each === "cases" || each === "patches");
      if (ours || !this.listed || (this.failure !== null && state !== "failed")) this.settle();
    });
  }

  dispose(): void {
    this.asked += 1;
    clearTimeout(this.settling);
    this.news.dispose();
    this.changed.dispose();
  }

  async refresh(): Promise<void> {
    const asked = ++this.asked;
    try {
      const [cases, patches] = await Promise.all([this.star.cases(), this.star.patches()]);
      if (asked !== this.asked) return;
      Object.assign(this, { cases, patches, listed: true, failure: null });
    } catch (error) {
      if (asked !== this.asked) return;
      this.failure = reasonOf(error);
    }
    this.changed.fire();
  }

  /** A repair changes several things at once: read them once. */
  private settle(): void {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => void this.refresh(), SETTLED_MILLISECONDS);
  }
}

class CaseTree implements vscode.TreeDataProvider<GroupRow | CaseRow> {
  private groups: GroupRow[] = [];
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;

  show(groups: GroupRow[]): void {
    this.groups = groups;
    this.changed.fire();
  }

  getChildren(row?: GroupRow | CaseRow): (GroupRow | CaseRow)[] {
    if (!row) return this.groups;
    return row.kind === "group" ? row.cases : [];
  }

  getParent(row: GroupRow | CaseRow): GroupRow | undefined {
    return row.kind === "case" ? this.groups.find((each) => each.cases.includes(row)) : undefined;
  }

  getTreeItem(row: GroupRow | CaseRow): vscode.TreeItem {
    const { Expanded, Collapsed, None } = vscode.TreeItemCollapsibleState;
    if (row.kind === "group") return item(row, row.open ? Expanded : Collapsed);
    const shown = item(row, None);
    shown.command = { command: "star-lsp.case.open", title: vscode.l10n.t("Open place"), arguments: [row] };
    return shown;
  }
}

class PatchTree implements vscode.TreeDataProvider<PatchRow> {
  private rows: PatchRow[] = [];
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;

  show(rows: PatchRow[]): void {
    this.rows = rows;
    this.changed.fire();
  }

  getChildren(row?: PatchRow): PatchRow[] {
    return row ? [] : this.rows;
  }

  getTreeItem(row: PatchRow): vscode.TreeItem {
    const shown = item(row, vscode.TreeItemCollapsibleState.None);
    shown.command = {
      command: "star-lsp.patch.report",
      title: vscode.l10n.t("Show report"),
      arguments: [row],
    };
    return shown;
  }
}

function item(look: Look, state: vscode.TreeItemCollapsibleState): vscode.TreeItem {
  const shown = new vscode.TreeItem(look.label, state);
  shown.id = look.id;
  shown.description = look.description;
  shown.contextValue = look.context;
  shown.accessibilityInformation = { label: look.spoken };
  if (look.tooltip) shown.tooltip = new vscode.MarkdownString(look.tooltip);
  if (look.icon) {
    shown.iconPath = new vscode.ThemeIcon(
      look.icon,
      look.colour ? new vscode.ThemeColor(look.colour) : undefined,
    );
  }
  return shown;
}

/** The cases of rows: VS Code gives the one that was clicked, then all that are selected if it is among them. */
function casesOf(given: unknown[], selection: readonly (GroupRow | CaseRow)[]): CaseInfo[] {
  const [row, rows] = given as [CaseRow | GroupRow | undefined, (CaseRow | GroupRow)[] | undefined];
  const some = !row ? selection : rows?.includes(row) ? rows : [row];
  const found = some.flatMap((each) => {
    if (each.kind === "group") return each.cases.map((one) => one.case);
    return each.kind === "case" ? [each.case] : [];
  });
  return [...new Map(found.map((each) => [each.id, each])).values()];
}

function nothing(why: string): void {
  void vscode.window.showInformationMessage(why);
}

async function deleteCases(star: Star, some: CaseInfo[]): Promise<void> {
  const say = words();
  const question =
    some.length === 1
      ? vscode.l10n.t("Delete the case {0}?", caseName(some[0]!, say))
      : vscode.l10n.t("Delete {0}?", counted(some.length, say));
  await confirmed(
    question,
    vscode.l10n.t(
      "What was flagged, and the code around it, is deleted from this computer. The model stays as it is.",
    ),
    vscode.l10n.t("Delete"),
    async () => {
      const failed: string[] = [];
      for (const each of some) {
        await star.deleteCase({ caseId: each.id }).catch((error) => failed.push(reasonOf(error)));
      }
      if (failed.length) throw new Error(failed.join(" "));
      return "";
    },
  );
}

async function undo(star: Star, one: CaseInfo): Promise<void> {
  if (one.status !== "solved") {
    await star.unflag({ caseId: one.id });
    return;
  }
  await confirmed(
    vscode.l10n.t("Undo the flag {0}?", caseName(one, words())),
    vscode.l10n.t("Its repair is reverted, and the case is deleted. Other cases stay solved."),
    vscode.l10n.t("Undo flag"),
    async () => {
      await star.unflag({ caseId: one.id });
      return vscode.l10n.t("The flag is undone, and its repair reverted.");
    },
  );
}

async function revertCase(star: Star, one: CaseInfo): Promise<void> {
  await confirmed(
    vscode.l10n.t("Revert the case {0}?", caseName(one, words())),
    vscode.l10n.t(
      "The model is rebuilt without its repair; other cases of the same patch are solved again. The case stays, as reverted.",
    ),
    vscode.l10n.t("Revert"),
    async () => {
      const { revision } = await star.revert({ caseId: one.id });
      return vscode.l10n.t("The case is reverted; the model is at revision {0}.", revision);
    },
  );
}

/** Have the developer choose a patch: for a command that was called by name. */
async function pickPatch(lists: Lists, active: boolean): Promise<PatchInfo | undefined> {
  await lists.refresh();
  if (lists.failure !== null) throw new Error(lists.failure);
  const rows = patchRows(lists.patches, lists.cases, words()).filter((each) => each.patch.active || !active);
  if (!rows.length) {
    nothing(
      active
        ? vscode.l10n.t("No patch is active: the model is as it was downloaded.")
        : vscode.l10n.t("No patch yet: the model is as it was downloaded."),
    );
    return undefined;
  }
  const items = rows.map(({ label, description, patch }) => ({ label, description, patch }));
  const picked = await vscode.window.showQuickPick(items, {
    title: vscode.l10n.t("Patches"),
    placeHolder: vscode.l10n.t("Choose a patch"),
    matchOnDescription: true,
  });
  return picked?.patch;
}
