/** Installs the server where there is none: by uv, by pipx, or in a Python environment of our own. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import * as path from "node:path";
import { createInterface } from "node:readline";

import * as vscode from "vscode";

import { type Client, disk } from "./client";
import { type Log, message } from "./log";
import { binOf, environment, type Places, program } from "./server";
import { SECTION, setting } from "./settings";

interface Way extends vscode.QuickPickItem {
  run(): Promise<boolean>;
}

/** A command line of which the outcome alone counts. */
interface Step {
  readonly title: string;
  readonly command: string;
  readonly args: readonly string[];
}

const OLDEST = [3, 11];

export class Installer {
  constructor(
    private readonly client: Client,
    private readonly log: Log,
  ) {}

  /** Say that there is no server, and offer to install it. */
  offer(): void {
    this.log.warn(
      vscode.l10n.t("STAR needs its server, star-lsp, to make completions: {0}", this.client.reason),
      { title: vscode.l10n.t("Install the server"), run: () => this.run() },
      { title: vscode.l10n.t("I have it"), run: () => this.choose() },
    );
  }

  async run(): Promise<void> {
    const places = await this.client.places();
    const spec = setting("server.package", "star-lsp").trim();
    if (!spec || spec.startsWith("-")) {
      this.log.fail(
        vscode.l10n.t(
          "The setting star-lsp.server.package must name a package, a wheel or a folder, not “{0}”.",
          spec,
        ),
        undefined,
        this.settings("server.package"),
      );
      return;
    }
    const ways = await this.ways(places, spec);
    const chosen = await vscode.window.showQuickPick(ways, {
      title: vscode.l10n.t("Install the server ({0})", spec),
      placeHolder: vscode.l10n.t(
        "With PyTorch it takes a few minutes and one to a few GB; the model comes later",
      ),
      ignoreFocusOut: true,
      matchOnDetail: true,
    });
    if (!chosen) {
      return;
    }
    try {
      if (await chosen.run()) {
        await this.client.restart();
        if (this.client.life === "running") {
          this.log.tell(vscode.l10n.t("The server is installed and running. Its model is loaded next."));
        } else {
          this.log.warn(
            vscode.l10n.t("The server was installed but is not found: {0}", this.client.reason),
            this.settings("server.path"),
          );
        }
      }
    } catch (error) {
      this.log.fail(vscode.l10n.t("The server was not installed: {0}", message(error)), error, {
        title: vscode.l10n.t("Another way"),
        run: () => this.run(),
      });
    }
  }

  /** Have someone who has it show it. */
  async choose(): Promise<boolean> {
    const chosen = await vscode.window.showOpenDialog({
      title: vscode.l10n.t("The program star-lsp"),
      openLabel: vscode.l10n.t("Use it"),
    });
    const file = chosen?.[0]?.fsPath;
    if (!file) {
      return false;
    }
    // The server is started again by the change.
    await vscode.workspace
      .getConfiguration(SECTION)
      .update("server.path", file, vscode.ConfigurationTarget.Global);
    return false;
  }

  private async ways(places: Places, spec: string): Promise<Way[]> {
    const ways: Way[] = [];
    const uv = program("uv", places, disk);
    const pipx = program("pipx", places, disk);
    const python = await newest(places);
    if (uv) {
      ways.push({
        label: `$(package) uv tool install`,
        detail: uv,
        run: () =>
          this.steps([{ title: "uv tool install", command: uv, args: ["tool", "install", "--force", spec] }]),
      });
    }
    if (pipx) {
      ways.push({
        label: `$(package) pipx install`,
        detail: pipx,
        run: () => this.steps([{ title: "pipx install", command: pipx, args: ["install", "--force", spec] }]),
      });
    }
    if (python) {
      ways.push({
        label: `$(folder) ${vscode.l10n.t("A Python environment of the extension's own")}`,
        detail: places.own,
        run: () => this.own(places, python, spec),
      });
    }
    if (!ways.length) {
      ways.push({
        label: `$(warning) ${vscode.l10n.t("Neither uv nor pipx nor Python 3.11 is on PATH")}`,
        detail: vscode.l10n.t("Install one of them, start the editor again, and come back here."),
        run: () => Promise.resolve(false),
      });
    }
    ways.push({
      label: `$(file-binary) ${vscode.l10n.t("It is on this machine already…")}`,
      run: () => this.choose(),
    });
    return ways;
  }

  private async own(places: Places, python: string, spec: string): Promise<boolean> {
    mkdirSync(path.dirname(places.own), { recursive: true });
    const inside = path.join(
      binOf(places.own, places.platform),
      places.platform === "win32" ? "python.exe" : "python",
    );
    let done = false;
    try {
      done = await this.steps([
        {
          title: vscode.l10n.t("making the environment"),
          command: python,
          args: ["-m", "venv", "--clear", places.own],
        },
        {
          title: vscode.l10n.t("downloading and installing"),
          command: inside,
          args: ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", spec],
        },
      ]);
    } finally {
      if (!done) {
        rmSync(places.own, { recursive: true, force: true }); // half an environment would be found as a whole one
      }
    }
    return done;
  }

  /** Run steps one after another; false when they were cancelled. */
  private async steps(steps: readonly Step[]): Promise<boolean> {
    const title = vscode.l10n.t("Installing the STAR server");
    return vscode.window.withProgress(
      { location: vscode.ProgressLocation.Notification, title, cancellable: true },
      async (progress, token) => {
        for (const step of steps) {
          progress.report({ message: step.title });
          this.log.channel.info(`$ ${[step.command, ...step.args].join(" ")}`);
          await this.step(step, token, (line) =>
            progress.report({ message: `${step.title}: ${line.trim().slice(0, 80)}` }),
          );
          if (token.isCancellationRequested) {
            this.log.channel.info("Cancelled.");
            return false;
          }
        }
        return true;
      },
    );
  }

  private step(step: Step, token: vscode.CancellationToken, say: (line: string) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = spawn(step.command, step.args, {
        cwd: path.dirname(step.command),
        env: environment(process.env),
        // A group of its own, so that a cancel ends what it has started too.
        detached: process.platform !== "win32",
        windowsHide: true,
        stdio: ["ignore", "pipe", "pipe"],
      });
      const cancelling = token.onCancellationRequested(() => end(child));
      let last = "";
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          this.log.channel.info(line);
          last = line.trim() ? line : last;
          say(line);
        });
      }
      child.once("error", reject);
      child.once("close", (code) => {
        cancelling.dispose();
        if (code === 0 || token.isCancellationRequested) {
          resolve();
        } else {
          reject(new Error(vscode.l10n.t("{0} ended with {1}: {2}", step.title, String(code), last.trim())));
        }
      });
    });
  }

  private settings(name: string) {
    return {
      title: vscode.l10n.t("Open settings"),
      run: () => vscode.commands.executeCommand("workbench.action.openSettings", `${SECTION}.${name}`),
    };
  }
}

/** A Python that is new enough, by the names it goes by. */
async function newest(places: Places): Promise<string | undefined> {
  for (const name of ["python3.13", "python3.12", "python3.11", "python3", "python"]) {
    const python = program(name, places, disk);
    if (python && (await fits(python))) {
      return python;
    }
  }
  return undefined;
}

function fits(python: string): Promise<boolean> {
  const test = `import sys, venv, ensurepip; sys.exit(sys.version_info < (${OLDEST.join(", ")}))`;
  return new Promise((resolve) => {
    execFile(python, ["-I", "-c", test], { timeout: 10_000 }, (error) => resolve(!error));
  });
}

function end(child: ChildProcess): void {
  try {
    if (child.pid && process.platform !== "win32") {
      process.kill(-child.pid, "SIGTERM");
    } else {
      child.kill();
    }
  } catch {
    // It has ended by itself.
  }
}
