import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { sentences } from "../l10n/sentences.mjs";

const read = (name: string): Record<string, string> => JSON.parse(readFileSync(name, "utf8"));
const keys = (name: string): string[] => Object.keys(read(name)).sort();
const HOW = "run `node l10n/collect.mjs`, and translate what it says is missing";

test("every sentence that the code says is in the bundle and its translation, and none besides", () => {
  const said = sentences("src");
  assert.ok(said.length > 100);
  for (const name of ["l10n/bundle.l10n.json", "l10n/bundle.l10n.de.json"]) {
    const known = keys(name);
    const lacks = said.filter((each) => !known.includes(each));
    const unused = known.filter((each) => !said.includes(each));
    assert.deepEqual({ lacks, unused }, { lacks: [], unused: [] }, `${name}: ${HOW}`);
  }
});

test("a translation fills in what the sentence fills in", () => {
  const holes = (text: string): string[] => [...new Set(text.match(/\{\d+\}/g))].sort();
  for (const [sentence, translated] of Object.entries(read("l10n/bundle.l10n.de.json"))) {
    assert.deepEqual(holes(translated), holes(sentence), sentence);
    assert.ok(translated.trim(), sentence);
  }
});

test("every key of package.json has its words, in both languages, and none is left over", () => {
  const text = readFileSync("package.json", "utf8");
  const used = [...new Set([...text.matchAll(/"%([\w.-]+)%"/g)].map((each) => each[1]!))].sort();
  assert.deepEqual(keys("package.nls.json"), used);
  assert.deepEqual(keys("package.nls.de.json"), used);
});

test("every command that a text links to is one of ours or the editor's", () => {
  const ours = new Set<string>(
    JSON.parse(readFileSync("package.json", "utf8")).contributes.commands.map(
      (each: { command: string }) => each.command,
    ),
  );
  for (const text of [
    ...Object.values(read("package.nls.json")),
    ...Object.values(read("package.nls.de.json")),
  ]) {
    for (const [, command] of text.matchAll(/\(command:([\w.-]+)\)/g)) {
      assert.ok(ours.has(command!) || /^(workbench\.|star-lsp\.cases\.focus$)/.test(command!), command);
    }
  }
});
