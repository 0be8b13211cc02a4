/** One connection to one server process. Loaded when the first is made: nothing else needs the library. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

import { CloseAction, ErrorAction, LanguageClient, RevealOutputChannelOn } from "vscode-languageclient/node";

import type { Log } from "./log";
import { type DidChangeParams, Notification } from "./protocol";
import { environment } from "./server";
import type { Suggestions } from "./suggest";

/** Long work of the server, as it begins, moves on and ends; `end` says what it came to. */
export interface Progress {
  readonly token: string;
  readonly kind: "begin" | "report" | "end";
  readonly title: string;
  readonly message: string;
  readonly percent: number;
}

/** What a connection tells by itself. */
export interface Listener {
  changed(news: DidChangeParams): void;
  progress(now: Progress): void;
  /** The server wants something read. */
  said(kind: "error" | "warning" | "info", sentence: string): void;
  /** A command of the server's is run by the editor: when a completion is accepted, from a code action. */
  command(name: string, args: unknown[], run: () => Promise<unknown>): Promise<unknown>;
  /** The server is gone without having been asked to go. */
  closed(): void;
}

export interface Options {
  readonly command: string;
  /** The folder in which it runs: never the workspace. */
  readonly folder: string;
  readonly settings: () => unknown;
  readonly log: Log;
  readonly suggestions: Suggestions;
  readonly listener: Listener;
}

/** Documents in which completions are offered: what people write, and nothing that is only shown. */
const SELECTOR = [
  "file",
  "untitled",
  "vscode-notebook-cell",
  "vscode-remote",
  "vscode-vfs",
  "vscode-userdata",
];

/** The library shows notifications of its own where it wants to; ours say what to do. */
class QuietClient extends LanguageClient {
  override error(text: string, data?: unknown): void {
    super.error(text, data, false);
  }
}

export class Wire {
  private child: ChildProcess | undefined;
  private readonly client: LanguageClient;
  private readonly titles = new Map<string, string>();
  private begun = false;

  constructor(private readonly options: Options) {
    const { log, listener, suggestions } = options;
    this.client = new QuietClient("star-lsp", "STAR", () => this.launch(), {
      documentSelector: SELECTOR.map((scheme) => ({ scheme })),
      outputChannel: log.channel,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      initializationOptions: options.settings,
      initializationFailedHandler: () => false,
      stdioOptions: {
        stdout: () => undefined, // the wire itself
        stderr: (input) => void createInterface({ input }).on("line", (line) => log.server(line)),
      },
      errorHandler: {
        error: (_error, _message, count) => ({
          action: (count ?? 0) <= 3 ? ErrorAction.Continue : ErrorAction.Shutdown,
          handled: true,
        }),
        closed: () => {
          if (this.begun) {
            this.begun = false;
            setImmediate(() => listener.closed());
          }
          return { action: CloseAction.DoNotRestart, handled: true, message: "The server is gone." };
        },
      },
      middleware: {
        provideInlineCompletionItems: suggestions.provide,
        executeCommand: (name, args, next) =>
          listener.command(name, args, async () => (await next(name, args)) as unknown),
        handleWorkDoneProgress: (token, params, next) => {
          const key = String(token);
          const now = { token: key, kind: params.kind, message: params.message ?? "" };
          if (params.kind === "begin") {
            this.titles.set(key, params.title);
          }
          const title = this.titles.get(key) ?? "";
          const percent = params.kind === "end" ? 100 : (params.percentage ?? 0);
          listener.progress({ ...now, title, percent });
          if (params.kind === "end") {
            this.titles.delete(key);
            next(token, params); // lets the library forget it; the status item is where it is drawn
          }
        },
      },
    });
    this.client.onNotification(Notification.didChange, (news: DidChangeParams) => listener.changed(news));
    this.client.onNotification("window/showMessage", (said: { type: number; message: string }) => {
      listener.said(said.type === 1 ? "error" : said.type === 2 ? "warning" : "info", said.message);
    });
  }

  /** Resolves when the server answers; rejects when it cannot be started. */
  async start(): Promise<void> {
    await this.client.start();
    this.begun = true;
  }

  /** Ends the server, by force if it does not listen. */
  async stop(): Promise<void> {
    this.begun = false;
    try {
      if (this.client.isRunning()) {
        await this.client.stop(3000);
      }
    } catch (error) {
      this.options.log.channel.warn(`The server did not stop by itself: ${String(error)}`);
    }
    await this.gone();
  }

  async execute(command: string, params: unknown): Promise<unknown> {
    return this.client.sendRequest("workspace/executeCommand", { command, arguments: [params] });
  }

  request(method: string, params: unknown): Promise<unknown> {
    return this.client.sendRequest(method, params);
  }

  notify(method: string, params: unknown): Promise<void> {
    return this.client.sendNotification(method, params);
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  private launch(): Promise<ChildProcess> {
    const { command, folder } = this.options;
    const child = spawn(command, ["--stdio"], {
      cwd: folder,
      env: { ...environment(process.env), PYTHONUTF8: "1", PYTHONUNBUFFERED: "1" },
      stdio: "pipe",
      windowsHide: true,
    });
    this.child = child;
    child.stdin.on("error", () => undefined); // a server that died is told of by `closed`
    child.once("exit", (code, signal) => {
      this.options.log.channel.info(`Server process ${child.pid} ended (${signal ?? code}).`);
    });
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("spawn", () => resolve(child));
    });
  }

  private gone(): Promise<void> {
    const { child } = this;
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const late = setTimeout(() => child.kill("SIGKILL"), 2000);
      child.once("exit", () => {
        clearTimeout(late);
        resolve();
      });
    });
  }
}
