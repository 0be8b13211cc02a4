/** The page that reports on a patch: a webview that follows its patch and survives a reload of the window. */

import { randomBytes } from "node:crypto";

import * as vscode from "vscode";

import { reasonOf, tellFailure } from "./failure";
import { words } from "./locale";
import { openPlace } from "./place";
import type { PatchReport } from "./protocol";
import { failedBody, reportBody, reportTitle, shellHtml, waitingBody, type Comparing } from "./reportHtml";
import { revertPatch } from "./revert";
import type { Star } from "./star";

const KIND = "star-lsp.report";
const SETTLED_MILLISECONDS = 150;

/** The reports that are open, by patch; an extension is brought up once, with one server. */
const open = new Map<string, Report>();

/** Show the report on a patch, in the panel that it already has or in a new one. */
export async function openReport(
  context: vscode.ExtensionContext,
  star: Star,
  patchId: string,
): Promise<void> {
  await reportOn(context, star, patchId).loaded;
}

/** Show the report on a patch, and have the model write at its siblings and neighbours. */
export async function compareInReport(
  context: vscode.ExtensionContext,
  star: Star,
  patchId: string,
): Promise<void> {
  const report = reportOn(context, star, patchId);
  await report.loaded;
  await report.compare();
}

/** Have reports that were open when the window was closed come back; once, when the extension comes up. */
export function registerReports(context: vscode.ExtensionContext, star: Star): vscode.Disposable {
  const serializer = vscode.window.registerWebviewPanelSerializer(KIND, {
    async deserializeWebviewPanel(panel: vscode.WebviewPanel, state: unknown): Promise<void> {
      const patchId = (state as { patchId?: unknown } | undefined)?.patchId;
      if (typeof patchId !== "string" || open.has(patchId)) panel.dispose();
      else new Report(context, star, patchId, panel);
    },
  });
  const closed = new vscode.Disposable(() => {
    for (const each of open.values()) each.dispose();
    open.clear();
  });
  return vscode.Disposable.from(serializer, closed);
}

function reportOn(context: vscode.ExtensionContext, star: Star, patchId: string): Report {
  const known = open.get(patchId);
  if (known) {
    known.panel.reveal();
    return known;
  }
  const panel = vscode.window.createWebviewPanel(
    KIND,
    vscode.l10n.t("Report on a patch"),
    vscode.ViewColumn.Active,
  );
  return new Report(context, star, patchId, panel);
}

class Report {
  loaded: Promise<void>;
  private found: PatchReport | null = null;
  private failure: string | null = null;
  private comparing: Comparing = { state: "no" };
  private asked = 0;
  private closed = false;
  private settling: NodeJS.Timeout | undefined;
  private readonly subscriptions: { dispose(): void }[];

  constructor(
    context: vscode.ExtensionContext,
    private readonly star: Star,
    private readonly patchId: string,
    readonly panel: vscode.WebviewPanel,
  ) {
    open.set(patchId, this);
    const { webview } = panel;
    const media = vscode.Uri.joinPath(context.extensionUri, "media");
    const uri = (name: string): string => webview.asWebviewUri(vscode.Uri.joinPath(media, name)).toString();
    panel.iconPath = {
      light: vscode.Uri.joinPath(media, "report-light.svg"),
      dark: vscode.Uri.joinPath(media, "report-dark.svg"),
    };
    this.subscriptions = [
      webview.onDidReceiveMessage((message: unknown) => this.hear(message).catch(tellFailure)),
      star.onDidChange(({ what }) => {
        // While there is nothing to show, any news may be that the server is there now.
        if (!this.found || what.some((each) => each === "patches" || each === "cases")) this.settle();
      }),
      panel.onDidDispose(() => this.dispose()),
    ];
    webview.options = { enableScripts: true, localResourceRoots: [media] };
    webview.html = shellHtml({
      nonce: randomBytes(16).toString("base64"),
      source: webview.cspSource,
      style: uri("report.css"),
      script: uri("report.js"),
      title: vscode.l10n.t("Report on a patch"),
      patchId,
      words: words(),
    });
    this.loaded = this.load();
  }

  /** Let go of the page; the panel itself is closed by who closes it. */
  dispose(): void {
    if (open.get(this.patchId) === this) open.delete(this.patchId);
    this.closed = true;
    clearTimeout(this.settling);
    for (const each of this.subscriptions) each.dispose();
  }

  /** Have the model write without the patch and with it. */
  async compare(): Promise<void> {
    if (!this.found || this.comparing.state === "yes") return;
    this.comparing = { state: "yes" };
    this.send(vscode.l10n.t("Comparing …"));
    try {
      const { comparison } = await this.star.compare({ patchId: this.patchId });
      this.found = { ...this.found, comparison };
      this.comparing = { state: "no" };
      this.send(vscode.l10n.t("Compared: see siblings and neighbours."), true);
    } catch (error) {
      this.comparing = { state: "failed", reason: reasonOf(error) };
      this.send(vscode.l10n.t("It could not be compared: {0}", reasonOf(error)));
    }
  }

  private async load(): Promise<void> {
    const asked = ++this.asked;
    try {
      const found = await this.star.showPatch({ patchId: this.patchId });
      if (asked !== this.asked) return;
      const ended = this.found?.patch.active === true && !found.patch.active;
      this.found = found;
      this.failure = null;
      this.send(ended ? vscode.l10n.t("This patch is no longer active.") : undefined);
    } catch (error) {
      if (asked !== this.asked) return;
      // What was read stays to be read: a server that is away for a moment must not empty the page.
      this.failure = reasonOf(error);
      if (!this.found) this.send(this.failure);
    }
  }

  private settle(): void {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => void this.load(), SETTLED_MILLISECONDS);
  }

  private send(news?: string, forget = false): void {
    if (this.closed) return; // an answer that was still on its way is for nobody
    const say = words();
    let body = waitingBody(say);
    if (this.found) {
      body = reportBody(this.found, this.comparing, say);
      this.panel.title = reportTitle(this.found, say);
    } else if (this.failure !== null) {
      body = failedBody(this.failure, say);
    }
    void this.panel.webview.postMessage({ body, news, forget });
  }

  /** Do what a button of the page says. */
  private async hear(message: unknown): Promise<void> {
    const { does, caseId } = message as { does?: unknown; caseId?: unknown };
    switch (does) {
      case "ready": // the page was made, or made again after it was hidden
        this.send();
        break;
      case "keep": {
        const active = this.found?.patch.active;
        this.panel.dispose();
        if (active) {
          void vscode.window.showInformationMessage(
            vscode.l10n.t("Thanks. Patch {0} stays; it can be reverted at any time.", this.patchId),
          );
        }
        break;
      }
      case "revert":
        if (this.found) await revertPatch(this.star, this.patchId, this.found.patch.cases.length);
        await this.load();
        break;
      case "compare":
        await this.compare();
        break;
      case "open": {
        const found = this.found?.cases.find((each) => each.case.id === caseId);
        if (found) await openPlace(found.case);
        break;
      }
      case "retry":
        await this.load();
        break;
      case "log":
        await vscode.commands.executeCommand("star-lsp.showLog");
        break;
    }
  }
}
