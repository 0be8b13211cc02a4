/** The log, and messages; whoever reads of a failure can open the log from there. */

import * as vscode from "vscode";

/** A button of a message. */
export interface Action {
  readonly title: string;
  run(): unknown;
}

export class Log implements vscode.Disposable {
  readonly channel = vscode.window.createOutputChannel("STAR", { log: true });
  private level: "error" | "warn" | "info" | "debug" = "info";

  /** Tell of a failure; the sentence says what to do, the buttons do it. */
  fail(sentence: string, error?: unknown, ...actions: Action[]): void {
    this.channel.error(error === undefined ? sentence : `${sentence} (${detail(error)})`);
    void this.ask(vscode.window.showErrorMessage, sentence, [...actions, this.showing]);
  }

  /** Tell of something that went another way than was wished. */
  warn(sentence: string, ...actions: Action[]): void {
    this.channel.warn(sentence);
    void this.ask(vscode.window.showWarningMessage, sentence, [...actions, this.showing]);
  }

  /** Like `warn`, of something that may quote code: that never gets into the log. */
  notice(sentence: string, ...actions: Action[]): void {
    void this.ask(vscode.window.showWarningMessage, sentence, actions);
  }

  /** Tell of something that went well. */
  tell(sentence: string, ...actions: Action[]): void {
    void this.ask(vscode.window.showInformationMessage, sentence, actions);
  }

  /** A line that the server wrote to standard error. */
  server(line: string): void {
    // A traceback has no level of its own: it goes with the line above it.
    const level = /^\d{4}-\d\d-\d\d [\d:,]+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)/.exec(line);
    if (level) {
      this.level = LEVELS[level[1] as keyof typeof LEVELS];
    }
    this.channel[this.level](level ? (level[2] ?? "") : line);
  }

  readonly showing: Action = { title: vscode.l10n.t("Show log"), run: () => this.channel.show() };

  dispose(): void {
    this.channel.dispose();
  }

  private async ask(
    show: (sentence: string, ...titles: string[]) => Thenable<string | undefined>,
    sentence: string,
    actions: readonly Action[],
  ): Promise<void> {
    const chosen = await show(sentence, ...actions.map(({ title }) => title));
    try {
      await actions.find(({ title }) => title === chosen)?.run();
    } catch (error) {
      this.fail(message(error), error);
    }
  }
}

/** What an error says, for people. */
export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function detail(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const LEVELS = { DEBUG: "debug", INFO: "info", WARNING: "warn", ERROR: "error", CRITICAL: "error" } as const;
