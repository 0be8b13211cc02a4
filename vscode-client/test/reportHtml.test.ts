import assert from "node:assert/strict";
import { test } from "node:test";

import { failedBody, judged, reportBody, reportTitle, shellHtml } from "../src/reportHtml";
import { aHostileReport, aPatch, aReport, COMPARISON, HOSTILE, VERDICT, WORDS } from "./fixtures";

const NO = { state: "no" } as const;

test("a report tells the cases before and after, what moved, and the gate against its limits", () => {
  const html = reportBody(aReport({ comparison: COMPARISON }), NO, WORDS);
  for (const part of [
    '<del><bdi dir="ltr">round(total, 2)</bdi></del>',
    '<ins><bdi dir="ltr">quantize(total, CENT)</bdi></ins>',
    "The model now writes what is expected.",
    "98.7%",
    "≥ 95.0%",
    "≤ 0.05",
    "14 of 14",
    "1 of 14 accepted completions would change; mean KL 0.081, at most 0.05 allowed",
    "8 of 4864",
    "#977 by 0.91",
    "86.5 kB",
    "5 steps",
    'data-do="revert"',
    'data-do="keep"',
    'data-case="c1"',
  ]) {
    assert.ok(html.includes(part), part);
  }
});

test("what is compared reads as it should be or not", () => {
  const says = COMPARISON.map((each) => judged(each, WORDS));
  assert.deepEqual(
    says.map((each) => [each.good, each.says]),
    [
      [true, "as expected now"],
      [true, "as expected now"],
      [true, "as expected now"],
      [false, "not as expected"],
      [true, "unchanged"],
      [false, "changed"],
    ],
  );
});

test("comparing is offered, shown while it runs, and says why it failed", () => {
  assert.match(reportBody(aReport(), NO, WORDS), /data-do="compare" id="compare-here">Compare</);
  const busy = reportBody(aReport(), { state: "yes" }, WORDS);
  assert.match(busy, /<progress aria-label="Comparing …">/);
  assert.match(busy, /aria-disabled="true">Comparing …/);
  const failed = reportBody(aReport(), { state: "failed", reason: "A <repair> is under way." }, WORDS);
  assert.match(failed, /It could not be compared: A &lt;repair&gt; is under way\./);
  assert.match(failedBody("Gone.", WORDS), /data-do="retry"/);
});

test("a patch that is not active can be neither reverted nor compared", () => {
  const html = reportBody(aReport({ patch: aPatch({ active: false }) }), NO, WORDS);
  assert.match(html, /Not active/);
  assert.doesNotMatch(html, /data-do="(revert|compare)"/);
});

test("a report with next to nothing in it still shows", () => {
  const html = reportBody(
    {
      patch: aPatch({ verdict: null, cases: [], revision: null }),
      cases: [],
      depth: 0,
      layers: [],
      bytes: 0,
      comparison: [],
    },
    NO,
    WORDS,
  );
  assert.match(html, /This patch has no verdict\./);
  assert.match(html, /The cases of this patch have been deleted\./);
  assert.doesNotMatch(html, /NaN|undefined|Infinity/);
});

test("no text gets out of where it is put", () => {
  const html = reportBody(aHostileReport(), NO, WORDS) + failedBody(HOSTILE.join(), WORDS);
  const read = html.replace(/ data-case="[^"]*"/g, ""); // an id is never read by people
  assert.ok(!/<(script|img)\b/i.test(html));
  assert.equal(/[\u0000-\u0008\u202a-\u202e\u2066-\u2069]/.exec(read), null);
  const tags = html.match(/<[a-z][^>]*>/g)!;
  for (const tag of tags) assert.match(tag, /^<[a-z0-9]+( [a-z-]+="[^"<>]*")*( open)?\/?>$/, tag);
});

test("the page around a report allows nothing but its own style and script", () => {
  const html = shellHtml({
    nonce: "n0",
    source: "https://w",
    style: 'https://w/"><script>',
    script: "https://w/s.js",
    title: "</title><script>",
    patchId: '"><img>',
    words: WORDS,
  });
  assert.match(html, /default-src &#39;none&#39;; style-src https:\/\/w; script-src &#39;nonce-n0&#39;"/);
  assert.equal(html.match(/<script/g)!.length, 1);
  assert.doesNotMatch(html, /<img|style="|unsafe/);
});

test("the many cases of a batch fold away behind the first", () => {
  const [one] = aReport().cases;
  const cases = Array.from({ length: 30 }, (_, at) => ({ ...one!, case: { ...one!.case, id: `c${at}` } }));
  const html = reportBody(aReport({ cases }), NO, WORDS);
  assert.match(html, /<details id="more-cases"><summary id="more">26 more cases/);
  assert.match(html, /<small>and 29 more<\/small><\/h1>/);
  assert.equal(reportTitle(aReport({ cases }), WORDS), "Report: quantize(total, CENT)");
});

test("a plot has a bar for each moved layer, and labels only where they have room", () => {
  const layers = Array.from({ length: 24 }, (_, layer) => ({
    layer,
    neurons: 1,
    width: 9,
    norm: layer + 1,
    most: [],
  }));
  const html = reportBody(aReport({ layers }), NO, WORDS);
  assert.equal(html.match(/class="bar"/g)!.length, 24);
  const labels = [...html.matchAll(/<text x="([\d.]+)%" y="131"/g)].map((each) => Number(each[1]));
  assert.ok(labels.length >= 12);
  assert.ok(VERDICT.layers.length);
});
