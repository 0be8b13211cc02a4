import assert from "node:assert/strict";
import test from "node:test";

import { after, type Edit, moved, narrowed } from "../src/region";

/** The region marked by ‹ and › in a text. */
function marked(text: string) {
  const start = text.indexOf("‹");
  return { text: text.replace(/[‹›]/g, ""), region: { start, end: text.indexOf("›") - 1 } };
}

function edited(text: string, { offset, length, text: by }: Edit): string {
  return text.slice(0, offset) + by + text.slice(offset + length);
}

/** Does an edit to a marked text, and marks what the region is then. */
function played(before: string, edit: Edit): string | undefined {
  const { text, region } = marked(before);
  const now = moved(region, edit);
  const result = edited(text, edit);
  return now && `${result.slice(0, now.start)}‹${result.slice(now.start, now.end)}›${result.slice(now.end)}`;
}

const insert = (offset: number, text: string): Edit => ({ offset, length: 0, text });
const cut = (offset: number, length: number, text = ""): Edit => ({ offset, length, text });

test("what is typed inside or at either end belongs to the region", () => {
  assert.equal(played("a‹bc›d", insert(2, "X")), "a‹bXc›d");
  assert.equal(played("a‹bc›d", insert(1, "X")), "a‹Xbc›d");
  assert.equal(played("a‹bc›d", insert(3, "X")), "a‹bcX›d");
  assert.equal(played("a‹›d", insert(1, "X")), "a‹X›d");
});

test("what is typed elsewhere only moves it", () => {
  assert.equal(played("ab‹c›de", insert(0, "XX")), "XXab‹c›de");
  assert.equal(played("ab‹c›de", insert(5, "XX")), "ab‹c›deXX");
  assert.equal(played("ab‹c›de", cut(0, 2)), "‹c›de");
  assert.equal(played("ab‹c›de", cut(3, 2, "X")), "ab‹c›X");
  assert.equal(played("ab‹›de", cut(0, 2, "X")), "X‹›de");
});

test("all of it can be replaced and written anew", () => {
  assert.equal(played("a‹bc›d", cut(1, 2, "new")), "a‹new›d");
  assert.equal(played("a‹bc›d", cut(1, 2)), "a‹›d");
});

test("of an edit across one end the rest of the region stays", () => {
  assert.equal(played("ab‹cd›ef", cut(1, 2, "X")), "aX‹d›ef");
  assert.equal(played("ab‹cd›ef", cut(3, 2, "X")), "ab‹c›Xf");
});

test("an edit of more than all of it ends it", () => {
  assert.equal(played("ab‹cd›ef", cut(1, 4, "X")), undefined);
  assert.equal(played("ab‹cd›ef", cut(1, 3, "X")), undefined);
  assert.equal(played("ab‹cd›ef", cut(2, 3, "X")), undefined);
});

test("several edits of one event count in the text before all of them", () => {
  const edits = [insert(0, "__"), insert(3, "X"), insert(6, "!")];
  assert.deepEqual(after({ start: 2, end: 4 }, edits), { start: 4, end: 7 });
});

test("a whole document written anew, as formatters do, is only what differs", () => {
  const old = "a = 1\nb=2\nc = 3\n";
  const now = narrowed({ offset: 0, length: old.length, text: "a = 1\nb = 2\nc = 3\n" }, old);
  assert.equal(edited(old, now), "a = 1\nb = 2\nc = 3\n");
  assert.deepEqual(moved({ start: 6, end: 9 }, now), { start: 6, end: 11 });
});

test("narrowing never takes away more than there is", () => {
  assert.deepEqual(narrowed({ offset: 5, length: 2, text: "aa" }, "aa"), { offset: 7, length: 0, text: "" });
  assert.deepEqual(narrowed({ offset: 5, length: 3, text: "aa" }, "aaa"), { offset: 7, length: 1, text: "" });
  assert.deepEqual(narrowed({ offset: 5, length: 1, text: "aa" }, "a"), { offset: 6, length: 0, text: "a" });
});

test("a region that is followed holds what stands between its neighbours, whatever is edited in it", () => {
  let seed = 7;
  const random = (most: number) => (seed = (seed * 48_271) % 2_147_483_647) % (most + 1);
  for (let round = 0; round < 300; round++) {
    const left = "<".repeat(1 + random(5));
    const right = ">".repeat(1 + random(5));
    let text = `${left}one${right}`;
    let region = { start: left.length, end: left.length + 3 };
    for (let step = 0; step < 8; step++) {
      const offset = region.start + random(region.end - region.start);
      const edit = { offset, length: random(region.end - offset), text: "x".repeat(random(3)) };
      region = moved(region, edit) ?? assert.fail("lost");
      text = edited(text, edit);
      assert.equal(text.slice(0, region.start), left);
      assert.equal(text.slice(region.end), right);
    }
  }
});
