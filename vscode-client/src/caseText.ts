/** A case to read where its place cannot be shown: a page of Markdown, read as it is written. Knows no VS Code. */

import type { CaseContext } from "./protocol";
import { diffBlock, fenced, placeName, standing, statusName } from "./viewModel";
import { instant, shown, type Words } from "./words";

/** A case with the lines around its place, as far as they are known, and why it is shown like this. */
export function caseText(
  found: Partial<CaseContext> & Pick<CaseContext, "case">,
  why: string,
  words: Words,
): string {
  const { t } = words;
  const one = found.case;
  const told = [
    `# ${t("Case {0}", one.id)}`,
    why && `> ${shown(why)}`,
    `${statusName(standing(one), words)} · ${placeName(one, words)} · ${instant(one.createdAt, words)}`,
    one.uri === null ? "" : `<${shown(one.uri).replace(/[<>\s]/g, encodeURIComponent)}>`,
    one.reason === null ? "" : shown(one.reason),
    `## ${t("Rejected and expected")}`,
    diffBlock(one.rejected, one.expected, Infinity),
  ];
  if (found.prefix !== undefined && found.suffix !== undefined) {
    told.push(
      `## ${t("With the right code, in its place")}`,
      fenced(shown(found.prefix + one.expected + found.suffix), one.language),
    );
  }
  return `${told.filter(Boolean).join("\n\n")}\n`;
}
