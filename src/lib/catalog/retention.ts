/** Which backups are kept, and why: a pure function of the backups, the policy, the keys at hand and the time. */
import {type Backup, isOpenedBy, isRestorable, kindOf} from './backups.ts';

export interface RetentionPolicy {
  /** Backups younger than this are kept. */
  keepDays: number;
  /** So many of the newest backups of each group (see `groupOf`) are kept, however old they are. */
  keepLast: number;
}

export const defaultRetention: RetentionPolicy = {keepDays: 30, keepLast: 7};

export interface RetentionDecision<B> {
  backup: B;
  action: 'keep' | 'delete';
  /** Goes on from "keep, because …" or "delete, because …". */
  because: string;
}

type Judged = Pick<
  Backup,
  | 'key'
  | 'startedAt'
  | 'state'
  | 'isHeld'
  | 'database'
  | 'label'
  | 'excludedTableData'
  | 'keyFingerprint'
  | 'seal'
  | 'modifiedAt'
>;

const dayMs = 86_400_000;
/** A backup without a manifest may be one that another run is about to publish. */
const unfinishedDays = 1;

/**
 * Decides for every backup, newest first.
 * @param keyFingerprints of the keys at hand; undefined when there are none
 */
export function planRetention<B extends Judged>(
  backups: readonly B[],
  policy: RetentionPolicy,
  keyFingerprints: readonly string[] | undefined,
  now: Date,
): RetentionDecision<B>[] {
  const newestFirst = [...backups].sort((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
  const groups = Map.groupBy(newestFirst.filter(isRestorable), (backup) => groupOf(backup, keyFingerprints));
  const newest = new Set([...groups.values()].flatMap((group) => group.slice(0, policy.keepLast)));
  return newestFirst.map((backup) => {
    const ageDays = (now.getTime() - backup.startedAt.getTime()) / dayMs;
    const keep = (because: string) => ({backup, action: 'keep' as const, because});
    if (backup.isHeld) return keep('it is held');
    if (newest.has(backup)) {
      const isPlural = policy.keepLast > 1;
      const group = describeGroup(backup, keyFingerprints, isPlural);
      return keep(isPlural ? `it is one of the newest ${policy.keepLast} ${group}` : `it is the newest ${group}`);
    }
    if (ageDays <= policy.keepDays) return keep(`it is not older than ${days(policy.keepDays)}`);
    if (backup.state === 'incomplete' && mayBeUnderWay(backup, now)) return keep('it may be under way');
    // Its object may be good, and whoever altered the manifest may have wanted it gone.
    if (backup.state === 'damaged') return keep('it is damaged: a person should look at it');
    const what = backup.state === 'incomplete' ? 'it is incomplete, and older' : 'it is older';
    return {backup, action: 'delete', because: `${what} than ${days(policy.keepDays)}`};
  });
}

/**
 * The group in which a backup competes for a place among the newest: those of the same database and kind, which the keys at
 * hand open as well or as little. What lacks rows, or only another key opens, must not push out what somebody would restore.
 */
function groupOf(backup: Judged, keyFingerprints: readonly string[] | undefined): string {
  const isLegacy = backup.state === 'legacy';
  return JSON.stringify([backup.database, kindOf(backup), isLegacy, isOpenedBy(backup, keyFingerprints)]);
}

/** The same for people. */
function describeGroup(backup: Judged, keyFingerprints: readonly string[] | undefined, isPlural: boolean): string {
  const kind = kindOf(backup);
  const isOpened = isOpenedBy(backup, keyFingerprints);
  return [
    kind === 'pre-restore' ? 'pre-restore ' : '',
    isPlural ? 'backups' : 'backup',
    ` of ${backup.database ?? 'a database that is not recorded'}`,
    kind === 'partial' ? ' with rows left out' : '',
    backup.state === 'legacy' ? ' in the older form' : '',
    isOpened === undefined ? '' : isOpened ? ' that can be restored' : ' that no configured key opens',
  ].join('');
}

/** Not by its name alone: one of the older form that is sealed anew is named as it was. */
function mayBeUnderWay({startedAt, modifiedAt = startedAt}: Judged, now: Date): boolean {
  const newest = Math.max(startedAt.getTime(), modifiedAt.getTime());
  return now.getTime() - newest <= unfinishedDays * dayMs;
}

function days(count: number): string {
  return count === 1 ? '1 day' : `${count} days`;
}
