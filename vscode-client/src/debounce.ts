/** How long to wait before a completion is asked for: on a slow machine, until the typing pauses. */

const GAP_COUNTS_UNTIL = 1000;
const MOST = 600;

/** Learns how fast someone types and how fast the server answers. */
export class Debounce {
  private gap = 150;
  private answer = 0;
  private last = -Infinity;

  /** A request that the editor makes by itself; how many milliseconds to hold it back. */
  ask(now: number, least: number): number {
    const gap = now - this.last;
    this.last = now;
    if (gap < GAP_COUNTS_UNTIL) {
      this.gap += 0.2 * (gap - this.gap);
    }
    // An answer that is there before the next key costs nothing; any other is work thrown away.
    return this.answer <= this.gap ? least : Math.max(least, Math.min(MOST, 1.5 * this.gap));
  }

  /** The server took this long. */
  answered(milliseconds: number): void {
    this.answer += 0.3 * (milliseconds - this.answer);
  }
}
