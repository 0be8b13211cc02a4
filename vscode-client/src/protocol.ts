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
  listPatches: "star.listPatches",
  revert: "star.revert",
  status: "star.status",
} as const;

export const Notification = {
  didChange: "star/didChange",
} as const;

export type CaseStatus = "pending" | "repairing" | "solved" | "failed" | "reverted";
export type ServerState = "downloading" | "loading" | "ready" | "repairing" | "failed";
export type Changed = "cases" | "patches" | "revision" | "state";

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

/** The case that was stored; its repair follows with progress. */
export interface FlagResult {
  caseId: string;
  status: CaseStatus;
}

/** Repair these cases, or all pending ones, in one go. */
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

/** A case; `createdAt` is ISO 8601 in UTC. */
export interface CaseInfo {
  id: string;
  status: CaseStatus;
  language: string;
  uri: string | null;
  rejected: string;
  expected: string;
  patchId: string | null;
  reason: string | null;
  createdAt: string;
}

/** Forget a case. */
export interface DeleteCaseParams {
  caseId: string;
}

/** Whether there was such a case. */
export interface DeleteCaseResult {
  deleted: boolean;
}

/** A patch; `revision` is the one it led to, `verdict` what the gate found. */
export interface PatchInfo {
  id: string;
  cases: string[];
  active: boolean;
  revision: string | null;
  createdAt: string;
  verdict: Record<string, unknown> | null;
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

/** Memory in bytes: all that is resident, and what is not shared; null while there is no worker. */
export interface Memory {
  serverBytes: number;
  serverPrivateBytes: number;
  workerBytes: number | null;
  workerPrivateBytes: number | null;
}

/** How the server is; `queue` is how many cases wait for their repair. */
export interface StatusResult {
  state: ServerState;
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
