import assert from "node:assert/strict";
import test from "node:test";

import { Shown } from "../src/shown";

const AROUND = { language: "python", line: 0, prefix: "", suffix: "" };
const near = (a: number, b: number) => Math.abs(a - b) < 10;

function of(...given: [id: string, uri: string, offset: number, text: string][]): Shown {
  const shown = new Shown();
  for (const [id, uri, offset, text] of given) shown.add(id, uri, offset, text, AROUND);
  return shown;
}

test("ghost text is what was given last at the cursor", () => {
  const shown = of(["1", "a", 5, "one"], ["2", "a", 5, "two"], ["3", "b", 5, "three"]);
  assert.equal(shown.ghost("a", 5, () => "")?.id, "2");
});

test("ghost text that has been typed into is still meant, one that was typed away from is not", () => {
  const shown = of(["1", "a", 5, "return x"]);
  assert.equal(shown.ghost("a", 8, () => "ret")?.id, "1");
  assert.equal(
    shown.ghost("a", 8, () => "rex"),
    undefined,
  );
  assert.equal(
    shown.ghost("a", 3, () => ""),
    undefined,
  );
});

test("an accepted completion is not ghost text any more, and is where its text is", () => {
  const shown = of(["1", "a", 5, "one\ntwo"]);
  assert.deepEqual(shown.accept("1", "\r\n")?.region, { start: 5, end: 13 });
  assert.equal(
    shown.ghost("a", 5, () => ""),
    undefined,
  );
  assert.equal(shown.around("a", 9)?.id, "1");
  assert.equal(shown.around("a", 14), undefined);
});

test("edits move it, and what is written into it belongs to it once it is accepted", () => {
  const shown = of(["1", "a", 5, "one"], ["2", "a", 20, "two"]);
  shown.accept("1", "\n");
  shown.edited("a", [{ offset: 0, length: 0, text: "##" }]);
  shown.edited("a", [{ offset: 10, length: 0, text: "s" }]);
  shown.edited("b", [{ offset: 0, length: 0, text: "##" }]);
  assert.deepEqual(shown.get("1")?.region, { start: 7, end: 11 });
  assert.deepEqual(shown.get("2")?.region, { start: 23, end: 23 });
});

test("typing where nothing was accepted does not become part of it", () => {
  const shown = of(["1", "a", 5, "one"]);
  shown.edited("a", [{ offset: 5, length: 0, text: "o" }]);
  assert.deepEqual(shown.get("1")?.region, { start: 5, end: 5 });
});

test("at a place, the accepted one there comes before any that is merely newer", () => {
  const shown = of(["1", "a", 5, "one"], ["2", "a", 8, "two"], ["3", "a", 500, "far"]);
  shown.accept("1", "\n");
  assert.equal(shown.at("a", 6, near)?.id, "1");
  assert.equal(shown.at("a", 495, near)?.id, "3");
  assert.equal(shown.at("c", 5, near), undefined);
});

test("far from all, the last accepted of the document is meant", () => {
  const shown = of(["1", "a", 5, "one"], ["2", "a", 8, "two"]);
  shown.accept("1", "\n");
  assert.equal(shown.at("a", 9000, near)?.id, "1");
  assert.equal(shown.last("a")?.id, "1");
  assert.equal(shown.last("b"), undefined);
});

test("one that was flagged is not meant again", () => {
  const shown = of(["1", "a", 5, "one"], ["2", "a", 5, "two"]);
  shown.drop("2");
  assert.equal(shown.ghost("a", 5, () => "")?.id, "1");
});

test("when its server is gone it is known to be forgotten, and when its file is renamed it follows", () => {
  const shown = of(["1", "a", 5, "one"]);
  shown.forgotten();
  shown.renamed("a", "b");
  assert.equal(shown.last("b")?.remembered, false);
});

test("ten that differ are all there to choose from, one that came twice only once", () => {
  const shown = of(["1", "a", 1, "one"], ["2", "a", 2, "two"], ["3", "a", 3, "one"]);
  assert.deepEqual(
    shown.recent().map(({ id }) => id),
    ["3", "2"],
  );
});

test("no more are kept than can be meant", () => {
  const shown = new Shown();
  for (let index = 0; index < 100; index++) shown.add(String(index), "a", index, String(index), AROUND);
  assert.equal(shown.recent().length, 32);
});
