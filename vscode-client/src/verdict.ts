/**
 * What the gate found, read from a patch's `verdict`.
 *
 * The wire leaves its shape open (an older server, or a patch taken over from elsewhere, may lack parts): what
 * is not there, or is not what it should be, is null, and never stops the rest from showing.
 */

export interface TaughtCase {
  id: string;
  solved: boolean;
  before: string | null;
  after: string;
  reason: string | null;
}

export interface Gate {
  passed: boolean;
  cases: number;
  stillSolved: number;
  accepted: number;
  acceptedUnchanged: number;
  positions: number;
  unchanged: number;
  kl: number;
  minUnchanged: number;
  maxKl: number;
  reasons: string[];
}

export interface TriedBefore {
  steps: number;
  solved: number;
  cases: number;
  reasons: string[];
  /** Only where it differed from what went live. */
  settings: string;
}

export interface Verdict {
  cases: TaughtCase[];
  steps: number | null;
  seconds: number | null;
  layers: number[];
  gate: Gate | null;
  settings: string;
  attempts: TriedBefore[];
}

/** The verdict in a patch, or null when it has none. */
export function readVerdict(raw: Record<string, unknown> | null): Verdict | null {
  if (!raw || !Object.keys(raw).length) return null;
  const method = object(raw.method);
  return {
    cases: list(raw.cases).map(taught),
    steps: finite(raw.steps),
    seconds: finite(raw.seconds),
    layers: list(raw.layers).flatMap((each) => finite(each.layer) ?? []),
    gate: gate(raw.gate),
    settings: settings(method),
    attempts: list(raw.attempts).map((each) => tried(each, method)),
  };
}

function taught(raw: Raw): TaughtCase {
  return {
    id: text(raw.id) ?? "",
    solved: raw.solved === true,
    before: text(raw.before),
    after: text(raw.after) ?? "",
    reason: text(raw.reason),
  };
}

function gate(found: unknown): Gate | null {
  const raw = object(found);
  const limits = object(raw.limits);
  const numbers = [
    raw.cases, raw.still_solved, raw.accepted, raw.accepted_unchanged, raw.positions, raw.unchanged, raw.kl,
    limits.min_unchanged, limits.max_kl,
  ].map(finite); // prettier-ignore
  if (numbers.includes(null)) return null;
  const [cases, stillSolved, accepted, acceptedUnchanged, positions, unchanged, kl, minUnchanged, maxKl] =
    numbers as [number, number, number, number, number, number, number, number, number];
  return {
    passed: raw.passed === true,
    cases,
    stillSolved,
    accepted,
    acceptedUnchanged,
    positions,
    unchanged,
    kl,
    minUnchanged,
    maxKl,
    reasons: texts(raw.reasons),
  };
}

function tried(raw: Raw, method: Raw): TriedBefore {
  const other = Object.entries(object(raw.method)).filter(([name, value]) => method[name] !== value);
  return {
    steps: finite(raw.steps) ?? 0,
    solved: finite(raw.solved) ?? 0,
    cases: finite(raw.cases) ?? 0,
    reasons: texts(raw.reasons),
    settings: settings(Object.fromEntries(other)),
  };
}

/** Settings as `name value`, in their own words: they are names of the repair's, the same in every language. */
function settings(method: Raw): string {
  return Object.entries(method)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(
      ([name, value]) =>
        `${name} ${typeof value === "number" ? Number(value.toPrecision(3)) : String(value)}`,
    )
    .join(", ");
}

type Raw = Record<string, unknown>;

function object(raw: unknown): Raw {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw) ? (raw as Raw) : {};
}

function list(raw: unknown): Raw[] {
  return Array.isArray(raw) ? raw.map(object) : [];
}

function texts(raw: unknown): string[] {
  return Array.isArray(raw) ? raw.filter((each): each is string => typeof each === "string") : [];
}

function text(raw: unknown): string | null {
  return typeof raw === "string" ? raw : null;
}

function finite(raw: unknown): number | null {
  return typeof raw === "number" && Number.isFinite(raw) ? raw : null;
}
