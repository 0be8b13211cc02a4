/**
 * The report on a patch as HTML. Knows no VS Code; everything that is not markup of ours is escaped, here.
 *
 * Its style is `media/report.css`, its behaviour `media/report.js`: a button says what it does by `data-do`.
 */

import { button, escape, hidden, table } from "./html";
import { movedHtml } from "./movedHtml";
import type { CaseContext, Compared, PatchReport } from "./protocol";
import { readVerdict, type Gate, type TaughtCase, type Verdict } from "./verdict";
import { caseName, placeName } from "./viewModel";
import { clipped, instant, number, percent, plural, shown, size, type Words } from "./words";

/** Whether the model is being asked what it writes without the patch and with it. */
export type Comparing = { state: "no" } | { state: "yes" } | { state: "failed"; reason: string };

export interface Shell {
  nonce: string;
  /** What webviews may load from, as VS Code names it. */
  source: string;
  style: string;
  script: string;
  title: string;
  /** Kept by the page, so that it can be opened again after a reload. */
  patchId: string;
  words: Words;
}

/** The page around a report; its body is sent to it, now and whenever it changes. */
export function shellHtml({ nonce, source, style, script, title, patchId, words }: Shell): string {
  const policy = `default-src 'none'; style-src ${source}; script-src 'nonce-${nonce}'`;
  return `<!DOCTYPE html>
<html lang="${escape(words.language)}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<link rel="stylesheet" href="${escape(style)}">
</head>
<body data-patch="${escape(patchId)}">
<div id="page">${waitingBody(words)}</div>
<div id="news" role="status" class="unseen"></div>
<script nonce="${escape(nonce)}" src="${escape(script)}"></script>
</body>
</html>`;
}

/** While the report is on its way. */
export function waitingBody({ t }: Words): string {
  return `<main><h1>${escape(t("Report on a patch"))}</h1><p>${escape(t("Asking the server …"))}</p></main>`;
}

/** When there is no report to show, and why. */
export function failedBody(reason: string, { t }: Words): string {
  return `<main>
<h1>${escape(t("Report on a patch"))}</h1>
<p class="note bad">${escape(shown(reason))}</p>
<div class="actions">
${button("retry", t("Try again"), { id: "retry", class: "first" })}
${button("log", t("Show log"), { id: "log" })}
</div>
</main>`;
}

/** The report itself. */
export function reportBody(report: PatchReport, comparing: Comparing, words: Words): string {
  const verdict = readVerdict(report.patch.verdict);
  return `${header(report, comparing, words)}
<main>
${glance(report, verdict, words)}
${completions(report, verdict, words)}
${comparison(report, comparing, words)}
${gateSection(verdict, words)}
${movedHtml(report, words)}
${making(report, verdict, words)}
</main>`;
}

/** What a report is called in its tab, which is narrow: by what is right now. */
export function reportTitle(report: PatchReport, { t }: Words): string {
  const [first] = report.cases;
  const expected = first && clipped(first.case.expected, TAB_LETTERS);
  return t("Report: {0}", expected || report.patch.id);
}

// -- the head -------------------------------------------------------------------------------------------

function header({ patch, ...rest }: PatchReport, comparing: Comparing, words: Words): string {
  const { t } = words;
  const [mark, state] = patch.active ? ["good", t("Active")] : ["", t("Not active")];
  const went = [t("went live {0}", instant(patch.createdAt, words)), t("patch {0}", patch.id)];
  if (patch.revision) went.push(t("revision {0}", patch.revision));
  const actions = [
    patch.active ? button("keep", t("Keep"), { id: "keep", class: "first" }) : "",
    patch.active ? button("revert", t("Revert…"), { id: "revert" }) : "",
    patch.active ? compareButton("compare", rest.comparison !== null, comparing, words) : "",
    patch.active ? "" : button("keep", t("Close"), { id: "keep", class: "first" }),
  ];
  const inactive = t(
    "The model works without this patch: it was reverted, or a later repair has taken its place.",
  );
  return `<header>
<div class="title">
<p class="over">${escape(t("Report on a patch"))}</p>
<h1>${heading({ patch, ...rest }, words)}</h1>
<p class="about"><span class="state ${mark}">${escape(state)}</span> ${escape(shown(went.join(" · ")))}</p>
${patch.active ? "" : `<p class="note">${escape(inactive)}</p>`}
</div>
<div class="actions" role="group" aria-label="${escape(t("What to do with this patch"))}">
${actions.filter(Boolean).join("\n")}
</div>
</header>`;
}

/** The first case, and how many more there are. */
function heading({ cases, patch }: PatchReport, words: Words): string {
  const { t } = words;
  const [first] = cases;
  if (!first) return escape(shown(t("Patch {0}", patch.id)));
  const more = cases.length - 1;
  const rest = more ? ` <small>${escape(t("and {0} more", more))}</small>` : "";
  return `${code(caseName(first.case, words, HEADING_LETTERS))}${rest}`;
}

const TAB_LETTERS = 28;
const HEADING_LETTERS = 72;

function compareButton(id: string, again: boolean, { state }: Comparing, { t }: Words): string {
  const busy = state === "yes";
  const label = busy ? t("Comparing …") : again ? t("Compare again") : t("Compare");
  // Not `disabled`: a focused button that is disabled loses the focus, and the place in the page with it.
  return button("compare", label, { id, "aria-disabled": busy ? "true" : undefined });
}

function glance(report: PatchReport, verdict: Verdict | null, words: Words): string {
  const { t } = words;
  const facts: [string, string, string][] = [];
  if (verdict) {
    const solved = verdict.cases.filter((each) => each.solved).length;
    facts.push([t("Cases solved"), t("{0} of {1}", solved, verdict.cases.length), ""]);
  }
  if (verdict?.gate) {
    const { unchanged, minUnchanged, kl, maxKl } = verdict.gate;
    const least = t("at least {0}", percent(minUnchanged, words));
    facts.push([t("Tokens unchanged"), percent(unchanged, words), least]);
    facts.push([t("KL divergence"), number(kl, 2, words), t("at most {0}", number(maxKl, 2, words))]);
  }
  const neurons = report.layers.reduce((sum, each) => sum + each.neurons, 0);
  const layers = plural(report.layers.length, t("in 1 layer"), t("in {0} layers", report.layers.length));
  facts.push([t("Neurons moved"), String(neurons), layers]);
  if (verdict?.seconds != null) {
    const steps = verdict.steps ?? 0;
    const took =
      verdict.seconds < 10 ? number(verdict.seconds, 2, words) : String(Math.round(verdict.seconds));
    facts.push([t("Repair took"), t("{0} s", took), plural(steps, t("1 step"), t("{0} steps", steps))]);
  }
  facts.push([t("On disk"), size(report.bytes, words), ""]);
  const items = facts.map(
    ([name, value, more]) =>
      `<div><dt>${escape(name)}</dt><dd>${escape(value)}${more && ` <small>${escape(more)}</small>`}</dd></div>`,
  );
  return `<section aria-labelledby="h-glance">
<h2 id="h-glance" class="unseen">${escape(t("At a glance"))}</h2>
<dl class="tiles">${items.join("")}</dl>
</section>`;
}

// -- the flagged completions ----------------------------------------------------------------------------

/** A batch may have many cases: those after these fold away, so that the verdict stays in reach. */
const CASES_OPEN = 4;

function completions(report: PatchReport, verdict: Verdict | null, words: Words): string {
  const { t } = words;
  const taught = new Map(verdict?.cases.map((each) => [each.id, each]));
  const now = new Map(
    report.comparison?.filter((each) => each.kind === "flagged").map((each) => [each.caseId, each]),
  );
  const { active } = report.patch;
  const articles = report.cases.map((each, at) => {
    const { id } = each.case;
    return caseArticle(each, at, taught.get(id), now.get(id), active, words);
  });
  const none = `<p>${escape(t("The cases of this patch have been deleted."))}</p>`;
  const folded = articles.slice(CASES_OPEN);
  const others = plural(folded.length, t("1 more case"), t("{0} more cases", folded.length));
  const fold = `<details id="more-cases"><summary id="more">${escape(others)}</summary>
${folded.join("\n")}
</details>`;
  return `<section aria-labelledby="h-cases">
<h2 id="h-cases">${escape(t("The completion, before and after"))}</h2>
${articles.slice(0, CASES_OPEN).join("\n") || none}
${folded.length ? fold : ""}
</section>`;
}

function caseArticle(
  { case: one, prefix, suffix }: CaseContext,
  at: number,
  taught: TaughtCase | undefined,
  now: Compared | undefined,
  active: boolean,
  words: Words,
): string {
  const { t } = words;
  const place = placeName(one, words);
  const after = now?.after ?? (taught?.after || undefined);
  const open = button("open", t("Open place"), {
    id: `open-${at}`,
    "data-case": one.id,
    "aria-label": t("Open place: {0}", place),
  });
  const told = [
    after === undefined ? "" : writes(after, one.expected, active && now !== undefined, words),
    taught?.reason ? `<p class="note bad">${escape(shown(taught.reason))}</p>` : "",
  ];
  return `<article aria-labelledby="h-case-${at}">
<div class="line"><h3 id="h-case-${at}">${code(place)} <small>${escape(clipped(one.language, 40))}</small></h3>${open}</div>
${diffHtml({ prefix, suffix }, one.rejected, one.expected, [t("Rejected"), t("Expected")], words)}
${told.filter(Boolean).join("\n")}
</article>`;
}

/** What the model writes at a flagged place: as expected, or not. */
function writes(after: string, expected: string, now: boolean, words: Words): string {
  const { t } = words;
  const right = same(after, expected);
  if (right) {
    const sentence = now
      ? t("The model now writes what is expected.")
      : t("After the repair the model wrote what is expected.");
    return `<p>${markHtml(right, words)} ${escape(sentence)}</p>`;
  }
  const sentence = now ? t("The model now writes:") : t("After the repair the model wrote:");
  return `<p>${markHtml(right, words)} ${escape(sentence)}</p>
<div class="code">${rows("", after, "", "", "", words)}</div>`;
}

// -- siblings and neighbours ----------------------------------------------------------------------------

function comparison({ patch, comparison: found }: PatchReport, comparing: Comparing, words: Words): string {
  const { t } = words;
  const what = t(
    "Siblings are places that should profit from the repair; neighbours are places that must not change. To compare, the model writes at each of them without the patch and with it.",
  );
  const parts = [`<p>${escape(what)}</p>`];
  if (comparing.state === "yes") {
    const busy = t("The model is writing; this takes some seconds for each place.");
    parts.push(`<p><progress aria-label="${escape(t("Comparing …"))}"></progress> ${escape(busy)}</p>`);
  } else if (comparing.state === "failed") {
    parts.push(
      `<p class="note bad">${escape(t("It could not be compared: {0}", shown(comparing.reason)))}</p>`,
    );
  }
  if (found) {
    const siblings = found.filter((each) => each.kind === "sibling");
    const neighbours = found.filter((each) => each.kind === "neighbour");
    parts.push(
      places(t("Siblings"), siblings, 0, words),
      places(t("Neighbours"), neighbours, siblings.length, words),
    );
  } else if (patch.active && comparing.state !== "yes") {
    parts.push(`<div class="actions">${compareButton("compare-here", false, comparing, words)}</div>`);
  } else if (!patch.active) {
    parts.push(`<p>${escape(t("Nothing was compared while the patch was active."))}</p>`);
  }
  return `<section aria-labelledby="h-compared">
<h2 id="h-compared">${escape(t("Siblings and neighbours"))}</h2>
${parts.join("\n")}
</section>`;
}

/** What became of a compared place, and whether that is what a repair should do to it. */
export function judged(each: Compared, { t }: Words): { good: boolean; says: string } {
  const stays = same(each.after, each.before);
  if (each.kind === "neighbour") {
    return stays ? { good: true, says: t("unchanged") } : { good: false, says: t("changed") };
  }
  if (each.expected === null) {
    return stays ? { good: true, says: t("unchanged") } : { good: true, says: t("changed") };
  }
  if (!same(each.after, each.expected)) {
    const was = same(each.before, each.expected);
    return { good: false, says: was ? t("no longer as expected") : t("not as expected") };
  }
  return { good: true, says: stays ? t("as expected, as before") : t("as expected now") };
}

function places(name: string, found: Compared[], from: number, words: Words): string {
  const { t } = words;
  if (!found.length) return `<h3>${escape(name)}</h3>\n<p>${escape(t("There are none for this patch."))}</p>`;
  const good = found.filter((each) => judged(each, words).good).length;
  const items = found.map((each, at) => `<li>${placeDetails(each, from + at, words)}</li>`);
  return `<h3>${escape(name)} <small>${escape(t("{0} of {1} as they should be", good, found.length))}</small></h3>
<ul class="places">
${items.join("\n")}
</ul>`;
}

function placeDetails(each: Compared, at: number, words: Words): string {
  const { t } = words;
  const { good, says } = judged(each, words);
  const around = { prefix: each.prefix, suffix: each.suffix };
  const inside = same(each.before, each.after)
    ? `<div class="code">${plain(around, each.after, words)}</div>`
    : diffHtml(around, each.before, each.after, [t("Without the patch"), t("With the patch")], words);
  const wanted =
    each.expected !== null && !good
      ? `<p>${escape(t("Expected:"))}</p>\n<div class="code">${rows("", each.expected, "", "", "", words)}</div>`
      : "";
  return `<details id="place-${at}"${good ? "" : " open"}>
<summary id="head-${at}">${markHtml(good, words)} ${escape(clipped(each.where, 160))} <span class="says">${escape(says)}</span></summary>
${inside}
${wanted}
</details>`;
}

// -- the gate -------------------------------------------------------------------------------------------

function gateSection(verdict: Verdict | null, words: Words): string {
  const { t } = words;
  const gate = verdict?.gate;
  const none = `<p>${escape(t("This patch has no verdict."))}</p>`;
  return `<section aria-labelledby="h-gate">
<h2 id="h-gate">${escape(t("The gate"))}</h2>
${gate ? gateTable(gate, words) : none}
${verdict?.attempts.length ? attemptsTable(verdict, words) : ""}
</section>`;
}

function gateTable(gate: Gate, words: Words): string {
  const { t } = words;
  const all = t("all");
  const lines: [string, string, string, boolean][] = [
    [
      t("Earlier cases still solved"),
      t("{0} of {1}", gate.stillSolved, gate.cases),
      all,
      gate.stillSolved >= gate.cases,
    ],
    [
      t("Accepted completions unchanged"),
      t("{0} of {1}", gate.acceptedUnchanged, gate.accepted),
      all,
      gate.acceptedUnchanged >= gate.accepted,
    ],
    [
      t("Tokens unchanged, of {0}", gate.positions),
      percent(gate.unchanged, words),
      `≥ ${percent(gate.minUnchanged, words)}`,
      gate.unchanged >= gate.minUnchanged,
    ],
    [
      t("Mean KL divergence, nats a token"),
      number(gate.kl, 2, words),
      `≤ ${number(gate.maxKl, 2, words)}`,
      gate.kl <= gate.maxKl,
    ],
  ];
  const body = lines.map(
    ([name, found, limit, holds]) => `<tr><th scope="row">${escape(name)}</th><td>${escape(found)}</td>
<td>${escape(limit)}</td><td>${markHtml(holds, words)} ${escape(holds ? t("holds") : t("fails"))}</td></tr>`,
  );
  const reasons = gate.reasons.map((each) => `<li>${escape(shown(each))}</li>`).join("");
  return `${table(
    t("What must hold before a patch goes live"),
    [t("What must hold"), t("Found"), t("Limit"), t("Result")],
    body,
  )}${reasons && `\n<ul class="note bad">${reasons}</ul>`}`;
}

function attemptsTable({ attempts }: Verdict, words: Words): string {
  const { t } = words;
  const body = attempts.map((each) => {
    const against = each.reasons.join("; ") || t("not all were solved");
    return `<tr><th scope="row">${escape(each.settings || t("the same"))}</th><td>${each.steps}</td>
<td>${escape(t("{0} of {1}", each.solved, each.cases))}</td><td>${escape(shown(against))}</td></tr>`;
  });
  const heads = [t("With"), t("Steps"), t("Solved"), t("What stood against it")];
  return `<h3>${escape(t("What was tried before"))}</h3>
${table(t("Attempts that did not go live"), heads, body, "words")}`;
}

function making({ patch }: PatchReport, verdict: Verdict | null, words: Words): string {
  const { t } = words;
  const facts: [string, string][] = [
    [t("Patch"), patch.id],
    [t("Revision"), patch.revision ?? "–"],
    [t("Cases"), patch.cases.join(", ") || "–"],
  ];
  if (verdict?.settings) facts.push([t("Method"), verdict.settings]);
  const items = facts.map(([name, value]) => `<div><dt>${escape(name)}</dt><dd>${code(value)}</dd></div>`);
  return `<section aria-labelledby="h-made">
<h2 id="h-made">${escape(t("How it was made"))}</h2>
<dl class="facts">${items.join("")}</dl>
</section>`;
}

// -- code -----------------------------------------------------------------------------------------------

interface Around {
  prefix: string;
  suffix: string;
}

const LINES_BEFORE = 5;
const LINES_AFTER = 4;
const CONTEXT_LETTERS = 160;
/** A longer line says how much longer it is; more of it would only push the rest of the page away. */
const LINE_LETTERS = 800;

/** A place as a diff: the lines around it, one text struck through, the other one below. */
function diffHtml(around: Around, old: string, fresh: string, names: [string, string], words: Words): string {
  const { above, head, tail, below } = split(around);
  return `<div class="code">${context(above)}${rows(head, old, tail, "del", names[0], words)}${rows(
    head, fresh, tail, "ins", names[1], words,
  )}${context(below)}</div>`; // prettier-ignore
}

/** A place with a text that is not compared with another. */
function plain(around: Around, text: string, words: Words): string {
  const { above, head, tail, below } = split(around);
  return `${context(above)}${rows(head, text, tail, "", "", words)}${context(below)}`;
}

/** The lines above a place, what stands before it on its own line and behind it, and the lines below. */
function split({ prefix, suffix }: Around): { above: string[]; head: string; tail: string; below: string[] } {
  const before = lines(prefix);
  const after = lines(suffix);
  const head = before.pop() ?? "";
  const tail = after.shift() ?? "";
  const above = before.slice(-LINES_BEFORE);
  const below = after.slice(0, LINES_AFTER);
  while (above[0]?.trim() === "") above.shift(); // empty lines at the edge tell nothing
  while (below.at(-1)?.trim() === "") below.pop();
  return {
    above,
    head: head.length > CONTEXT_LETTERS ? `…${head.slice(-CONTEXT_LETTERS)}` : head,
    tail: cut(tail),
    below,
  };
}

function cut(line: string): string {
  return line.length > CONTEXT_LETTERS ? `${line.slice(0, CONTEXT_LETTERS)}…` : line;
}

function context(found: string[]): string {
  return found.map((line) => row("", "", code(cut(line)), "")).join("");
}

/** A text between what stands before and behind it, line by line, with its name for screen readers. */
function rows(
  head: string,
  text: string,
  tail: string,
  kind: "del" | "ins" | "",
  name: string,
  words: Words,
): string {
  const found = lines(text);
  return found
    .map((line, at) => {
      const wrapped = (inner: string): string => (kind ? `<${kind}>${inner}</${kind}>` : `<b>${inner}</b>`);
      const nothing = `<i>${escape(words.t("(nothing)"))}</i>`;
      const more = line.length - LINE_LETTERS;
      const rest = more > 0 ? `<i>${escape(words.t("… and {0} characters more", more))}</i>` : "";
      const own = line
        ? wrapped(code(line.slice(0, LINE_LETTERS))) + rest
        : found.length === 1
          ? wrapped(nothing)
          : "";
      const before = at === 0 ? code(head) : "";
      const behind = at === found.length - 1 ? code(tail) : "";
      return row(kind, at === 0 && name ? hidden(`${name}: `) : "", `${before}${own}${behind}`, kind);
    })
    .join("");
}

function row(kind: string, name: string, inner: string, sign: "del" | "ins" | ""): string {
  const mark = { del: "−", ins: "+", "": " " }[sign];
  return `<div class="row ${kind || "around"}"><span class="sign" aria-hidden="true">${mark}</span><span>${name}${inner}</span></div>`;
}

function lines(text: string): string[] {
  return text.split(/\r\n|\r|\n/);
}

/** Code in a line of text, in its own direction whatever stands around it. */
function code(text: string): string {
  return `<bdi dir="ltr">${escape(shown(text))}</bdi>`;
}

/** A verdict as a sign that also says itself. */
export function markHtml(good: boolean, { t }: Words): string {
  const [sign, kind, name] = good ? ["✓", "good", t("good")] : ["✗", "bad", t("not good")];
  return `<span class="mark ${kind}"><span aria-hidden="true">${sign}</span>${hidden(name)}</span>`;
}

/** Whether two completions are the same to a developer: what follows the last word does not count. */
function same(one: string, other: string): boolean {
  return one.trimEnd() === other.trimEnd();
}
