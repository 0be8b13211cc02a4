import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import type { ExtensionContext } from "vscode";

import type { CaseInfo, DidChangeParams, PatchInfo, PatchReport } from "../src/protocol";
import { openReport, registerReports } from "../src/report";
import type { Star } from "../src/star";
import { registerViews } from "../src/view";
import type { CaseRow, GroupRow } from "../src/viewModel";
import { aCase, aPatch, aReport, COMPARISON } from "./fixtures";
import { aDocument, FakePanel, reset, seen, Uri } from "./vscode";

const CONTEXT = { extensionUri: Uri.parse("file:///ext") } as unknown as ExtensionContext;
const ALL: DidChangeParams = { what: ["cases", "patches"], state: "ready", revision: null };

/** A server of so many cases and patches that notes what it was asked. */
class FakeServer {
  cases: CaseInfo[] = [aCase({ id: "w", status: "pending", patchId: null }), aCase()];
  patches: PatchInfo[] = [aPatch()];
  report: PatchReport = aReport();
  failure: string | null = null;
  asked: unknown[][] = [];
  comparing: Promise<void> = Promise.resolve();
  private readonly listeners = new Set<(news: DidChangeParams) => void>();

  readonly star = new Proxy({} as Star, {
    get: (_, name: string) => {
      if (name === "onDidChange") {
        return (listener: (news: DidChangeParams) => void) => {
          this.listeners.add(listener);
          return { dispose: () => this.listeners.delete(listener) };
        };
      }
      return async (params?: unknown) => {
        this.asked.push([name, params]);
        if (this.failure !== null) throw new Error(this.failure);
        if (name === "cases") return this.cases;
        if (name === "patches") return this.patches;
        if (name === "showPatch") return this.report;
        if (name === "compare") {
          await this.comparing;
          return { comparison: COMPARISON };
        }
        return { revision: "r0", was: "solved", deleted: true, repairId: "q", cases: [] };
      };
    },
  });

  /** What was asked besides the lists. */
  get acts(): unknown[][] {
    return this.asked.filter(([name]) => !["cases", "patches", "showPatch"].includes(name as string));
  }

  tell(news: DidChangeParams): void {
    for (const each of this.listeners) each(news);
  }
}

let server: FakeServer;
let opened: string[];

beforeEach(() => {
  reset();
  server = new FakeServer();
  opened = [];
});

async function settle(): Promise<void> {
  for (let turns = 0; turns < 20; turns += 1) await new Promise((resolve) => setImmediate(resolve));
}

async function aView(): Promise<{ rows: CaseRow[]; groups: GroupRow[] }> {
  registerViews(CONTEXT, server.star, (id) => opened.push(id));
  await settle();
  const groups = seen.views.get("star-lsp.cases")!.provider.getChildren() as GroupRow[];
  return { groups, rows: groups.flatMap((each) => each.cases) };
}

const run = async (id: string, ...given: unknown[]): Promise<void> => {
  await seen.commands.get(`star-lsp.${id}`)!(...given);
  await settle();
};

test("the view shows cases and patches, and a badge of those that wait", async () => {
  const { groups } = await aView();
  assert.deepEqual(
    groups.map((each) => each.label),
    ["Pending", "Solved"],
  );
  const view = seen.views.get("star-lsp.cases")!;
  assert.deepEqual(view.badge, { value: 1, tooltip: "1 case waiting for a repair" });
  const item = view.provider.getTreeItem(groups[0]!.cases[0]!);
  assert.equal((item.command as { command: string }).command, "star-lsp.case.open");
  assert.deepEqual(seen.ran.at(-1), ["setContext", "star-lsp.listed", true]);
  assert.equal(seen.views.get("star-lsp.patches")!.provider.getChildren().length, 1);
});

test("a server that is away leaves what was seen, and says so; before the first answer nothing is claimed", async () => {
  server.failure = "The server is not running.";
  await aView();
  const view = seen.views.get("star-lsp.cases")!;
  assert.deepEqual([view.provider.getChildren(), view.message], [[], ""]);
  assert.deepEqual(seen.ran.at(-1), ["setContext", "star-lsp.listed", false]);
  mock.timers.enable({ apis: ["setTimeout"] });
  const news = async (): Promise<void> => {
    server.tell(ALL);
    server.tell(ALL);
    mock.timers.tick(200);
    await settle();
  };
  server.failure = null;
  server.asked.length = 0;
  await news();
  assert.equal(server.asked.length, 2); // one reading of each list for two pieces of news
  assert.equal(view.provider.getChildren().length, 2);
  server.failure = "It stopped.";
  await news();
  assert.equal(view.provider.getChildren().length, 2);
  assert.match(view.message!, /does not answer: It stopped\./);
  mock.timers.reset();
});

test("retry repairs the selected cases together, not from base", async () => {
  server.cases = [
    aCase({ id: "a", status: "failed" }),
    aCase({ id: "b", status: "failed" }),
    aCase({ id: "c", status: "solved" }),
  ];
  const { rows } = await aView();
  await run("case.retry", rows[0], rows);
  assert.deepEqual(server.acts, [["repairAll", { cases: ["a", "b"], fromBase: false }]]);
  await run("case.retry", rows[2]);
  assert.match(seen.told.at(-1)!, /Only a pending, failed or reverted case/);
  assert.equal(server.acts.length, 1);
});

test("delete asks first, and a group stands for its cases", async () => {
  server.cases = [aCase({ id: "a", status: "failed" }), aCase({ id: "b", status: "failed" })];
  const { groups } = await aView();
  await run("case.delete", groups[0]);
  assert.match(seen.told.at(-1)!, /^Delete 2 cases\? What was flagged/);
  assert.deepEqual(server.acts, []);
  seen.answers.push("Delete");
  await run("case.delete", groups[0]);
  assert.deepEqual(server.acts, [
    ["deleteCase", { caseId: "a" }],
    ["deleteCase", { caseId: "b" }],
  ]);
});

test("undoing a solved case asks first, and a failure says why, with the log", async () => {
  const { rows } = await aView();
  seen.answers.push("Undo flag");
  await run("case.undo", rows[1]);
  assert.deepEqual(server.acts, [["unflag", { caseId: "c1" }]]);
  server.failure = "A repair is under way; try again when it is done.";
  seen.answers.push("Revert", "Show log");
  await run("case.revert", rows[1]);
  assert.equal(seen.told.at(-1), server.failure);
  assert.deepEqual(seen.ran.at(-1), ["star-lsp.showLog"]);
});

test("the place of a case opens at the text that now stands there", async () => {
  const { rows } = await aView();
  const uri = aCase().uri!;
  seen.files.set(uri.replace("///", "/"), "\n".repeat(13) + "    return quantize(total, CENT)\n");
  await run("case.open", rows[1]);
  const { selection } = seen.opened.at(-1)!;
  assert.deepEqual(
    [selection!.start.line, selection!.start.character, selection!.end.character],
    [13, 11, 32],
  );
});

test("a case whose place is gone is shown itself, and says why", async () => {
  server.cases = [
    aCase({ id: "a" }),
    aCase({ id: "b", uri: "untitled:Untitled-1", patchId: null }),
    aCase({ id: "c", uri: null, position: null }),
    aCase({ id: "d", uri: "vscode-notebook-cell:/x.ipynb#W0" }),
  ];
  const { rows } = await aView();
  for (const row of rows) await run("case.open", row);
  assert.deepEqual(
    seen.told.map((each) => each.slice(0, 34)),
    [
      "prices.py was deleted, moved, or c",
      "Untitled-1 was never saved and is ",
      "This case has no file.",
      "x.ipynb was deleted, moved, or can",
    ],
  );
  assert.ok(seen.opened.every((each) => each.uri.startsWith("star-lsp-case:/case ")));
  const open = aDocument("untitled:Untitled-1", "x");
  seen.documents.push(open);
  await run("case.open", rows[1]);
  assert.equal(seen.opened.at(-1)!.uri, "untitled:Untitled-1");
});

test("a command that is called by name lets the developer choose a patch", async () => {
  await aView();
  await run("patch.report");
  assert.deepEqual(opened, ["p1"]);
  server.patches = [];
  await run("patch.revert");
  assert.match(seen.told.at(-1)!, /^No patch is active/);
});

test("a report is one page per patch, follows the patch, and ends with its panel", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const reports = registerReports(CONTEXT, server.star);
  await openReport(CONTEXT, server.star, "p1");
  await openReport(CONTEXT, server.star, "p1");
  assert.equal(seen.panels.length, 1);
  const [panel] = seen.panels as [FakePanel];
  assert.match(panel.last.body, /data-do="revert"/);
  assert.equal(panel.title, "Report: quantize(total, CENT)");
  server.report = aReport({ patch: aPatch({ active: false }) });
  server.tell(ALL);
  mock.timers.tick(200);
  await settle();
  assert.match(panel.last.body, /Not active/);
  assert.equal(panel.last.news, "This patch is no longer active.");
  panel.say({ does: "ready" });
  assert.match(panel.last.body, /Not active/);
  panel.dispose();
  server.tell(ALL);
  mock.timers.tick(200);
  await settle();
  reports.dispose();
  mock.timers.reset();
});

test("comparing shows that it runs, then what it found, and outlives a closed page", async () => {
  const reports = registerReports(CONTEXT, server.star);
  await openReport(CONTEXT, server.star, "p1");
  const [panel] = seen.panels as [FakePanel];
  let done = (): void => undefined;
  server.comparing = new Promise((resolve) => (done = resolve));
  panel.say({ does: "compare" });
  panel.say({ does: "compare" });
  await settle();
  assert.match(panel.last.body, /<progress/);
  assert.equal(server.acts.length, 1);
  done();
  await settle();
  assert.match(panel.last.body, /as expected now/);
  server.failure = "Busy.";
  panel.say({ does: "compare" });
  await settle();
  assert.match(panel.last.body, /It could not be compared: Busy\./);
  server.failure = null;
  server.comparing = new Promise((resolve) => (done = resolve));
  panel.say({ does: "compare" });
  panel.dispose();
  done();
  await settle();
  reports.dispose();
});

test("keep closes the page and says what stays; revert asks first; open leads to the place", async () => {
  await aView();
  const reports = registerReports(CONTEXT, server.star);
  await openReport(CONTEXT, server.star, "p1");
  const [panel] = seen.panels as [FakePanel];
  panel.say({ does: "open", caseId: "c1" });
  await settle();
  assert.match(seen.told.at(-1)!, /prices\.py was deleted/);
  seen.answers.push("Revert");
  panel.say({ does: "revert" });
  await settle();
  assert.deepEqual(server.acts, [["revert", { patchId: "p1" }]]);
  assert.match(seen.told.at(-1)!, /Patch p1 is reverted; the model is at revision r0\./);
  panel.say({ does: "keep" });
  await settle();
  assert.match(seen.told.at(-1)!, /^Thanks\. Patch p1 stays/);
  reports.dispose();
});

test("a report comes back after a reload, even before the server is up", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const reports = registerReports(CONTEXT, server.star);
  const { deserializeWebviewPanel } = seen.serializers.get("star-lsp.report")!;
  server.failure = "The server is not running.";
  const panel = new FakePanel();
  await deserializeWebviewPanel(panel, { patchId: "p1" });
  await settle();
  assert.match(panel.last.body, /The server is not running\.[^]*data-do="retry"/);
  server.failure = null;
  server.tell({ what: ["state"], state: "ready", revision: null });
  mock.timers.tick(200);
  await settle();
  assert.match(panel.last.body, /data-do="revert"/);
  assert.match(panel.webview.html, /script-src &#39;nonce-/);
  const odd = new FakePanel();
  await deserializeWebviewPanel(odd, undefined);
  await assert.rejects(odd.webview.postMessage({ body: "" }));
  reports.dispose();
  mock.timers.reset();
});
