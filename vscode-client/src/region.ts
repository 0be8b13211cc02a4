/** A stretch of a document that is followed through edits. Offsets are UTF-16 units, as VS Code counts. */

export interface Region {
  readonly start: number;
  readonly end: number;
}

/** Replaces `length` units from `offset` by `text`. */
export interface Edit {
  readonly offset: number;
  readonly length: number;
  readonly text: string;
}

/**
 * Where a region is after an edit, or undefined when the edit replaced more than all of it.
 *
 * What is typed at either end belongs to the region: it is being written. Of an edit across one end, only
 * what is left of the region stays in it.
 */
export function moved(region: Region, edit: Edit): Region | undefined {
  const { start, end } = region;
  const until = edit.offset + edit.length;
  const grown = edit.text.length - edit.length;
  if (until < start) {
    return { start: start + grown, end: end + grown };
  }
  if (edit.offset > end) {
    return region;
  }
  if (edit.offset >= start && until <= end) {
    return { start, end: end + grown };
  }
  if (edit.length && until === start) {
    return { start: start + grown, end: end + grown };
  }
  if (edit.length && edit.offset === end) {
    return region;
  }
  if (edit.offset < start && until > end) {
    return undefined;
  }
  if (edit.offset < start && until === end) {
    return start === end ? { start: start + grown, end: end + grown } : undefined;
  }
  if (edit.offset === start && until > end) {
    return start === end ? region : undefined;
  }
  if (edit.offset < start) {
    const cut = edit.offset + edit.text.length;
    return { start: cut, end: end + grown };
  }
  return { start, end: edit.offset };
}

/** Where a region is after several edits of one event, which VS Code gives last place first. */
export function after(region: Region, edits: readonly Edit[]): Region | undefined {
  let now: Region | undefined = region;
  // Each offset counts in the text as it was before all of them: from the last place on none moves another.
  for (const edit of [...edits].sort((a, b) => b.offset - a.offset)) {
    now = now && moved(now, edit);
  }
  return now;
}

/** The same edit without what it leaves as it was at either end; `removed` is the text it replaces. */
export function narrowed(edit: Edit, removed: string): Edit {
  const least = Math.min(removed.length, edit.text.length);
  let left = 0;
  while (left < least && removed[left] === edit.text[left]) {
    left++;
  }
  let right = 0;
  while (
    right < least - left &&
    removed[removed.length - 1 - right] === edit.text[edit.text.length - 1 - right]
  ) {
    right++;
  }
  return {
    offset: edit.offset + left,
    length: edit.length - left - right,
    text: edit.text.slice(left, edit.text.length - right),
  };
}
