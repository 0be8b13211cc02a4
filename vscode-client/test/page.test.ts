/** The report in Chromium: seen by axe, used by keyboard alone, in every kind of theme. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import type { AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";

import { failedBody, reportBody, waitingBody } from "../src/reportHtml";
import { launch, said, send, show, type Look } from "./browser";
import { aHostileReport, aPatch, aReport, COMPARISON, WORDS } from "./fixtures";
import { THEMES } from "./themes";

const NO = { state: "no" } as const;
const FULL = reportBody(aReport({ comparison: COMPARISON }), NO, WORDS);
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

let browser: Browser;
before(async () => {
  browser = await launch();
});
after(async () => {
  await browser?.close();
});

/** What axe finds wrong, in a line each. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE); // by the debugger, which the page's policy does not concern
  const { violations } = (await page.evaluate("axe.run()")) as AxeResults;
  return violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(" | ")}`);
}

async function seen(body: string, look: Look): Promise<Page> {
  const page = await show(browser, body, look);
  page.on("dialog", (dialog) => void dialog.dismiss());
  return page;
}

for (const theme of Object.keys(THEMES)) {
  test(`axe finds nothing wrong with a report in ${theme}`, async () => {
    const page = await seen(FULL, { theme });
    assert.deepEqual(await violations(page), []);
    await page.context().close();
  });
}

test("axe finds nothing wrong with a report that waits, failed, compares, ended, or is hostile", async () => {
  for (const body of [
    waitingBody(WORDS),
    failedBody("There is no patch p1.", WORDS),
    reportBody(aReport(), { state: "yes" }, WORDS),
    reportBody(aReport(), { state: "failed", reason: "A repair is under way." }, WORDS),
    reportBody(aReport({ patch: aPatch({ active: false }) }), NO, WORDS),
    reportBody(aHostileReport(), NO, WORDS),
  ]) {
    const page = await seen(body, { theme: "vscode-light", reducedMotion: "reduce" });
    assert.deepEqual(await violations(page), []);
    await page.context().close();
  }
});

test("nothing in a hostile report runs, and nothing is wider than a narrow page", async () => {
  for (const body of [reportBody(aHostileReport(), NO, WORDS), FULL]) {
    const page = await seen(body, { theme: "vscode-dark", width: 320 });
    let dialogs = 0;
    page.on("dialog", () => (dialogs += 1));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 320, `${wide} px`);
    assert.equal(dialogs, 0);
    assert.equal(await page.locator("#page script, #page img").count(), 0);
    await page.context().close();
  }
});

test("every button is reached and pressed by keyboard alone, with a focus that is seen", async () => {
  const page = await seen(FULL, { theme: "vscode-high-contrast" });
  const reached: string[] = [];
  for (let presses = 0; presses < 40; presses += 1) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => {
      const { id, tagName, parentElement } = document.activeElement!;
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement!);
      return { name: id || `${tagName} ${parentElement?.id}`, outline: `${outlineStyle} ${outlineWidth}` };
    });
    if (here.name.startsWith("BODY")) break;
    assert.equal(here.outline, "solid 2px", here.name);
    reached.push(here.name);
    if (here.name === "revert") await page.keyboard.press("Enter");
    if (here.name === "open-1") await page.keyboard.press("Space");
  }
  assert.deepEqual(reached, [
    "keep",
    "revert",
    "compare",
    "open-0",
    "open-1",
    ...[0, 1, 2, 3].map((at) => `head-${at}`),
  ]);
  assert.deepEqual(await said(page), [{ does: "ready" }, { does: "revert" }, { does: "open", caseId: "c2" }]);
  await page.context().close();
});

test("focus, folds and news outlive what is sent anew", async () => {
  const page = await seen(reportBody(aReport(), NO, WORDS), { theme: "vscode-dark" });
  await page.locator("#compare-here").focus();
  await page.keyboard.press("Enter");
  await send(page, { body: reportBody(aReport(), { state: "yes" }, WORDS), news: "Comparing …" });
  // Its button is gone while it runs: the focus goes to the other one that does the same.
  assert.equal(await page.evaluate(() => document.activeElement?.id), "compare");
  assert.equal(await page.locator("#news").textContent(), "Comparing …");
  await page.keyboard.press("Enter");
  await send(page, { body: FULL, forget: true });
  assert.equal(await page.evaluate(() => document.activeElement?.id), "compare");
  await page.locator("#place-0 summary").press("Enter");
  await send(page, { body: FULL });
  assert.equal(await page.locator("#place-0").getAttribute("open"), "");
  // Neither press while it ran counted.
  assert.deepEqual(await said(page), [{ does: "ready" }, { does: "compare" }]);
  await page.context().close();
});

test("a page that comes back is where it was", async () => {
  const state = { patchId: "p1", scroll: 300, folds: { "place-0": true } };
  const page = await seen(FULL, { theme: "vscode-dark", state });
  assert.equal(await page.evaluate(() => window.scrollY), 300);
  assert.equal(await page.locator("#place-0").getAttribute("open"), "");
  await page.context().close();
});

test("colours of the system leave every bar and border seen", async () => {
  const page = await seen(FULL, { theme: "vscode-high-contrast", forcedColors: "active" });
  const [bar, back] = await page.evaluate(() => [
    getComputedStyle(document.querySelector(".bar")!).fill,
    getComputedStyle(document.body).backgroundColor,
  ]);
  assert.notEqual(bar, back);
  await page.context().close();
});
