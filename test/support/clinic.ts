/** The SQL of a small clinic's database: everything that PostgreSQL can hold and a backup tends to trip over. */
import {clinicRows} from './clinic-rows.ts';
import {clinicAfterRows, clinicTables} from './clinic-schema.ts';

export interface ClinicOptions {
  /**
   * How much of everything there is. Default 100. A plain dump grows by 4.9 KB a patient: measured, 1,000 patients are
   * 4.9 MB (loaded in 0.6 s), 102,000 are 500 MB (loaded in 31 s). gzip -1 makes 35 % of it, zstd -1 30 %.
   */
  patients?: number;
}

/**
 * SQL for psql. The rows are made by the server from md5 sums of their numbers: the same database every time, without
 * a large script, and no real person in it.
 */
export function clinicSql({patients = 100}: ClinicOptions = {}): string {
  if (!Number.isSafeInteger(patients) || patients < 1) throw new Error(`A clinic needs patients: ${patients}.`);
  return `BEGIN;\n${clinicTables}\n${clinicRows(patients)}\n${clinicAfterRows}\nCOMMIT;\nANALYZE;\n`;
}
