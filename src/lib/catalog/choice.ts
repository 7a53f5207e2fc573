/** What is to be known of a backup before it is restored or verified: pure functions of it and the others in the bucket. */
import {type Backup, isOpenedBy, isRegular, kindOf} from './backups.ts';

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
  const regular = others.filter(isRegular);
  const full = regular.find(
    (other) =>
      kindOf(other) === 'full' && other.database === taken.database && isOpenedBy(other, keyFingerprints) !== false,
  );
  const warning = partialWarning(taken);
  return [
    ...(warning === undefined ? [] : [full ? `${warning}; the newest full backup is ${full.key}` : warning]),
    ...otherDatabases(taken, regular),
  ];
}

/** More of them say nothing more. */
const mostDatabases = 5;

/** The newest backup may be of another database than the one that is meant. */
function otherDatabases(taken: Backup, regular: readonly Backup[]): string[] {
  const newest = new Map<string, string>();
  for (const {database, key} of regular) {
    if (database !== undefined && database !== taken.database && !newest.has(database)) newest.set(database, key);
  }
  if (newest.size === 0) return [];
  const shown = [...newest].slice(0, mostDatabases).map(([database, key]) => `of ${database}: ${key}`);
  const more = newest.size > shown.length ? [`and ${newest.size - shown.length} more`] : [];
  return [
    `the store holds backups of several databases, and ${taken.key} is of ${taken.database ?? 'one that is not recorded'}; ` +
      `the newest ${[...shown, ...more].join('; ')}`,
  ];
}

/** Warns of a backup that lacks rows. */
export function partialWarning(backup: Pick<Backup, 'key' | 'excludedTableData'>): string | undefined {
  const lacking = leftOutRows(backup);
  return lacking === undefined ? undefined : `the backup ${backup.key} was taken ${lacking} (--exclude-table-data)`;
}
