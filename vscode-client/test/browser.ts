/// <reference lib="dom" />
/** A report in a real browser, as a webview of VS Code has it: its themes, its policy, its script interface. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { chromium, type Browser, type Page } from "playwright-core";

import { shellHtml } from "../src/reportHtml";
import { WORDS } from "./fixtures";
import { THEMES } from "./themes";

const MEDIA = join(process.cwd(), "media");
const ORIGIN = "https://webview.test";

/** Chromium, from `CHROMIUM` or where Debian puts it. */
export async function launch(): Promise<Browser> {
  const path = process.env.CHROMIUM ?? "/usr/bin/chromium";
  try {
    return await chromium.launch({
      executablePath: path,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
      ],
    });
  } catch (error) {
    throw new Error(
      `The tests of the report need Chromium: \`apt-get install chromium\`, or set CHROMIUM to one. ${String(error)}`,
    );
  }
}

export interface Look {
  theme: string;
  width?: number;
  height?: number;
  forcedColors?: "active" | "none";
  reducedMotion?: "reduce" | "no-preference";
  /** What the page kept from before a reload. */
  state?: object;
}

/** A page that shows a report; what it says to the extension is collected in `window.said`. */
export async function show(browser: Browser, body: string, look: Look): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width: look.width ?? 900, height: look.height ?? 800 },
    forcedColors: look.forcedColors ?? "none",
    reducedMotion: look.reducedMotion ?? "no-preference",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const vars = Object.entries(THEMES[look.theme]!).map(([name, value]) => `--vscode-${name}: ${value};`);
  const html = shellHtml({
    nonce: "bm9uY2U=",
    source: ORIGIN,
    style: `${ORIGIN}/report.css`,
    script: `${ORIGIN}/report.js`,
    title: "Report on a patch",
    patchId: "p1",
    words: WORDS,
  });
  await page.route(`${ORIGIN}/**`, async (route) => {
    const name = new URL(route.request().url()).pathname.slice(1);
    if (name === "theme.css") {
      await route.fulfill({ contentType: "text/css", body: `:root { ${vars.join("\n")} }` });
    } else if (name === "") {
      // VS Code puts the theme's variables, and its class, on the page from outside.
      const themed = html
        .replace("</head>", `<link rel="stylesheet" href="${ORIGIN}/theme.css"></head>`)
        .replace("<body", `<body class="${look.theme}"`);
      await route.fulfill({ contentType: "text/html", body: themed });
    } else {
      const type = name.endsWith(".css") ? "text/css" : "text/javascript";
      await route.fulfill({ contentType: type, body: readFileSync(join(MEDIA, name)) });
    }
  });
  await page.addInitScript((state) => {
    const here = window as unknown as { said: unknown[]; kept: unknown; acquireVsCodeApi: () => object };
    here.said = [];
    here.kept = state;
    here.acquireVsCodeApi = () => ({
      postMessage: (message: unknown) => here.said.push(message),
      getState: () => here.kept,
      setState: (kept: unknown) => (here.kept = JSON.parse(JSON.stringify(kept))),
    });
  }, look.state ?? null);
  await page.goto(`${ORIGIN}/`);
  await send(page, { body });
  return page;
}

/** Send the page what the extension would. */
export async function send(page: Page, message: object): Promise<void> {
  await page.evaluate((data) => window.dispatchEvent(new MessageEvent("message", { data })), message);
}

/** What the page has said to the extension so far. */
export async function said(page: Page): Promise<unknown[]> {
  return JSON.parse(
    await page.evaluate(() => JSON.stringify((window as unknown as { said: unknown[] }).said)),
  );
}
