/** What a patch moved, as HTML: a bar for each layer, and the same in a table. */

import { escape, table } from "./html";
import type { MovedLayer, PatchReport } from "./protocol";
import { number, type Words } from "./words";

const TOP = 18;
const HEIGHT = 96;
const BASE = TOP + HEIGHT;
/** Labels closer than this share of the width, in percent, would run into each other on a narrow page. */
const APART = { values: 8, names: 4 };

/** More names of neurons than these tell nobody more. */
const MOST = 6;

/** The section on layers and neurons. */
export function movedHtml({ layers, depth }: PatchReport, words: Words): string {
  const { t } = words;
  const what = t(
    "A patch adds a delta to rows of the layers’ output projections, one row for each neuron. The norm says how far a layer’s rows moved in all.",
  );
  const inner = layers.length
    ? `${plot(layers, depth, words)}\n${movedTable(layers, words)}`
    : `<p>${escape(t("This patch moves nothing."))}</p>`;
  return `<section aria-labelledby="h-moved">
<h2 id="h-moved">${escape(t("What moved"))}</h2>
<p>${escape(what)}</p>
${inner}
</section>`;
}

/**
 * A bar for each moved layer over the depth of the model.
 *
 * Places are in percent of the width and heights in pixels, so that it fits any width and its labels stay readable.
 */
function plot(layers: MovedLayer[], depth: number, words: Words): string {
  const { t } = words;
  const count = Math.max(depth, ...layers.map((each) => each.layer + 1), 1);
  const highest = Math.max(...layers.map((each) => each.norm)) || 1;
  const slot = 100 / count;
  const ticks = Array.from({ length: count }, (_, at) =>
    rect("tick", at * slot + slot * 0.15, BASE, slot * 0.7, 2),
  );
  const bars = layers.map((each) => {
    const height = Math.max(2, (each.norm / highest) * HEIGHT);
    return rect("bar", each.layer * slot + slot * 0.15, BASE - height, slot * 0.7, height);
  });
  const middle = (each: MovedLayer): number => (each.layer + 0.5) * slot;
  const values = apart(layers, middle, APART.values).map((each) => {
    const height = Math.max(2, (each.norm / highest) * HEIGHT);
    return label(middle(each), BASE - height - 5, number(each.norm, 2, words));
  });
  const names = apart(layers, middle, APART.names).map((each) =>
    label(middle(each), BASE + 17, String(each.layer)),
  );
  const all = layers.map((each) => t("layer {0}: norm {1}", each.layer, number(each.norm, 3, words)));
  const name = t("Norm of the delta in each of {0} layers: {1}", count, all.join("; "));
  return `<figure>
<svg role="img" aria-label="${escape(name)}" width="100%" height="${BASE + 22}" focusable="false">
${ticks.join("")}
${bars.join("")}
${values.join("")}
${names.join("")}
</svg>
<figcaption>${escape(t("Norm of the delta by layer, from 0 (next to the input) to {0}.", count - 1))}</figcaption>
</figure>`;
}

/** Of the layers those that have room for a label; what moved most has the first claim. */
function apart(layers: MovedLayer[], middle: (each: MovedLayer) => number, percent: number): MovedLayer[] {
  const kept: MovedLayer[] = [];
  for (const each of [...layers].sort((a, b) => b.norm - a.norm)) {
    if (kept.every((other) => Math.abs(middle(other) - middle(each)) >= percent)) kept.push(each);
  }
  return kept;
}

function rect(kind: string, x: number, y: number, width: number, height: number): string {
  return `<rect class="${kind}" x="${round(x)}%" y="${round(y)}" width="${round(width)}%" height="${round(height)}"/>`;
}

/** A label over its middle; at either end it is drawn inwards, so that nothing is cut off. */
function label(middle: number, y: number, text: string): string {
  const anchor = middle < 1 ? "start" : middle > 99 ? "end" : "middle";
  const x = anchor === "start" ? 0 : anchor === "end" ? 100 : middle;
  return `<text x="${round(x)}%" y="${round(y)}" text-anchor="${anchor}">${escape(text)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function movedTable(layers: MovedLayer[], words: Words): string {
  const { t } = words;
  const body = layers.map((each) => {
    const most = each.most
      .slice(0, MOST)
      .map(({ neuron, norm }) => `<li>${escape(t("{0} by {1}", `#${neuron}`, number(norm, 2, words)))}</li>`);
    return `<tr><th scope="row">${each.layer}</th><td>${escape(t("{0} of {1}", each.neurons, each.width))}</td>
<td>${escape(number(each.norm, 3, words))}</td><td><ul class="chips">${most.join("")}</ul></td></tr>`;
  });
  const heads = [t("Layer"), t("Neurons"), t("Norm"), t("Neurons that moved most")];
  return table(t("What moved, by layer"), heads, body);
}
