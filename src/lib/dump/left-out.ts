/** Something of a backup that a restore did not bring back, on purpose. */
export interface LeftOut {
  /** `foreign key visits_patient_id_fkey of public.visits`. */
  what: string;
  because: string;
  /** What would bring it back, when its time has come; undefined when that is long, or not known. */
  sql: string | undefined;
}
