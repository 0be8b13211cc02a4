/**
 * Flags that the server could not take: it was not running, or has been started again since and remembers
 * nothing of what it showed. They outlive the window, and are flagged when a server is there.
 *
 * A flag names a completion that the server gave. One that it has forgotten is asked for once more, for
 * which the server is given the text of the document as it was then, and right after as it is.
 */

import * as vscode from "vscode";

import { type Client, Gone } from "./client";
import { type Log, message } from "./log";
import type { CaseInfo, FlagResult, ServerState } from "./protocol";
import { Queue } from "./queue";
import type { Completion } from "./shown";

interface Kept {
  readonly uri: string;
  readonly line: number;
  readonly language: string;
  readonly prefix: string;
  readonly suffix: string;
  readonly rejected: string;
  readonly expected: string;
}

const KEY = "star-lsp.kept";
const SERVING: readonly ServerState[] = ["ready", "repairing"];

export class KeptFlags implements vscode.Disposable {
  private readonly queue = new Queue();
  private readonly subscription: { dispose(): void };
  /** The document of which the server has an earlier text for the moment. */
  busy: string | undefined;

  constructor(
    private readonly memory: vscode.Memento,
    private readonly client: Client,
    private readonly log: Log,
    private readonly flagged: (result: FlagResult, rejected: string) => void,
  ) {
    this.subscription = client.onDidChange(({ state }) => {
      if (SERVING.includes(state) && this.all().length) {
        void this.queue.once("deliver", () => this.deliver());
      }
    });
  }

  dispose(): void {
    this.subscription.dispose();
  }

  /** Keep one on disk until a server takes it. */
  async keep(completion: Completion, expected: string): Promise<void> {
    const { uri, text: rejected, around } = completion;
    const kept: Kept = { uri, ...around, rejected, expected };
    await this.memory.update(KEY, [...this.all(), kept]);
    if (this.client.life === "running") {
      void this.queue.once("deliver", () => this.deliver());
    }
  }

  private all(): Kept[] {
    return this.memory.get<Kept[]>(KEY, []);
  }

  private async deliver(): Promise<void> {
    for (const kept of this.all()) {
      try {
        if (!SERVING.includes((await this.client.status()).state)) {
          return;
        }
        const known = await this.known(kept);
        const result = known ? { caseId: known.id, status: known.status } : await this.again(kept);
        if (result) {
          this.flagged(result, kept.rejected);
        } else {
          this.log.tell(
            vscode.l10n.t(
              "The completion that you flagged while the server was away is not suggested any more.",
            ),
          );
        }
      } catch (error) {
        if (error instanceof Gone || this.client.life !== "running") {
          return; // it is tried again
        }
        this.log.fail(
          vscode.l10n.t("A flag that was kept could not be delivered: {0}", message(error)),
          error,
          {
            title: vscode.l10n.t("Copy the right code"),
            run: () => vscode.env.clipboard.writeText(kept.expected),
          },
        );
      }
      await this.memory.update(
        KEY,
        this.all().filter((each) => JSON.stringify(each) !== JSON.stringify(kept)),
      );
    }
  }

  /** The case that it became after all: in another window, or just before the server stopped. */
  private async known(kept: Kept): Promise<CaseInfo | undefined> {
    const all = await this.client.cases();
    return all.find(
      ({ uri, rejected, expected }) =>
        uri === kept.uri && rejected === kept.rejected && expected === kept.expected.trimEnd(),
    );
  }

  /** Have it suggested once more, and flag that; undefined when something else is suggested that is right. */
  private async again(kept: Kept): Promise<FlagResult | undefined> {
    const { uri } = kept;
    const open = () => vscode.workspace.textDocuments.find((each) => each.uri.toString() === uri);
    const opened = open();
    const lines = kept.prefix.split("\n");
    // Of a long document the beginning was not kept; the place is to be on its line all the same.
    const above = "\n".repeat(Math.max(0, kept.line - (lines.length - 1)));
    const position = {
      line: above.length + lines.length - 1,
      character: lines.at(-1)?.replace(/\r$/, "").length ?? 0,
    };
    const document = { uri, languageId: kept.language, version: 0, text: above + kept.prefix + kept.suffix };
    this.busy = uri;
    if (opened) {
      await this.client.notify("textDocument/didClose", { textDocument: { uri } });
    }
    await this.client.notify("textDocument/didOpen", { textDocument: document });
    try {
      const given = await this.client.request<Given | null>("textDocument/inlineCompletion", {
        textDocument: { uri },
        position,
        context: { triggerKind: 1 },
      });
      const item = given?.items[0];
      const completionId = item?.command?.arguments?.[0]?.completionId;
      if (!item || !completionId || item.insertText === kept.expected.trimEnd()) {
        return undefined;
      }
      return await this.client.flag({ completionId, expected: kept.expected });
    } finally {
      this.busy = undefined;
      const now = open();
      const closing = !opened || now; // what was closed meanwhile, the library has closed
      await Promise.all([
        closing && this.client.notify("textDocument/didClose", { textDocument: { uri } }),
        now && this.client.notify("textDocument/didOpen", { textDocument: synced(now) }),
      ]);
    }
  }
}

/** A document as the library has told the server of it. */
function synced(document: vscode.TextDocument) {
  const { languageId, version } = document;
  return { uri: document.uri.toString(), languageId, version, text: document.getText() };
}

interface Given {
  items: { insertText: string; command?: { arguments?: { completionId?: string }[] } }[];
}
