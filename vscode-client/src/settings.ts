/** Settings as package.json declares them: those of the server, and our own. */

import * as vscode from "vscode";

export const SECTION = "star-lsp";

/** Groups that the server knows nothing of. */
const OURS = ["server.", "editor.", "trace."];

/** What the server is told, by dotted name; it fills in nothing by itself that package.json has. */
export function forServer(extension: vscode.Extension<unknown>): Record<string, unknown> {
  const declared = (extension.packageJSON as { contributes: { configuration: Declared | Declared[] } })
    .contributes;
  const names = [declared.configuration]
    .flat()
    .flatMap(({ properties }) => Object.keys(properties))
    .map((name) => name.slice(SECTION.length + 1))
    .filter((name) => !OURS.some((group) => name.startsWith(group)));
  const all = vscode.workspace.getConfiguration(SECTION);
  return { [SECTION]: Object.fromEntries(names.map((name) => [name, all.get(name)])) };
}

interface Declared {
  properties: Record<string, unknown>;
}

/** One of our own, or one of the server's that we heed too. */
export function setting<T>(name: string, otherwise: T): T {
  return vscode.workspace.getConfiguration(SECTION).get<T>(name, otherwise);
}
