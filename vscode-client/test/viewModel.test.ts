import assert from "node:assert/strict";
import { test } from "node:test";

import { caseText } from "../src/caseText";
import { readVerdict } from "../src/verdict";
import { caseGroups, escapeMarkdown, fenced, patchRows, pending, verdictLine } from "../src/viewModel";
import { aCase, aPatch, HOSTILE, VERDICT, WORDS } from "./fixtures";

test("cases are grouped by status, what needs the developer first, newest first in each", () => {
  const cases = [
    aCase({ id: "a", status: "solved" }),
    aCase({ id: "b", status: "pending", patchId: null, createdAt: "2026-11-20T10:00:00Z" }),
    aCase({ id: "c", status: "pending", patchId: null, createdAt: "2026-11-21T10:00:00Z" }),
    aCase({ id: "d", status: "repairing", patchId: null }),
    aCase({ id: "e", status: "failed", patchId: null, reason: "Too few steps." }),
    aCase({ id: "f", status: "reverted" }),
  ];
  const groups = caseGroups(cases, WORDS);
  assert.deepEqual(
    groups.map((each) => [each.label, each.description, each.open]),
    [
      ["Repairing", "1", true],
      ["Pending", "2", true],
      ["Failed", "1", true],
      ["Solved", "1", true],
      ["Reverted", "1", false],
    ],
  );
  assert.deepEqual(
    groups[1]!.cases.map((each) => each.case.id),
    ["c", "b"],
  );
  assert.equal(pending(cases), 2);
  assert.equal(new Set(groups.flatMap((each) => [each.id, ...each.cases.map((one) => one.id)])).size, 11);
});

test("a case of another model stands apart, can be repaired here, and is not as if this model had it", () => {
  const theirs = aCase({ id: "a", model: "smollm2-135m", elsewhere: true });
  const [group, ...rest] = caseGroups([theirs], WORDS);
  assert.deepEqual([group!.label, group!.context, rest], ["In another model", "group.elsewhere", []]);
  const [row] = group!.cases;
  assert.match(row!.description, / · smollm2-135m$/);
  assert.match(row!.tooltip, /It is a case of smollm2\\-135m; repair it to teach it to the model in use too/);
  assert.equal(row!.context, "case.elsewhere.patched");
  const [patch] = patchRows([aPatch({ id: theirs.patchId!, cases: ["a"], active: false })], [theirs], WORDS);
  assert.match(patch!.description, /^active in smollm2-135m · /);
  assert.equal(patch!.context, "patch.inactive");
  const [reverted] = caseGroups([{ ...theirs, status: "reverted" }], WORDS);
  assert.equal(reverted!.context, "group.reverted");
});

test("a case says what was wrong and right, where, and when", () => {
  const [row] = caseGroups([aCase()], WORDS)[0]!.cases;
  assert.equal(row!.label, "round(total, 2) → quantize(total, CEN…");
  assert.match(row!.description, /^python · prices\.py:12 · /);
  assert.equal(row!.context, "case.solved.patched");
  assert.match(row!.spoken, /^Solved: round\(total, 2\)/);
  assert.match(row!.tooltip, /```diff\n- round\(total, 2\)\n\+ quantize\(total, CENT\)\n```/);
});

test("a failed case says why, and one without file or text says so", () => {
  const failed = aCase({
    status: "failed",
    patchId: null,
    reason: "After 16 steps it still writes 'x'.",
    uri: null,
  });
  const [row] = caseGroups([{ ...failed, position: null, expected: "" }], WORDS)[0]!.cases;
  assert.match(row!.description, /After 16 steps/);
  assert.equal(row!.context, "case.failed");
  assert.equal(row!.label, "round(total, 2) → (nothing)");
});

test("no text of the developer's leaves the block or the line where a tooltip puts it", () => {
  for (const text of HOSTILE) {
    const [row] = caseGroups(
      [aCase({ rejected: text, expected: text, reason: text, uri: `file:///${text}` })],
      WORDS,
    )[0]!.cases;
    assert.doesNotMatch(row!.label, /[\n\r\u202a-\u202e\u2066-\u2069]/);
    const blocks = row!.tooltip.match(/^(`{3,})diff\n[^]*?\n\1$/m);
    assert.ok(blocks, row!.tooltip);
    assert.doesNotMatch(row!.tooltip.replace(blocks[0], ""), /(?<!\\)[<[`]/);
  }
  assert.equal(fenced("````", "py"), "`````py\n````\n`````");
  assert.equal(escapeMarkdown("[x](command:y)"), "\\[x\\]\\(command\\:y\\)");
});

test("patches are told newest first, by their number, with their verdict in one line", () => {
  const old = aPatch({ id: "p0", cases: ["gone"], active: false, verdict: {} });
  const rows = patchRows([old, aPatch()], [aCase()], WORDS);
  assert.deepEqual(
    rows.map((each) => [each.label, each.description, each.context]),
    [
      [
        "2 · round(total, 2) → quantize(total, CEN…",
        "2 cases · 98.7% unchanged · KL 0.0041 · layers 19, 20, 22",
        "patch.active",
      ],
      ["1 · Patch p0", "not active · 1 case · no verdict", "patch.inactive"],
    ],
  );
});

test("a verdict that lacks parts still tells the rest", () => {
  assert.equal(readVerdict(null), null);
  assert.equal(readVerdict({}), null);
  const odd = readVerdict({
    cases: "x",
    steps: "3",
    layers: [{ layer: 4 }, 5],
    gate: { kl: 1 },
    attempts: [null],
  })!;
  assert.deepEqual([odd.cases, odd.steps, odd.layers, odd.gate], [[], null, [4], null]);
  assert.equal(verdictLine(aPatch(), odd, WORDS), "2 cases · layer 4");
  const [tried] = readVerdict(VERDICT)!.attempts;
  assert.equal(tried!.settings, "ratio 0.25");
});

test("a case without a place reads as a page of its own", () => {
  const text = caseText({ case: aCase(), prefix: "return ", suffix: "\n" }, "prices.py was deleted.", WORDS);
  assert.match(text, /^# Case c1\n\n> prices\.py was deleted\./);
  assert.match(text, /```python\nreturn quantize\(total, CENT\)\n\n```/);
  assert.doesNotMatch(caseText({ case: aCase() }, "", WORDS), /in its place/);
});
