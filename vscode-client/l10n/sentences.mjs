/**
 * The sentences that the code says.
 *
 * A sentence is the first argument, as a plain string, of `vscode.l10n.t` or of the `t` of `Words`.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const SENTENCE = /\bt\(\s*("(?:[^"\\\n]|\\.)*")/g;
/** One of two sentences. */
const EITHER = /\bt\(\s*[^"?;][^?;]{0,80}\?\s*("(?:[^"\\\n]|\\.)*")\s*:\s*("(?:[^"\\\n]|\\.)*")/g;
/** A call with anything else than a plain string could never be translated. */
const OTHER = /\bl10n\.t\((?!\s*")([^)]{0,40})/g;

/** All sentences in a folder of sources, sorted. */
export function sentences(folder) {
  const found = new Set();
  for (const name of readdirSync(folder).filter((each) => each.endsWith(".ts"))) {
    const text = readFileSync(join(folder, name), "utf8");
    for (const [, literal] of text.matchAll(SENTENCE)) found.add(JSON.parse(literal));
    const either = [...text.matchAll(EITHER)];
    for (const [, one, another] of either) found.add(JSON.parse(one)).add(JSON.parse(another));
    const odd = [...text.matchAll(OTHER)].filter(([, other]) => !other.startsWith("sentence, ...fill"));
    for (const [call, other] of odd) {
      if (!either.some(([whole]) => whole.includes(call.slice(call.indexOf("t(")))))
        throw new Error(`${name}: l10n.t(${other} … is no plain string`);
    }
  }
  return [...found].sort();
}
