/** The rows of the view "STAR": what each says, looks like and may be done with. Knows no VS Code. */

import type { CaseInfo, CaseStatus, PatchInfo } from "./protocol";
import { readVerdict, type Verdict } from "./verdict";
import { clipped, fileName, instant, moment, number, percent, plural, shown, type Words } from "./words";

/** What a row of either tree shows; `icon` and `colour` are ids of VS Code's. */
export interface Look {
  id: string;
  label: string;
  description: string;
  /** Markdown, everything of the developer's in it escaped. */
  tooltip: string;
  icon: string;
  colour?: string | undefined;
  /** What menus ask for as `viewItem`. */
  context: string;
  /** The row as a screen reader says it. */
  spoken: string;
}

export interface CaseRow extends Look {
  kind: "case";
  case: CaseInfo;
}

export interface GroupRow extends Look {
  kind: "group";
  open: boolean;
  cases: CaseRow[];
}

export interface PatchRow extends Look {
  kind: "patch";
  patch: PatchInfo;
}

/** What a case is to the model in use: one of another model, unless it was reverted, is `elsewhere`. */
export type Standing = CaseStatus | "elsewhere";

interface Style {
  icon: string;
  colour?: string | undefined;
  open: boolean;
}

/** In the order of the tree: what needs the developer, or is on its way, stands first. */
const STYLES: Record<Standing, Style> = {
  repairing: { icon: "sync~spin", colour: "charts.blue", open: true },
  pending: { icon: "circle-outline", colour: "charts.yellow", open: true },
  failed: { icon: "error", colour: "charts.red", open: true },
  solved: { icon: "pass-filled", colour: "charts.green", open: true },
  elsewhere: { icon: "circle-slash", open: false },
  reverted: { icon: "discard", open: false },
};

/** Two such texts and an arrow leave room for the description in a side bar of usual width. */
const LABEL_LETTERS = 20;
const NAME_LETTERS = 60;
const TOOLTIP_LINES = 20;
const TOOLTIP_LETTERS = 200;

/** What a case is to the model in use. */
export function standing({ status, elsewhere }: CaseInfo): Standing {
  return elsewhere && status !== "reverted" ? "elsewhere" : status;
}

/** The name of a status. */
export function statusName(status: Standing, { t }: Words): string {
  switch (status) {
    case "pending":
      return t("Pending");
    case "repairing":
      return t("Repairing");
    case "solved":
      return t("Solved");
    case "failed":
      return t("Failed");
    case "elsewhere":
      return t("In another model");
    case "reverted":
      return t("Reverted");
  }
}

/** The cases by status, newest first in each; a status that no case has is left out. */
export function caseGroups(cases: readonly CaseInfo[], words: Words): GroupRow[] {
  return (Object.keys(STYLES) as Standing[]).flatMap((status) => {
    const rows = cases
      .filter((each) => standing(each) === status)
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt))
      .map((each) => caseRow(each, words));
    if (!rows.length) return [];
    const name = statusName(status, words);
    const { open } = STYLES[status];
    return [
      {
        kind: "group",
        id: `group.${status}`,
        label: name,
        description: String(rows.length),
        tooltip: "",
        icon: "",
        context: `group.${status}`,
        spoken: `${name}, ${counted(rows.length, words)}`,
        open,
        cases: rows,
      },
    ];
  });
}

/** How many cases wait for a repair. */
export function pending(cases: readonly CaseInfo[]): number {
  return cases.filter((each) => each.status === "pending").length;
}

/** So many cases, in words. */
export function counted(cases: number, { t }: Words): string {
  return plural(cases, t("1 case"), t("{0} cases", cases));
}

/** A case in a few words: what was wrong, and what is right. */
export function caseName(
  one: Pick<CaseInfo, "rejected" | "expected">,
  { t }: Words,
  letters = LABEL_LETTERS,
): string {
  const nothing = t("(nothing)");
  const rejected = clipped(one.rejected, letters) || nothing;
  const expected = clipped(one.expected, letters) || nothing;
  return `${rejected} → ${expected}`;
}

/** Where a case was flagged: file and line, from 1; the language alone when it has no file. */
export function placeName(one: CaseInfo, { t }: Words): string {
  if (one.uri === null) return clipped(one.language, NAME_LETTERS) || t("no file");
  const name = clipped(fileName(one.uri), NAME_LETTERS);
  return one.position ? `${name}:${one.position.line + 1}` : name;
}

function caseRow(one: CaseInfo, words: Words): CaseRow {
  const status = standing(one);
  const { icon, colour } = STYLES[status];
  const label = caseName(one, words);
  const description = [
    one.uri === null ? "" : clipped(one.language, NAME_LETTERS),
    placeName(one, words),
    moment(one.createdAt, words),
    one.elsewhere ? clipped(one.model, NAME_LETTERS) : "",
    one.status === "failed" && one.reason ? clipped(one.reason, 80) : "",
  ]
    .filter(Boolean)
    .join(" · ");
  return {
    kind: "case",
    id: `case.${one.id}`,
    label,
    description,
    tooltip: caseTooltip(one, words),
    icon,
    colour,
    context: `case.${status}${one.patchId === null ? "" : ".patched"}`,
    spoken: `${statusName(status, words)}: ${label}, ${description}`,
    case: one,
  };
}

function caseTooltip(one: CaseInfo, words: Words): string {
  const head = `**${statusName(standing(one), words)}** · ${escapeMarkdown(placeName(one, words))}`;
  return [
    `${head} · ${escapeMarkdown(instant(one.createdAt, words))}`,
    diffBlock(one.rejected, one.expected),
    one.elsewhere
      ? escapeMarkdown(
          words.t("It is a case of {0}; repair it to teach it to the model in use too.", shown(one.model)),
        )
      : "",
    one.reason === null ? "" : escapeMarkdown(shown(one.reason)),
    one.patchId === null ? "" : `${words.t("Patch")} ${escapeMarkdown(one.patchId)}`,
  ]
    .filter(Boolean)
    .join("\n\n");
}

/** Two texts as a block of Markdown: what goes, and what comes. No text can end the block. */
export function diffBlock(rejected: string, expected: string, mostLines = TOOLTIP_LINES): string {
  const lines = [...signed("-", rejected, mostLines), ...signed("+", expected, mostLines)].join("\n");
  return fenced(lines, "diff");
}

/** A text as a block of Markdown that nothing in it can end. */
export function fenced(text: string, language: string): string {
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), (run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language.replace(/[^\w+#-]/g, "")}\n${text}\n${fence}`;
}

function signed(sign: string, text: string, most: number): string[] {
  if (!text) return [];
  const lines = text.split(/\r\n|\r|\n/);
  const some = lines.slice(0, most).map((line) => {
    const plain = shown(line);
    return `${sign} ${plain.length > TOOLTIP_LETTERS ? `${plain.slice(0, TOOLTIP_LETTERS)}…` : plain}`;
  });
  return lines.length > most ? [...some, `${sign} …`] : some;
}

/** A text that Markdown shows as it is. */
export function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_{}[\]()#+\-.!|<>~&$:@/]/g, "\\$&").replace(/\n/g, "  \n");
}

/** The patches, newest first, each with its number in the order in which they went live. */
export function patchRows(
  patches: readonly PatchInfo[],
  cases: readonly CaseInfo[],
  words: Words,
): PatchRow[] {
  const known = new Map(cases.map((each) => [each.id, each]));
  return patches.map((patch, at) => patchRow(patch, at + 1, known, words)).reverse();
}

function patchRow(
  patch: PatchInfo,
  place: number,
  known: ReadonlyMap<string, CaseInfo>,
  words: Words,
): PatchRow {
  const { t } = words;
  const named = patch.cases.flatMap((id) => known.get(id) ?? []);
  const [first] = named;
  const label = `${place} · ${first ? caseName(first, words) : t("Patch {0}", patch.id)}`;
  const other = named.find((each) => each.elsewhere && each.patchId === patch.id)?.model;
  const state = patch.active ? t("active") : other ? t("active in {0}", shown(other)) : t("not active");
  const verdict = readVerdict(patch.verdict);
  const description = [patch.active ? "" : state, verdictLine(patch, verdict, words)]
    .filter(Boolean)
    .join(" · ");
  const tooltip = [
    `**${escapeMarkdown(t("Patch {0}", patch.id))}** · ${escapeMarkdown(state)} · ${escapeMarkdown(instant(patch.createdAt, words))}`,
    escapeMarkdown(verdictLine(patch, verdict, words)),
    named
      .slice(0, TOOLTIP_LINES)
      .map((each) => `- ${escapeMarkdown(caseName(each, words))}`)
      .join("\n"),
  ];
  return {
    kind: "patch",
    id: `patch.${patch.id}`,
    label,
    description,
    tooltip: tooltip.filter(Boolean).join("\n\n"),
    icon: patch.active ? "pass-filled" : other ? STYLES.elsewhere.icon : "discard",
    colour: patch.active ? "charts.green" : undefined,
    context: `patch.${patch.active ? "active" : "inactive"}`,
    spoken: `${label}, ${state}, ${verdictLine(patch, verdict, words)}`,
    patch,
  };
}

/** A verdict in one line: how many cases, what stayed, how far the model moved, and where. */
export function verdictLine(patch: PatchInfo, verdict: Verdict | null, words: Words): string {
  const { t } = words;
  const parts = [counted(patch.cases.length, words)];
  if (!verdict) return [...parts, t("no verdict")].join(" · ");
  if (verdict.gate) {
    parts.push(t("{0} unchanged", percent(verdict.gate.unchanged, words)));
    parts.push(t("KL {0}", number(verdict.gate.kl, 2, words)));
  }
  const { layers } = verdict;
  if (layers.length === 1) parts.push(t("layer {0}", layers[0]!));
  else if (layers.length > 4) parts.push(t("{0} layers", layers.length));
  else if (layers.length) parts.push(t("layers {0}", layers.join(", ")));
  return parts.join(" · ");
}
