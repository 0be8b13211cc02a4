/** The server as the rest of the extension sees it: every command of ours as a typed call, and its news. */

import type * as p from "./protocol";

/** Told when something changed on the server; disposes of itself. */
export interface Subscription {
  dispose(): void;
}

/** Rejects with the server's own sentence (an `Error` with that message) when a request cannot be done. */
export interface Star {
  flag(params: p.FlagParams): Promise<p.FlagResult>;
  unflag(params: p.UnflagParams): Promise<p.UnflagResult>;
  repairAll(params: p.RepairAllParams): Promise<p.RepairAllResult>;
  cancelRepair(params: p.CancelRepairParams): Promise<p.CancelRepairResult>;
  estimate(params: p.EstimateParams): Promise<p.EstimateResult>;
  cases(params?: p.ListCasesParams): Promise<p.CaseInfo[]>;
  deleteCase(params: p.DeleteCaseParams): Promise<p.DeleteCaseResult>;
  patches(): Promise<p.PatchInfo[]>;
  showPatch(params: p.ShowPatchParams): Promise<p.PatchReport>;
  compare(params: p.CompareParams): Promise<p.CompareResult>;
  revert(params: p.RevertParams): Promise<p.RevertResult>;
  why(params?: p.WhyParams): Promise<p.Nothing[]>;
  status(): Promise<p.StatusResult>;
  /** Something changed; also called, with everything, when a server has come (back) up. */
  onDidChange(listener: (news: p.DidChangeParams) => void): Subscription;
}
