/**
 * Writes the sentences that the code says to bundle.l10n.json, each its own translation, and says what the
 * other bundles lack or no longer need: `node l10n/collect.mjs`.
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { sentences } from "./sentences.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const all = sentences(join(here, "..", "src"));
const bundle = `${JSON.stringify(Object.fromEntries(all.map((each) => [each, each])), null, 2)}\n`;
writeFileSync(join(here, "bundle.l10n.json"), bundle);
for (const name of readdirSync(here).filter((each) => /^bundle\.l10n\..+\.json$/.test(each))) {
  const known = Object.keys(JSON.parse(readFileSync(join(here, name), "utf8")));
  for (const each of all.filter((one) => !known.includes(one)))
    console.log(`${name} lacks ${JSON.stringify(each)}`);
  for (const each of known.filter((one) => !all.includes(one)))
    console.log(`${name}: unused ${JSON.stringify(each)}`);
}
