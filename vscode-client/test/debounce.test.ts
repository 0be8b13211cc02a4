import assert from "node:assert/strict";
import test from "node:test";

import { Debounce } from "../src/debounce";

/** Types keys with a gap between them; the wait before the last request. */
function typing(debounce: Debounce, gap: number, keys: number): number {
  let wait = 0;
  for (let key = 0; key < keys; key++) wait = debounce.ask(10_000 + key * gap, 75);
  return wait;
}

test("while answers come faster than keys, the least wait is enough", () => {
  const debounce = new Debounce();
  for (let each = 0; each < 20; each++) debounce.answered(50);
  assert.equal(typing(debounce, 120, 20), 75);
});

test("on a slow machine a request waits until the typing pauses", () => {
  const debounce = new Debounce();
  for (let each = 0; each < 20; each++) debounce.answered(900);
  const wait = typing(debounce, 120, 20);
  assert.ok(wait > 120 && wait < 300, String(wait));
});

test("it never waits long, and a pause for thought is not taken for slow typing", () => {
  const debounce = new Debounce();
  for (let each = 0; each < 20; each++) debounce.answered(20_000);
  assert.ok(typing(debounce, 900, 20) <= 600);
  const other = new Debounce();
  other.answered(5000);
  assert.ok(typing(other, 5000, 20) < 300);
});
