/** Things that must happen one after another, and how often a server may be started again. */

/** Runs tasks in the order they came; a task that failed holds up no other. */
export class Queue {
  private last: Promise<unknown> = Promise.resolve();
  private readonly waiting = new Map<string, Promise<unknown>>();

  /** Run a task when all before it have ended. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.last.then(task, task);
    this.last = result.catch(() => undefined);
    return result;
  }

  /** Like `run`, but while a task of the same name still waits for its turn, that one stands for both. */
  once<T>(name: string, task: () => Promise<T>): Promise<T> {
    const same = this.waiting.get(name);
    if (same) {
      return same as Promise<T>;
    }
    const result = this.run(() => {
      this.waiting.delete(name);
      return task();
    });
    this.waiting.set(name, result);
    return result;
  }
}

/** Counts crashes: after too many within a while, another start would only crash again. */
export class Crashes {
  private times: number[] = [];

  constructor(
    private readonly most = 5,
    private readonly milliseconds = 3 * 60 * 1000,
  ) {}

  /** One more; how long to wait before the next start, or undefined when there should be none. */
  add(now: number): number | undefined {
    this.times = this.times.filter((time) => now - time < this.milliseconds);
    this.times.push(now);
    const count = this.times.length;
    return count > this.most ? undefined : 250 * 2 ** (count - 1);
  }

  /** Someone who asks for a start by hand begins anew. */
  clear(): void {
    this.times = [];
  }
}
