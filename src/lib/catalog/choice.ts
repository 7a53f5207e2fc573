/** What is to be known of a backup before it is restored or verified: pure functions of it and the others in the bucket. */
import {type Backup, isOpenedBy, isRestorable, kindOf} from './backups.ts';

/** Says that rows were left out of a backup; undefined when none were. */
export function leftOutRows({excludedTableData = []}: Partial<Pick<Backup, 'excludedTableData'>>): string | undefined {
  return excludedTableData.length > 0 ? `without the rows of: ${excludedTableData.join(', ')}` : undefined;
}

/**
 * Warns of a backup that was taken because it is the newest.
 * @param others that it was chosen among, newest first
 * @param keyFingerprints of the keys at hand; undefined when it is not known what opens
 */
export function choiceWarnings(
  taken: Backup,
  others: readonly Backup[],
  keyFingerprints: readonly string[] | undefined,
): string[] {
  const warning = partialWarning(taken);
  if (warning === undefined) return [];
  const full = others.find(
    (other) =>
      isRestorable(other) &&
      kindOf(other) === 'full' &&
      other.database === taken.database &&
      isOpenedBy(other, keyFingerprints) !== false,
  );
  return [full ? `${warning}; the newest full backup is ${full.key}` : warning];
}

/** Warns of a backup that lacks rows. */
export function partialWarning(backup: Pick<Backup, 'key' | 'excludedTableData'>): string | undefined {
  const lacking = leftOutRows(backup);
  return lacking === undefined ? undefined : `the backup ${backup.key} was taken ${lacking} (--exclude-table-data)`;
}
