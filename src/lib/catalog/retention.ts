/** Which backups are kept, and why: a pure function of the backups, the policy and the time. */
import {type Backup, isRestorable} from './backups.ts';

export interface RetentionPolicy {
  /** Backups younger than this are kept. */
  keepDays: number;
  /** So many of the newest backups of each database that can be restored are kept, however old they are. */
  keepLast: number;
}

export const defaultRetention: RetentionPolicy = {keepDays: 30, keepLast: 7};

export interface RetentionDecision<B> {
  backup: B;
  action: 'keep' | 'delete';
  /** Goes on from "keep, because …" or "delete, because …". */
  because: string;
}

type Judged = Pick<Backup, 'key' | 'startedAt' | 'state' | 'isHeld' | 'database'>;

const dayMs = 86_400_000;
/** A backup without a manifest may be one that another run is about to publish. */
const unfinishedDays = 1;

/** Decides for every backup, newest first. */
export function planRetention<B extends Judged>(
  backups: readonly B[],
  policy: RetentionPolicy,
  now: Date,
): RetentionDecision<B>[] {
  const newestFirst = [...backups].sort((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
  const newest = new Set(
    [...Map.groupBy(newestFirst.filter(isRestorable), ({database}) => database).values()].flatMap((ofDatabase) =>
      ofDatabase.slice(0, policy.keepLast),
    ),
  );
  return newestFirst.map((backup) => {
    const ageDays = (now.getTime() - backup.startedAt.getTime()) / dayMs;
    const keep = (because: string) => ({backup, action: 'keep' as const, because});
    if (backup.isHeld) return keep('it is held');
    if (newest.has(backup)) return keep(`it is one of the newest ${policy.keepLast} that can be restored`);
    if (ageDays <= policy.keepDays) return keep(`it is not older than ${days(policy.keepDays)}`);
    if (backup.state === 'incomplete' && ageDays <= unfinishedDays) return keep('it may be under way');
    // Its object may be good, and whoever altered the manifest may have wanted it gone.
    if (backup.state === 'damaged') return keep('it is damaged: a person should look at it');
    const what = backup.state === 'incomplete' ? 'it is incomplete, and older' : 'it is older';
    return {backup, action: 'delete', because: `${what} than ${days(policy.keepDays)}`};
  });
}

function days(count: number): string {
  return count === 1 ? '1 day' : `${count} days`;
}
