import assert from "node:assert/strict";
import { test } from "node:test";

import { nearest } from "../src/nearest";
import { clipped, fileName, moment, percent, shown, size } from "../src/words";
import { WORDS } from "./fixtures";

test("a text of several lines is clipped to its first, and says that there is more", () => {
  assert.equal(clipped("  log.info(\n    'paid'\n)", 30), "log.info( …");
  assert.equal(clipped("x".repeat(50), 10), "xxxxxxxxx…");
  assert.equal(clipped("👩‍🚀".repeat(20), 4).endsWith("…"), true);
  assert.equal(clipped(" \n ", 10), "");
});

test("a text is never clipped within a letter beyond the BMP", () => {
  assert.equal(clipped("😀😀😀😀", 3), "😀😀…");
});

test("what could hide or turn a line around is shown by its code point", () => {
  assert.equal(shown("a\u202eb\u2066c\u0000d"), "a[U+202E]b[U+2066]c[U+0000]d");
  assert.equal(shown("tab\tand\nline stay"), "tab\tand\nline stay");
  assert.equal(shown("ad\u200dmin"), "ad[U+200D]min");
  assert.equal(shown("👩‍👩‍👧"), "👩‍👩‍👧");
});

test("a share that is not whole never reads as whole", () => {
  assert.equal(percent(0.9999, WORDS), "99.9%");
  assert.equal(percent(1, WORDS), "100.0%");
  assert.equal(percent(0.95, WORDS), "95.0%");
});

test("times of today show the hour, others the day, and nonsense itself", () => {
  assert.match(moment("2026-11-22T13:58:00Z", WORDS), /\d:\d\d/);
  assert.equal(moment("2026-11-02T13:58:00Z", WORDS), "Nov 2");
  assert.equal(moment("2025-11-02T13:58:00Z", WORDS), "Nov 2, 2025");
  assert.equal(moment("then", WORDS), "then");
});

test("sizes and file names are readable", () => {
  assert.equal(size(86_544, WORDS), "86.5 kB");
  assert.equal(size(2_340_000, WORDS), "2.3 MB");
  assert.equal(fileName("file:///a/b%20c/d%C3%A9.py"), "dé.py");
  assert.equal(fileName("untitled:Untitled-1"), "Untitled-1");
  assert.equal(fileName("vscode-notebook-cell:/a/x.ipynb#W0sZmlsZQ%3D%3D"), "x.ipynb");
  assert.equal(fileName("file:///a/%zz.py"), "%zz.py");
});

test("a place is found again after other edits, the expected text first", () => {
  const text = "a = old()\n\n\nb = fresh()\nc = fresh()\n";
  assert.deepEqual(nearest(text, text.length, ["fresh()", "old()"]), [28, 35]);
  assert.deepEqual(nearest(text, 0, ["gone()", "old()\n"]), [4, 9]);
  assert.equal(nearest(text, 0, ["", "  ", "gone()"]), null);
});
