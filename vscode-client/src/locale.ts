/** Words as this editor wants them. */

import * as vscode from "vscode";

import type { Words } from "./words";

/** Words of now; not to be kept, for they know the time. */
export function words(): Words {
  return {
    t: (sentence, ...fill) => vscode.l10n.t(sentence, ...fill),
    language: vscode.env.language,
    now: Date.now(),
  };
}
