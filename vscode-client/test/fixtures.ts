/** Cases, patches and reports for tests: an everyday one, and one whose texts are hostile. */

import type { CaseInfo, Compared, PatchInfo, PatchReport } from "../src/protocol";
import { english, type Words } from "../src/words";

export const WORDS: Words = { t: english, language: "en", now: Date.parse("2026-11-22T15:00:00Z") };

export function aCase(given: Partial<CaseInfo> = {}): CaseInfo {
  return {
    id: "c1",
    status: "solved",
    language: "python",
    uri: "file:///home/ada/shop/prices.py",
    position: { line: 11, character: 11 },
    rejected: "round(total, 2)",
    expected: "quantize(total, CENT)",
    patchId: "p1",
    reason: null,
    createdAt: "2026-11-22T13:58:00Z",
    model: "qwen2.5-coder-0.5b",
    ...given,
  };
}

export const VERDICT = {
  cases: [
    {
      id: "c1",
      solved: true,
      before: "round(total, 2)",
      after: "quantize(total, CENT)",
      reason: null,
    },
    { id: "c2", solved: true, before: null, after: "log.info(\n    'paid', order=order.id\n)", reason: null },
  ],
  steps: 5,
  seconds: 8.42,
  exactBefore: 0,
  exactAfter: 2,
  sizeBytes: 86_544,
  layers: [
    { layer: 19, neurons: 3, norm: 0.41, largest: 0.02 },
    { layer: 20, neurons: 8, norm: 1.38, largest: 0.05 },
    { layer: 22, neurons: 12, norm: 0.87, largest: 0.04 },
  ],
  gate: {
    cases: 6,
    still_solved: 6,
    accepted: 14,
    accepted_unchanged: 14,
    positions: 812,
    unchanged: 0.9876,
    kl: 0.00412,
    limits: { min_unchanged: 0.95, max_kl: 0.05 },
    broken: [],
    reasons: [],
    passed: true,
  },
  method: { margin: 3, layers: "1/4", ratio: 0.125, steps: null },
  attempts: [
    {
      method: { margin: 3, layers: "1/4", ratio: 0.25 },
      steps: 3,
      solved: 2,
      cases: 2,
      passed: false,
      reasons: ["1 of 14 accepted completions would change", "mean KL 0.081, at most 0.05 allowed"],
    },
  ],
};

export function aPatch(given: Partial<PatchInfo> = {}): PatchInfo {
  return {
    id: "p1",
    base: "b1",
    cases: ["c1", "c2"],
    active: true,
    revision: "9f31c07a52be",
    createdAt: "2026-11-22T14:03:00Z",
    verdict: VERDICT,
    ...given,
  };
}

const PREFIX = `from decimal import Decimal

CENT = Decimal("0.01")


def price_of(order):
    """The price of an order, with tax."""
    total = Decimal(0)
    for item in order.items:
        total += item.price * item.count
    return `;
const SUFFIX =
  "\n\n\ndef receipt(order):\n    lines = []\n    for item in order.items:\n        lines.append(item)\n";
const LOG_PREFIX = "def pay(order):\n    order.paid = True\n    ";

export const COMPARISON: Compared[] = [
  {
    kind: "flagged",
    caseId: "c1",
    where: "where it was flagged",
    prefix: PREFIX,
    suffix: SUFFIX,
    expected: "quantize(total, CENT)",
    before: "round(total, 2)",
    after: "quantize(total, CENT)",
  },
  {
    kind: "flagged",
    caseId: "c2",
    where: "where it was flagged",
    prefix: LOG_PREFIX,
    suffix: "\n",
    expected: "log.info(\n    'paid', order=order.id\n)",
    before: "print('paid')",
    after: "log.info(\n    'paid', order=order.id\n)",
  },
  {
    kind: "sibling",
    caseId: "c1",
    where: "with other names: total is amount",
    prefix: PREFIX.replaceAll("total", "amount"),
    suffix: SUFFIX,
    expected: "quantize(amount, CENT)",
    before: "round(amount, 2)",
    after: "quantize(amount, CENT)",
  },
  {
    kind: "sibling",
    caseId: "c1",
    where: "without the lines above the function",
    prefix: "def price_of(order):\n    total = Decimal(0)\n    return ",
    suffix: "",
    expected: "quantize(total, CENT)",
    before: "total",
    after: "total * order.rate",
  },
  {
    kind: "neighbour",
    caseId: "c1",
    where: "the same file, 9 lines below",
    prefix: "def receipt(order):\n    lines = []\n    for item in ",
    suffix: ":\n        lines.append(item)\n",
    expected: null,
    before: "order.items",
    after: "order.items",
  },
  {
    kind: "neighbour",
    caseId: "c2",
    where: "another call of the same function",
    prefix: "def cancel(order):\n    ",
    suffix: "\n",
    expected: null,
    before: "order.paid = False",
    after: "order.paid = False\n    log.info('cancelled')",
  },
];

export function aReport(given: Partial<PatchReport> = {}): PatchReport {
  const second = aCase({
    id: "c2",
    position: { line: 30, character: 4 },
    rejected: "print('paid')",
    expected: "log.info(\n    'paid', order=order.id\n)",
  });
  return {
    patch: aPatch(),
    cases: [
      { case: aCase(), prefix: PREFIX, suffix: SUFFIX },
      { case: second, prefix: LOG_PREFIX, suffix: "\n" },
    ],
    depth: 24,
    layers: [
      { layer: 19, neurons: 3, width: 4864, norm: 0.41, most: moved(0.32, 3) },
      { layer: 20, neurons: 8, width: 4864, norm: 1.38, most: moved(0.91, 5) },
      { layer: 22, neurons: 12, width: 4864, norm: 0.87, most: moved(0.44, 5) },
    ],
    bytes: 86_544,
    comparison: null,
    ...given,
  };
}

function moved(highest: number, count: number): { neuron: number; norm: number }[] {
  return Array.from({ length: count }, (_, at) => ({ neuron: 977 * (at + 1), norm: highest / (at + 1) }));
}

/** Texts that try to leave the place where they are put. */
export const HOSTILE = [
  "</script><script>alert(1)</script>",
  "</bdi></div></main><img src=x onerror=alert(1)>",
  '" onmouseover="alert(1)" x=\'',
  "' onfocus='alert(1)' autofocus='",
  "`${alert(1)}` &lt;b&gt; &amp; <!-- --> ]]>",
  "```\n# out of the fence\n[x](command:star-lsp.restart)\n````",
  "if admin\u202e \u2066// only users\u2069 \u2066{",
  "שלום return مرحبا",
  "👩‍👩‍👧‍👦 = '🏳️‍🌈' + \ud83d",
  `x = "${"0123456789".repeat(500)}"`,
  "\u0000\u0007\u001b[31mred\u001b[0m\r\nafter\rlone",
];

/** A report in which every text is hostile. */
export function aHostileReport(): PatchReport {
  const cases = HOSTILE.map((text, at) =>
    aCase({
      id: `c${at}${text}`,
      language: text,
      uri: `file:///<b>%zz${at}"'/${text}`,
      rejected: text,
      expected: `${text}!`,
      reason: text,
    }),
  );
  return {
    patch: aPatch({
      id: HOSTILE[0]!,
      revision: HOSTILE[2]!,
      cases: cases.map((each) => each.id),
      verdict: {
        ...VERDICT,
        cases: cases.map((each) => ({
          id: each.id,
          solved: false,
          before: "",
          after: each.rejected,
          reason: each.reason,
        })),
        gate: { ...VERDICT.gate, reasons: HOSTILE },
        method: { [HOSTILE[0]!]: HOSTILE[1] },
      },
    }),
    cases: cases.map((each) => ({
      case: each,
      prefix: `${each.rejected}\n${each.rejected}`,
      suffix: each.rejected,
    })),
    depth: 3,
    layers: [{ layer: 2, neurons: 1, width: 9, norm: 1, most: [{ neuron: 1, norm: 1 }] }],
    bytes: 12,
    comparison: HOSTILE.flatMap((text) =>
      (["flagged", "sibling", "neighbour"] as const).map((kind) => ({
        kind,
        caseId: `c0${HOSTILE[0]}`,
        where: text,
        prefix: text,
        suffix: text,
        expected: text,
        before: text,
        after: `${text}?`,
      })),
    ),
  };
}
