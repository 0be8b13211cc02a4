import assert from "node:assert/strict";
import test from "node:test";

import { Crashes, Queue } from "../src/queue";

const later = () => new Promise((resolve) => setTimeout(resolve, 5));

test("tasks run one after another, in the order they came", async () => {
  const queue = new Queue();
  const seen: string[] = [];
  const task = (name: string) => async () => {
    seen.push(`${name} begins`);
    await later();
    seen.push(`${name} ends`);
  };
  await Promise.all([queue.run(task("a")), queue.run(task("b"))]);
  assert.deepEqual(seen, ["a begins", "a ends", "b begins", "b ends"]);
});

test("a task that fails is told of and holds up no other", async () => {
  const queue = new Queue();
  const failed = queue.run(() => Promise.reject(new Error("no")));
  const next = queue.run(() => Promise.resolve("yes"));
  await assert.rejects(failed, /no/);
  assert.equal(await next, "yes");
});

test("ten restarts asked for in a row are one that runs and one that waits", async () => {
  const queue = new Queue();
  let count = 0;
  const restart = () =>
    queue.once("restart", async () => {
      await later();
      count++;
    });
  const first = restart();
  await Promise.resolve().then(() => undefined);
  await Promise.all([first, ...Array.from({ length: 9 }, restart)]);
  assert.ok(count <= 2, `${count} restarts`);
});

test("a task asked for while one of its name runs has its own turn", async () => {
  const queue = new Queue();
  let count = 0;
  const task = async () => void count++;
  await queue.once("look", task);
  await queue.once("look", task);
  assert.equal(count, 2);
});

test("a server is started again five times in three minutes, each time after a longer wait", () => {
  const crashes = new Crashes();
  const waits = Array.from({ length: 6 }, (_, index) => crashes.add(1000 * index));
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, undefined]);
});

test("crashes long ago do not count, nor those before a start by hand", () => {
  const crashes = new Crashes();
  for (let index = 0; index < 5; index++) crashes.add(0);
  assert.equal(crashes.add(10 * 60 * 1000), 250);
  crashes.clear();
  assert.equal(crashes.add(10 * 60 * 1000), 250);
});
