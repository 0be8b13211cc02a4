/** The server's life: found, started, stopped and started again, one after another; and its commands. */

import { accessSync, constants, mkdirSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";

import * as vscode from "vscode";

import { type Log, message } from "./log";
import * as p from "./protocol";
import { Crashes, Queue } from "./queue";
import { type Disk, find, type Found, type Places, type Search } from "./server";
import { forServer, SECTION, setting } from "./settings";
import type { Shown } from "./shown";
import type { Star, Subscription } from "./star";
import type { Suggestions } from "./suggest";
import type { Progress, Wire } from "./wire";

/** Whether there is a server to talk to; `missing` is none on this machine, `broken` one that does not start. */
export type Life = "stopped" | "missing" | "starting" | "running" | "broken";

/** Codes of the library for a connection that is closed, or ended while something was sent or awaited. */
const LOST: readonly number[] = [1, 2, 3, -32099, -32098, -32097, -32096];

/** There was no server to answer, or it stopped meanwhile. */
export class Gone extends Error {
  constructor(cause: unknown) {
    super(vscode.l10n.t("The STAR server stopped while it was asked. Try again when it is back."), { cause });
  }
}

export const disk: Disk = {
  runnable(file) {
    try {
      accessSync(file, constants.X_OK);
      return statSync(file).isFile();
    } catch {
      return false;
    }
  },
  real(file) {
    try {
      return realpathSync.native(file);
    } catch {
      return file;
    }
  },
};

export class Client implements Star, vscode.Disposable {
  private wire: Wire | undefined;
  private readonly queue = new Queue();
  private readonly crashes = new Crashes();
  private readonly lives = new vscode.EventEmitter<Life>();
  private readonly works = new vscode.EventEmitter<Progress>();
  private readonly news = new vscode.EventEmitter<p.DidChangeParams>();
  private readonly accepts = new vscode.EventEmitter<string>();
  private readonly flags = new vscode.EventEmitter<{ params: p.FlagParams; result: p.FlagResult }>();
  private readonly disposables: vscode.Disposable[] = [];
  private current: Life = "stopped";
  private closing = false;
  private found: Found | undefined;
  /** Why there is no server, in a sentence. */
  reason = "";

  readonly onDidChangeLife = this.lives.event;
  readonly onProgress = this.works.event;
  /** A completion was accepted in the editor; its id. */
  readonly onAccepted = this.accepts.event;
  /** A completion was flagged by a command of the server's, as code actions do. */
  readonly onFlagged = this.flags.event;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly log: Log,
    private readonly shown: Shown,
    private readonly suggestions: Suggestions,
  ) {
    this.disposables.push(
      vscode.workspace.onDidChangeConfiguration((event) => this.configured(event)),
      vscode.workspace.onDidGrantWorkspaceTrust(() => this.look()),
      vscode.workspace.onDidChangeWorkspaceFolders(() => this.look()),
    );
  }

  get life(): Life {
    return this.current;
  }

  get pid(): number | undefined {
    return this.wire?.pid;
  }

  /** Start the server if none runs. */
  start(): Promise<void> {
    return this.queue.once("start", () => this.up());
  }

  /** Leave the server and join it, or another one, wherever it is by now; `anew`: end it for all editors first. */
  restart(anew = false): Promise<void> {
    this.crashes.clear();
    return this.queue.once("restart", async () => {
      if (anew) {
        await this.wire?.request(p.Control.stop, {}).catch(() => undefined); // it may be that it no longer answers
      }
      await this.down();
      await this.up();
    });
  }

  stop(): Promise<void> {
    this.closing = true;
    return this.queue.run(() => this.down());
  }

  dispose(): void {
    for (const each of [...this.disposables, this.lives, this.works, this.news, this.accepts, this.flags]) {
      each.dispose();
    }
  }

  // -- the server's commands ---------------------------------------------------------------------------

  flag = (params: p.FlagParams) => this.ask<p.FlagResult>(p.Command.flag, params);
  unflag = (params: p.UnflagParams) => this.ask<p.UnflagResult>(p.Command.unflag, params);
  repairAll = (params: p.RepairAllParams) => this.ask<p.RepairAllResult>(p.Command.repairAll, params);
  cancelRepair = (params: p.CancelRepairParams) =>
    this.ask<p.CancelRepairResult>(p.Command.cancelRepair, params);
  estimate = (params: p.EstimateParams) => this.ask<p.EstimateResult>(p.Command.estimate, params);
  cases = (params: p.ListCasesParams = {}) => this.ask<p.CaseInfo[]>(p.Command.listCases, params);
  deleteCase = (params: p.DeleteCaseParams) => this.ask<p.DeleteCaseResult>(p.Command.deleteCase, params);
  patches = () => this.ask<p.PatchInfo[]>(p.Command.listPatches, {});
  showPatch = (params: p.ShowPatchParams) => this.ask<p.PatchReport>(p.Command.showPatch, params);
  compare = (params: p.CompareParams) => this.ask<p.CompareResult>(p.Command.compare, params);
  revert = (params: p.RevertParams) => this.ask<p.RevertResult>(p.Command.revert, params);
  why = (params: p.WhyParams = {}) => this.ask<p.Nothing[]>(p.Command.why, params);
  status = () => this.ask<p.StatusResult>(p.Command.status, {});

  onDidChange(listener: (news: p.DidChangeParams) => void): Subscription {
    return this.news.event(listener);
  }

  /** A request beside our commands; what is sent this way is not followed by the library. */
  async request<T>(method: string, params: unknown): Promise<T> {
    return (await this.connected().request(method, params)) as T;
  }

  async notify(method: string, params: unknown): Promise<void> {
    await this.connected().notify(method, params);
  }

  private async ask<T>(command: string, params: unknown): Promise<T> {
    if (this.current === "starting") {
      await this.queue.run(() => Promise.resolve()); // it is on its way
    }
    const wire = this.connected();
    try {
      return (await wire.execute(command, params)) as T;
    } catch (error) {
      // What the server refuses has a code of the protocol's; all else means that there was none to answer.
      const { code } = error as { code?: unknown };
      if (this.wire !== wire || typeof code !== "number" || LOST.includes(code)) {
        throw new Gone(error);
      }
      throw error instanceof Error ? error : new Error(message(error));
    }
  }

  private connected(): Wire {
    if (!this.wire || this.current !== "running") {
      const how = this.reason || vscode.l10n.t("Run the command “STAR: Restart the server”.");
      throw new Error(vscode.l10n.t("The STAR server is not running. {0}", how));
    }
    return this.wire;
  }

  // -- up and down -------------------------------------------------------------------------------------

  /** Where the server and the programs that install it are looked for. */
  async places(): Promise<Places> {
    const workspace = (vscode.workspace.workspaceFolders ?? []).map(({ uri }) => uri);
    return {
      platform: process.platform,
      setting: setting("server.path", ""),
      python: vscode.workspace.isTrusted ? await this.python() : undefined,
      path: process.env["PATH"] ?? "",
      home: homedir(),
      own: vscode.Uri.joinPath(this.context.globalStorageUri, "server").fsPath,
      workspace: workspace.filter(({ scheme }) => scheme === "file").map(({ fsPath }) => fsPath),
      trusted: vscode.workspace.isTrusted,
    };
  }

  private async up(): Promise<void> {
    if (this.current === "running" || this.closing) {
      return;
    }
    this.to("starting", "");
    this.found ??= await this.search();
    if (!this.found) {
      return;
    }
    const { command, from } = this.found;
    this.log.channel.info(`Starting the server ${command} (found by ${from}).`);
    const { Wire } = await import("./wire.js");
    const folder = this.context.globalStorageUri.fsPath;
    mkdirSync(folder, { recursive: true });
    const { log, suggestions } = this;
    const wire: Wire = new Wire({
      command,
      folder,
      settings: () => forServer(this.context.extension),
      log,
      suggestions,
      listener: {
        changed: (news) => this.news.fire(news),
        progress: (now) => this.works.fire(now),
        said: (kind, sentence) => this.said(kind, sentence),
        command: (name, args, run) => this.ran(name, args, run),
        closed: () => this.lost(wire),
      },
    });
    this.wire = wire;
    try {
      await wire.start();
    } catch (error) {
      await wire.stop();
      this.wire = undefined;
      this.found = undefined;
      this.to("broken", vscode.l10n.t("{0} does not start: {1}", command, message(error)));
      this.log.fail(
        vscode.l10n.t("The STAR server does not start: {0} (the log may tell more).", message(error)),
        error,
        { title: vscode.l10n.t("Try again"), run: () => this.restart() },
      );
      return;
    }
    this.to("running", "");
    this.news.fire({ what: ["cases", "patches", "revision", "state"], state: "loading", revision: null });
  }

  private async search(): Promise<Found | undefined> {
    const search = find(await this.places(), disk);
    for (const { place, why } of search.skipped) {
      this.log.channel.info(`Not used as the server: ${place || "an empty entry of PATH"} (${why}).`);
    }
    if (!search.found) {
      this.to("missing", this.whyMissing(search));
    }
    return search.found;
  }

  private async down(): Promise<void> {
    const { wire } = this;
    this.wire = undefined;
    this.found = undefined; // it may be elsewhere by now
    this.to("stopped", "");
    this.shown.forgotten();
    await wire?.stop();
  }

  private lost(wire: Wire): void {
    if (this.wire !== wire || this.closing) {
      return;
    }
    this.wire = undefined;
    this.shown.forgotten();
    const wait = this.crashes.add(Date.now());
    if (wait === undefined) {
      this.to("broken", vscode.l10n.t("It stopped unexpectedly six times in three minutes."));
      this.log.fail(
        vscode.l10n.t("The STAR server keeps stopping unexpectedly, so it was not started again."),
        undefined,
        {
          title: vscode.l10n.t("Start again"),
          run: () => this.restart(),
        },
      );
      return;
    }
    this.to("starting", "");
    this.log.warn(
      vscode.l10n.t("The STAR server stopped unexpectedly and is being started again. No case is lost."),
    );
    void this.queue.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, wait));
      await this.up();
    });
  }

  private to(life: Life, reason: string): void {
    this.reason = reason;
    this.current = life;
    if (!this.closing) {
      this.lives.fire(life);
    }
  }

  private whyMissing({ skipped }: Search): string {
    const path = setting("server.path", "");
    const [first] = skipped;
    if (path && first?.why === "workspace") {
      return vscode.l10n.t("{0} is in this workspace, which is not trusted.", path);
    }
    if (path && first?.why === "relative") {
      return vscode.l10n.t("The setting star-lsp.server.path must be a full path, not {0}.", path);
    }
    return path
      ? vscode.l10n.t("The setting star-lsp.server.path names {0}, which is no program.", path)
      : vscode.l10n.t("Run the command “STAR: Install the server”.");
  }

  // -- what changes around it --------------------------------------------------------------------------

  private configured(event: vscode.ConfigurationChangeEvent): void {
    const of = (name: string) => event.affectsConfiguration(`${SECTION}.${name}`);
    if (of("server.path")) {
      void this.restart();
    } else if (of("model") && this.current === "running") {
      void this.restart(); // a server serves one model
    } else if (event.affectsConfiguration(SECTION) && this.current === "running") {
      void this.notify("workspace/didChangeConfiguration", { settings: forServer(this.context.extension) });
    }
  }

  /** Something changed that may bring a server where there was none, or another environment. */
  private look(): void {
    if (this.current === "missing" || this.found?.from === "python") {
      void this.restart();
    } else if (this.found?.from !== "setting") {
      void this.places().then(async (places) => {
        if (find(places, disk).found?.from === "python") {
          await this.restart();
        }
      });
    }
  }

  private async python(): Promise<string | undefined> {
    const extension = vscode.extensions.getExtension<PythonExtension>("ms-python.python");
    if (!extension) {
      return undefined;
    }
    try {
      const api = await within(5000, extension.activate());
      const environments = api?.environments;
      if (!environments) {
        return undefined;
      }
      if (!this.listening) {
        this.listening = true;
        this.disposables.push(environments.onDidChangeActiveEnvironmentPath(() => this.look()));
      }
      const folder = vscode.workspace.workspaceFolders?.[0]?.uri;
      const found = await within(
        5000,
        environments.resolveEnvironment(environments.getActiveEnvironmentPath(folder)),
      );
      return found?.executable.uri?.fsPath;
    } catch (error) {
      this.log.channel.info(`The Python extension did not tell its environment: ${message(error)}`);
      return undefined;
    }
  }

  private listening = false;

  // -- what the server has us do -----------------------------------------------------------------------

  private said(kind: "error" | "warning" | "info", sentence: string): void {
    if (kind === "info") {
      this.log.tell(sentence);
    } else if (kind === "warning") {
      this.log.warn(sentence);
    } else {
      this.log.fail(sentence);
    }
  }

  private async ran(name: string, args: unknown[], run: () => Promise<unknown>): Promise<unknown> {
    const given = args[0] as p.FlagParams & Partial<p.AcceptParams>;
    try {
      if (name === p.Command.accept && typeof given?.completionId === "string") {
        this.accepts.fire(given.completionId);
      }
      const result = await run();
      if (name === p.Command.flag) {
        this.flags.fire({ params: given, result: result as p.FlagResult });
      }
      return result;
    } catch (error) {
      if (name === p.Command.accept) {
        this.log.channel.warn(`An accepted completion was not told to the server: ${message(error)}`);
      } else {
        this.log.fail(message(error), error);
      }
      return undefined;
    }
  }
}

/** The part of the Python extension's API that we use. */
interface PythonExtension {
  environments?: {
    getActiveEnvironmentPath(resource?: vscode.Uri): { path: string };
    resolveEnvironment(of: { path: string }): Promise<{ executable: { uri?: vscode.Uri } } | undefined>;
    onDidChangeActiveEnvironmentPath: vscode.Event<unknown>;
  };
}

function within<T>(milliseconds: number, task: Thenable<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => resolve(undefined), milliseconds);
    task.then(
      (value) => (clearTimeout(late), resolve(value)),
      (error: unknown) => (clearTimeout(late), reject(error as Error)),
    );
  });
}
