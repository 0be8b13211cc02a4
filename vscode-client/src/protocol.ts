/**
 * Every message beyond LSP: what a command takes, what it returns, what the server tells by itself.
 *
 * Twin of server/star_lsp/protocol.py; tests/server/test_protocol.py holds the two equal. A field that is
 * optional here may be left out on the wire; one that may be null is always sent.
 */

export const Command = {
  flag: "star.flag",
  repairAll: "star.repairAll",
  cancelRepair: "star.cancelRepair",
  accept: "star.accept",
  listCases: "star.listCases",
  deleteCase: "star.deleteCase",
  unflag: "star.unflag",
  listPatches: "star.listPatches",
  showPatch: "star.showPatch",
  compare: "star.compare",
  revert: "star.revert",
  estimate: "star.estimate",
  why: "star.why",
  status: "star.status",
} as const;

export const Notification = {
  didChange: "star/didChange",
} as const;

/** What is asked of the server that all editors share. */
export const Control = {
  about: "star/about",
  stop: "star/stop",
} as const;

export type CaseStatus = "pending" | "repairing" | "solved" | "failed" | "reverted";
export type ServerState = "downloading" | "loading" | "ready" | "repairing" | "failed";
export type Changed = "cases" | "patches" | "revision" | "state";
export type ComparedKind = "flagged" | "sibling" | "neighbour";

/** A place in a document, as LSP has it: both from 0, characters in UTF-16 units. */
export interface Position {
  line: number;
  character: number;
}

/** A completion is wrong. It is named by its id, or is the last one shown at a place. */
export interface FlagParams {
  completionId?: string;
  uri?: string;
  position?: Position;
  expected?: string;
  note?: string;
}

/**
 * The case that was stored; its repair follows with progress. `masked` names the kinds of what looked like a
 * secret in it and has a placeholder instead.
 */
export interface FlagResult {
  caseId: string;
  status: CaseStatus;
  masked?: string[];
}

/** Repair these cases, or all pending ones, in one go; one of another model as one of this model's own. */
export interface RepairAllParams {
  cases?: string[];
  fromBase?: boolean;
}

/** The repair that was queued, and the cases it is for. */
export interface RepairAllResult {
  repairId: string;
  cases: string[];
}

/** Stop a repair, named by itself or by a case it is for. */
export interface CancelRepairParams {
  repairId?: string;
  caseId?: string;
}

/** Whether there was something to stop. */
export interface CancelRepairResult {
  cancelled: boolean;
}

/** A completion was taken over into the document. */
export interface AcceptParams {
  completionId: string;
}

/** Whether the completion was still remembered. */
export interface AcceptResult {
  accepted: boolean;
}

/** All cases, or those of one status. */
export interface ListCasesParams {
  status?: CaseStatus;
}

/**
 * A case; `createdAt` is ISO 8601 in UTC, `position` is where it was flagged in `uri`. `elsewhere` says that it
 * is the case of another `model` than the one in use.
 */
export interface CaseInfo {
  id: string;
  status: CaseStatus;
  language: string;
  uri: string | null;
  position: Position | null;
  rejected: string;
  expected: string;
  patchId: string | null;
  reason: string | null;
  createdAt: string;
  model: string;
  elsewhere?: boolean;
}

/** Forget a case. */
export interface DeleteCaseParams {
  caseId: string;
}

/** Whether there was such a case. */
export interface DeleteCaseResult {
  deleted: boolean;
}

/** Undo a flag, however far its repair has come. */
export interface UnflagParams {
  caseId: string;
}

/** What the case was before it was forgotten; what was solved is reverted too. */
export interface UnflagResult {
  was: CaseStatus;
}

/**
 * A patch of `base`; `revision` is the one it led to, `verdict` what the gate found. In a list of the server's
 * it is active when it is in the history of the model in use.
 */
export interface PatchInfo {
  id: string;
  base: string;
  cases: string[];
  active: boolean;
  revision: string | null;
  createdAt: string;
  verdict: Record<string, unknown> | null;
}

/** Everything about one patch. */
export interface ShowPatchParams {
  patchId: string;
}

/** A case with the lines around its place. */
export interface CaseContext {
  case: CaseInfo;
  prefix: string;
  suffix: string;
}

/** A neuron whose row of the output projection moved, and by how much (L2 norm). */
export interface MovedNeuron {
  neuron: number;
  norm: number;
}

/** A layer of which a patch moves some of `width` neurons; `most` has those that moved most. */
export interface MovedLayer {
  layer: number;
  neurons: number;
  width: number;
  norm: number;
  most: MovedNeuron[];
}

/**
 * A place, and what the model writes there without the patch and with it.
 *
 * `where` says in words how it differs from the flagged place, `prefix` and `suffix` are the lines around
 * it, `expected` is what should be there if that is known.
 */
export interface Compared {
  kind: ComparedKind;
  caseId: string;
  where: string;
  prefix: string;
  suffix: string;
  expected: string | null;
  before: string;
  after: string;
}

/** A patch in full; `depth` is how many layers the model has, `comparison` null until it was made. */
export interface PatchReport {
  patch: PatchInfo;
  cases: CaseContext[];
  depth: number;
  layers: MovedLayer[];
  bytes: number;
  comparison: Compared[] | null;
}

/** Have the model write at flagged places, siblings and neighbours, without the patch and with it. */
export interface CompareParams {
  patchId: string;
}

/** What it wrote; kept, and part of the report from now on. */
export interface CompareResult {
  comparison: Compared[];
}

/** Take back a patch, or what was done for a case. */
export interface RevertParams {
  patchId?: string;
  caseId?: string;
}

/** The revision that is served from now on. */
export interface RevertResult {
  revision: string;
}

/** How long would a repair of these cases take, or of all pending ones, as one system? */
export interface EstimateParams {
  cases?: string[];
}

/** About how long it takes, from what earlier repairs took, and how many cases it is for. */
export interface EstimateResult {
  seconds: number;
  cases: number;
}

/** Why was nothing suggested: in one document, or anywhere? */
export interface WhyParams {
  uri?: string;
}

/** A request that was answered with nothing: where, why, and when (ISO 8601 in UTC). */
export interface Nothing {
  uri: string;
  position: Position;
  reason: string;
  at: string;
}

/** Memory in bytes: all that is resident, and what is not shared; null while there is no worker. */
export interface Memory {
  serverBytes: number;
  serverPrivateBytes: number;
  workerBytes: number | null;
  workerPrivateBytes: number | null;
}

/** Long work that is under way, as its progress is told. */
export interface Working {
  title: string;
  message: string;
  percent: number;
}

/** How the server is; `queue` is how many cases wait for a repair, `failure` why it cannot serve. */
export interface StatusResult {
  state: ServerState;
  failure: string | null;
  working: Working | null;
  model: string;
  revision: string | null;
  queue: number;
  workerPid: number | null;
  memory: Memory | null;
}

/** Something that clients may show is no longer what it was. */
export interface DidChangeParams {
  what: Changed[];
  state: ServerState;
  revision: string | null;
}
