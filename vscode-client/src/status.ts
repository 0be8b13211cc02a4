/** The status item: how the server is, in a word and an icon; a click leads on. */

import * as vscode from "vscode";

import type { Client } from "./client";
import { type Log, message } from "./log";
import type { DidChangeParams, StatusResult } from "./protocol";
import type { Suggestions } from "./suggest";
import type { Progress } from "./wire";

interface Look {
  readonly icon: string;
  readonly text: string;
  readonly kind?: "warningBackground" | "errorBackground";
}

const REFRESH = 400;

export class Status implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem(
    "star-lsp.status",
    vscode.StatusBarAlignment.Right,
    100,
  );
  private readonly disposables: { dispose(): void }[];
  private readonly works = new Map<string, Progress>();
  private known: StatusResult | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly client: Client,
    private readonly suggestions: Suggestions,
    private readonly log: Log,
  ) {
    this.item.name = vscode.l10n.t("STAR: completions and repairs");
    this.item.command = "star-lsp.menu";
    this.disposables = [
      this.item,
      suggestions.onDidChange(() => this.draw()),
      client.onDidChangeLife(() => this.lived()),
      client.onProgress((now) => this.worked(now)),
      client.onDidChange((news) => this.changed(news)),
    ];
    this.draw();
    this.item.show();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.disposables.forEach((each) => each.dispose());
  }

  /** What the server said last of itself. */
  get latest(): StatusResult | undefined {
    return this.known;
  }

  private lived(): void {
    if (this.client.life !== "running") {
      this.works.clear();
      this.known = undefined;
    }
    this.draw();
  }

  private worked(now: Progress): void {
    if (now.kind === "end") {
      this.works.delete(now.token);
    } else {
      this.works.set(now.token, now);
    }
    this.draw();
  }

  private changed({ state, revision }: DidChangeParams): void {
    if (this.known) {
      this.known = { ...this.known, state, revision };
      this.draw();
    }
    // News come in bursts, and the answer costs the server a look at its memory.
    this.timer ??= setTimeout(() => void this.refresh(), REFRESH);
  }

  private async refresh(): Promise<void> {
    this.timer = undefined;
    if (this.client.life !== "running") {
      return;
    }
    try {
      this.known = await this.client.status();
    } catch (error) {
      this.log.channel.debug(`No status: ${message(error)}`);
    }
    this.draw();
  }

  private draw(): void {
    const { icon, text, kind } = this.look();
    const shown = text ? `STAR: ${text}` : "STAR";
    const detail = this.detail();
    this.item.text = `$(${icon}) ${shown}`;
    this.item.backgroundColor = kind ? new vscode.ThemeColor(`statusBarItem.${kind}`) : undefined;
    this.item.tooltip = this.tooltip(text || vscode.l10n.t("ready"), detail);
    const said = [text || vscode.l10n.t("ready"), ...detail.map(([name, value]) => `${name} ${value}`)];
    this.item.accessibilityInformation = { label: `STAR: ${said.join(", ")}`, role: "button" };
  }

  private look(): Look {
    const { life } = this.client;
    const work = [...this.works.values()].at(-1) ?? this.known?.working ?? undefined;
    const state = this.known?.state ?? "loading";
    const percent = work ? ` ${work.percent} %` : "";
    if (life === "missing") {
      return { icon: "cloud-download", text: vscode.l10n.t("install the server"), kind: "warningBackground" };
    }
    if (life === "broken" || (life === "running" && state === "failed")) {
      return { icon: "error", text: vscode.l10n.t("failed"), kind: "errorBackground" };
    }
    if (life === "stopped") {
      return { icon: "debug-disconnect", text: vscode.l10n.t("stopped") };
    }
    if (life === "starting") {
      return { icon: "loading~spin", text: vscode.l10n.t("starting") };
    }
    if (state === "downloading") {
      return { icon: "cloud-download", text: vscode.l10n.t("downloading") + percent };
    }
    if (state === "loading") {
      return { icon: "loading~spin", text: vscode.l10n.t("loading") };
    }
    if (state === "repairing" || work) {
      return { icon: "sync~spin", text: vscode.l10n.t("repairing") + percent };
    }
    return this.suggestions.paused
      ? { icon: "debug-pause", text: vscode.l10n.t("paused") }
      : { icon: "star-full", text: "" };
  }

  /** Name and value of what else there is to tell. */
  private detail(): [string, string][] {
    const rows: [string, string][] = [];
    const { known } = this;
    const why = this.client.reason || known?.failure;
    if (why) {
      rows.push([vscode.l10n.t("why"), why]);
    }
    if (this.suggestions.paused) {
      rows.push([vscode.l10n.t("suggestions"), vscode.l10n.t("paused")]);
    }
    const work = [...this.works.values()].at(-1) ?? known?.working;
    if (work) {
      rows.push([work.title, `${work.message} (${work.percent} %)`]);
    }
    if (known) {
      rows.push([vscode.l10n.t("model"), known.model]);
      if (known.revision) {
        rows.push([vscode.l10n.t("revision"), known.revision.slice(0, 12)]);
      }
      rows.push([vscode.l10n.t("waiting for repair"), String(known.queue)]);
      if (known.memory) {
        const { serverBytes, workerPrivateBytes } = known.memory;
        const repairing = workerPrivateBytes === null ? "" : ` + ${megabytes(workerPrivateBytes)}`;
        rows.push([vscode.l10n.t("memory"), megabytes(serverBytes) + repairing]);
      }
    }
    return rows;
  }

  private tooltip(text: string, detail: readonly [string, string][]): vscode.MarkdownString {
    const made = new vscode.MarkdownString("", true);
    made.appendMarkdown("**STAR** — ").appendText(text).appendMarkdown("\n\n");
    for (const [name, value] of detail) {
      made
        .appendMarkdown("- ")
        .appendText(`${name}: ${value.replaceAll("\n", " ")}`)
        .appendMarkdown("\n");
    }
    return made;
  }
}

/** What can be done, as a menu. */
export async function menu(client: Client, suggestions: Suggestions, status: Status): Promise<void> {
  const running = client.life === "running";
  const missing = client.life === "missing";
  const row = (icon: string, label: string, command: string, detail = "") => ({
    label: `$(${icon}) ${label}`,
    ...(detail ? { detail } : {}),
    command,
  });
  const items = [
    ...(missing
      ? [row("cloud-download", vscode.l10n.t("Install the server"), "star-lsp.installServer", client.reason)]
      : []),
    suggestions.paused
      ? row("play", vscode.l10n.t("Resume suggestions"), "star-lsp.resume")
      : row("debug-pause", vscode.l10n.t("Pause suggestions"), "star-lsp.pause"),
    row("question", vscode.l10n.t("Why was nothing suggested?"), "star-lsp.why"),
    ...(running ? [row("wand", vscode.l10n.t("Repair flagged completions"), "star-lsp.batchRepair")] : []),
    row("list-tree", vscode.l10n.t("Show cases"), "star-lsp.cases.focus"),
    row("output", vscode.l10n.t("Show log"), "star-lsp.showLog"),
    row(
      "debug-restart",
      vscode.l10n.t("Restart the server"),
      "star-lsp.restart",
      missing ? "" : client.reason,
    ),
    row("gear", vscode.l10n.t("Settings"), "star-lsp.settings"),
  ];
  const title = status.latest ? `STAR: ${status.latest.model}` : "STAR";
  const chosen = await vscode.window.showQuickPick(items, { title });
  if (chosen) {
    await vscode.commands.executeCommand(chosen.command);
  }
}

function megabytes(bytes: number): string {
  return bytes >= 1 << 30 ? `${(bytes / (1 << 30)).toFixed(1)} GB` : `${Math.round(bytes / (1 << 20))} MB`;
}
