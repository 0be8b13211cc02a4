/** Wires everything. What takes time is begun here and goes on when this has returned. */

import * as vscode from "vscode";

import { Batch } from "./batch";
import { Client } from "./client";
import { Corrections, eolOf } from "./correct";
import { type Asked, Flags } from "./flag";
import { Installer } from "./install";
import { KeptFlags } from "./kept";
import { Lenses } from "./lens";
import { Log } from "./log";
import { Outcomes } from "./outcome";
import { openReport, registerReports } from "./report";
import { Shown } from "./shown";
import { menu, Status } from "./status";
import { Suggestions } from "./suggest";
import { registerViews } from "./view";
import { tellWhy } from "./why";

/** When the bundle began to be loaded; esbuild.mjs puts it first. */
declare const loading: number;

const loaded = performance.now();
let client: Client | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const start = performance.now();
  const log = new Log();
  const shown = new Shown();
  const suggestions = new Suggestions(shown, log);
  const server = new Client(context, log, shown, suggestions);
  client = server;
  const corrections = new Corrections(log);
  suggestions.quiet = (document) =>
    corrections.of(document).length > 0 || kept.busy === document.uri.toString();
  const open = (patchId: string) => void openReport(context, server, patchId);
  const outcomes = new Outcomes(server, log, open);
  const flags: Flags = new Flags(server, shown, corrections, outcomes, log, () => kept);
  const kept = new KeptFlags(context.globalState, server, log, (result, rejected) =>
    flags.sent(result, { id: "", text: rejected }),
  );
  const lenses = new Lenses(shown, corrections);
  flags.flagged = () => lenses.dismiss();
  const status = new Status(server, suggestions, log);
  const installer = new Installer(server, log);
  const batch = new Batch(server, outcomes, log);

  const commands: Record<string, (asked?: Asked) => unknown> = {
    "star-lsp.markWrong": (asked) => flags.mark(plain(asked)),
    "star-lsp.correctInPlace": (asked) => flags.inPlace(plain(asked)),
    "star-lsp.flagLast": (asked) => flags.last(plain(asked)),
    "star-lsp.submitCorrection": (asked) => flags.submit(plain(asked)),
    "star-lsp.cancelCorrection": (asked) => flags.cancel(plain(asked)),
    "star-lsp.dismissLens": () => lenses.dismiss(),
    "star-lsp.batchRepair": () => batch.run(),
    "star-lsp.why": () => tellWhy(server, suggestions, log),
    "star-lsp.pause": () => (suggestions.paused = true),
    "star-lsp.resume": () => (suggestions.paused = false),
    "star-lsp.restart": () => server.restart(true),
    "star-lsp.showLog": () => log.channel.show(),
    "star-lsp.settings": () =>
      vscode.commands.executeCommand("workbench.action.openSettings", `@ext:${context.extension.id}`),
    "star-lsp.installServer": () => installer.run(),
    "star-lsp.menu": () => menu(server, suggestions, status),
  };
  context.subscriptions.push(
    log,
    suggestions,
    server,
    corrections,
    outcomes,
    kept,
    lenses,
    status,
    registerViews(context, server, open),
    registerReports(context, server),
    ...Object.entries(commands).map(([id, run]) => vscode.commands.registerCommand(id, run)),
    server.onAccepted((id) => {
      const taken = shown.get(id);
      const document = vscode.workspace.textDocuments.find((each) => each.uri.toString() === taken?.uri);
      if (taken && document) {
        shown.accept(id, eolOf(document));
        lenses.offer(id);
      }
    }),
    server.onFlagged(({ params, result }) => {
      const text = params.completionId === undefined ? "" : (shown.get(params.completionId)?.text ?? "");
      flags.sent(result, { id: params.completionId ?? "", text });
    }),
    vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
      if (contentChanges.length) {
        suggestions.typed(document, status.latest?.state);
        shown.edited(
          document.uri.toString(),
          contentChanges.map(({ rangeOffset, rangeLength, text }) => ({
            offset: rangeOffset,
            length: rangeLength,
            text,
          })),
        );
      }
    }),
    vscode.workspace.onDidRenameFiles(({ files }) =>
      files.forEach(({ oldUri, newUri }) => shown.renamed(oldUri.toString(), newUri.toString())),
    ),
    server.onDidChange(({ state }) => suggestions.came(state)),
    server.onDidChangeLife((life) => {
      void vscode.commands.executeCommand("setContext", "star-lsp.life", life);
      if (life === "missing") {
        installer.offer();
      }
    }),
  );
  // After the return: the editor counts what happens before it as the time that we cost.
  setImmediate(() => void server.start());
  // What the editor does by itself between loading us and this call is not ours.
  const took = Math.round(loaded - loading + performance.now() - start);
  log.channel.info(`activated in ${took} ms, ${Math.round(loaded - loading)} ms of it to load the code`);
}

export async function deactivate(): Promise<void> {
  await client?.stop();
}

/** What a command was given by a key binding or a lens; a menu of the editor gives a place instead. */
function plain(asked: unknown): Asked | undefined {
  const given = typeof asked === "object" && asked !== null ? (asked as Record<string, unknown>) : {};
  const { id, ghost } = given;
  return typeof id === "string" ? { id } : ghost === true ? { ghost } : undefined;
}
