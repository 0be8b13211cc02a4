/** "Why was nothing suggested?": what is known here, then what the server knows, each with its remedy. */

import * as vscode from "vscode";

import type { Client } from "./client";
import { type Log, message } from "./log";
import { setting } from "./settings";
import type { Suggestions } from "./suggest";

interface Item extends vscode.QuickPickItem {
  run?(): unknown;
}

export async function tellWhy(client: Client, suggestions: Suggestions, log: Log): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  const items: Item[] = here(client, suggestions, document);
  if (client.life === "running") {
    try {
      items.push(...(await there(client, document)));
    } catch (error) {
      log.channel.warn(message(error));
      items.push({ label: `$(warning) ${message(error)}` });
    }
  }
  if (!items.length) {
    items.push({
      label: `$(check) ${vscode.l10n.t("Nothing stands in the way")}`,
      detail: document
        ? vscode.l10n.t(
            "No request here was answered with nothing. Type on, or trigger a suggestion by hand.",
          )
        : vscode.l10n.t("Open a file and type; suggestions show as grey text at the cursor."),
      run: () => vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
    });
  }
  items.push({ label: `$(output) ${vscode.l10n.t("Show log")}`, run: () => log.channel.show() });
  const title = vscode.l10n.t("Why was nothing suggested?");
  const placeHolder = vscode.l10n.t("Newest first; Enter does something about it");
  const chosen = await vscode.window.showQuickPick(items, { title, placeHolder, matchOnDetail: true });
  await chosen?.run?.();
}

function here(client: Client, suggestions: Suggestions, document: vscode.TextDocument | undefined): Item[] {
  const items: Item[] = [];
  const say = (label: string, detail: string, run: () => unknown) =>
    void items.push({ label: `$(circle-slash) ${label}`, detail, run });
  const command =
    (name: string, ...args: unknown[]) =>
    () =>
      vscode.commands.executeCommand(name, ...args);
  const settings = (name: string) => command("workbench.action.openSettings", name);
  if (client.life === "missing") {
    say(vscode.l10n.t("The server is not on this machine"), client.reason, command("star-lsp.installServer"));
  } else if (client.life !== "running") {
    say(
      vscode.l10n.t("The server is not running"),
      client.reason || vscode.l10n.t("Enter starts it again."),
      command("star-lsp.restart"),
    );
  }
  if (suggestions.paused) {
    say(
      vscode.l10n.t("Suggestions are paused"),
      vscode.l10n.t("Enter resumes them."),
      command("star-lsp.resume"),
    );
  }
  if (!vscode.workspace.getConfiguration("editor", document).get("inlineSuggest.enabled", true)) {
    say(
      vscode.l10n.t("The editor shows no inline suggestions"),
      vscode.l10n.t("The setting editor.inlineSuggest.enabled is off."),
      settings("editor.inlineSuggest.enabled"),
    );
  }
  if (!setting("completion.enabled", true)) {
    say(
      vscode.l10n.t("Completions are switched off"),
      vscode.l10n.t("The setting star-lsp.completion.enabled is off."),
      settings("star-lsp.completion.enabled"),
    );
  }
  if (document && suggestions.quiet(document)) {
    say(
      vscode.l10n.t("A fix is being written in this document"),
      vscode.l10n.t("Submit or cancel it first. Enter submits."),
      command("star-lsp.submitCorrection"),
    );
  }
  return items;
}

async function there(client: Client, document: vscode.TextDocument | undefined): Promise<Item[]> {
  const { state, failure, working } = await client.status();
  const items: Item[] = [];
  if (state === "failed") {
    items.push({
      label: `$(error) ${vscode.l10n.t("The model cannot be served")}`,
      detail: failure ?? "",
      run: () => vscode.commands.executeCommand("star-lsp.restart"),
    });
  } else if (state === "loading" || state === "downloading") {
    const label =
      state === "loading"
        ? vscode.l10n.t("The model is being loaded")
        : vscode.l10n.t("The model is being downloaded");
    items.push({
      label: `$(loading) ${label}`,
      detail: working ? `${working.message} (${working.percent} %)` : "",
    });
  }
  const reasons = await client.why(document ? { uri: document.uri.toString() } : {});
  for (const { uri, position, reason, at } of reasons.slice(0, 20)) {
    const place = vscode.Uri.parse(uri);
    items.push({
      label: `$(circle-slash) ${reason}`,
      description: `${vscode.workspace.asRelativePath(place.fsPath)}:${position.line + 1}`,
      detail: new Date(at).toLocaleTimeString(),
      run: () => {
        const where = new vscode.Position(position.line, position.character);
        return vscode.window.showTextDocument(place, { selection: new vscode.Range(where, where) });
      },
    });
  }
  return items;
}
