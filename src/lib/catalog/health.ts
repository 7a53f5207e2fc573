/** Whether backups are fresh, proven and regular: a pure function of the catalog and the time. */
import {type Backup, hasSamePatterns, isRegular, isRestorable} from './backups.ts';
import {leftOutRows} from './choice.ts';
import {verificationKey} from './key-names.ts';

export interface HealthPolicy {
  /** The newest complete backup may be this old. */
  maxAgeMs: number;
  /** The last proof that a backup can be restored may be this old. */
  maxUnverifiedMs: number;
  /** Days without a backup are looked for in this window. */
  retentionDays: number;
}

export const defaultHealthPolicy = {maxAgeMs: 26 * 3_600_000, maxUnverifiedMs: 35 * 86_400_000} as const;

export type FindingId = 'newest' | 'proof' | 'days' | 'size' | 'incomplete' | 'keys';

/** One thing that was looked at. */
export interface Finding {
  id: FindingId;
  isGood: boolean;
  /** What was found, for people. */
  text: string;
  /** The figure behind it, for monitors: an age in milliseconds, a count, a ratio. Undefined when there is none. */
  value: number | undefined;
}

const dayMs = 86_400_000;
/** So many days back, a day without a backup is an alarm; further back it is only told. */
const alarmingDays = 7;
/** A backup smaller than this share of the median of the last seven is an alarm. */
const alarmingShare = 0.5;
/** An upload that was begun, or whose last part came, this long ago, in milliseconds, is not coming to an end. */
export const staleUploadMs = dayMs;

export interface HealthInput {
  backups: readonly Backup[];
  /** When each unfinished upload was begun. */
  unfinishedUploads: readonly Date[];
  /** Of the keys at hand; undefined when there are none, and then nothing is said about them. */
  keyFingerprints: readonly string[] | undefined;
  formatAge: (ms: number) => string;
}

/** Looks at everything. A backup from the future (a clock that is wrong) counts as new, and is told. */
export function assessHealth(input: HealthInput, policy: HealthPolicy, now: Date): Finding[] {
  const restorable = input.backups.filter(isRestorable);
  const regular = restorable.filter(isRegular);
  return [
    newest(regular, input, policy, now),
    proof(restorable, input, policy, now),
    missingDays(regular, policy, now),
    size(regular),
    incomplete(input, now),
    ...(input.keyFingerprints ? [unopenable(input.backups, input.keyFingerprints)] : []),
  ];
}

type Formatting = Pick<HealthInput, 'formatAge'>;

function newest(backups: readonly Backup[], {formatAge}: Formatting, policy: HealthPolicy, now: Date): Finding {
  const [backup] = backups;
  if (!backup) return {id: 'newest', isGood: false, text: 'there is no complete backup', value: undefined};
  const ageMs = now.getTime() - backup.startedAt.getTime();
  const lacking = leftOutRows(backup);
  const isOne = backups.every((other) => other.database === undefined || other.database === backup.database);
  const database = isOne ? '' : ` (of ${backup.database ?? 'a database that is not recorded'})`;
  const future = ageMs < -60_000 ? ' (in the future: is a clock wrong?)' : '';
  const text = `the newest complete backup${database} is from ${backup.startedAt.toISOString()}, ${formatAge(ageMs)}${future}${lacking ? `, ${lacking}` : ''}`;
  return {id: 'newest', isGood: ageMs <= policy.maxAgeMs && !future, text, value: ageMs};
}

function proof(restorable: readonly Backup[], {formatAge}: Formatting, policy: HealthPolicy, now: Date): Finding {
  const checked = restorable
    .flatMap(({key, verification}) => (verification ? [{key, ...verification}] : []))
    .toSorted((a, b) => b.at.getTime() - a.at.getTime());
  const ageOf = ({at}: {at: Date}) => now.getTime() - at.getTime();
  const failed = checked.filter(({isProved}) => !isProved);
  const proved = checked.find(({isProved}) => isProved);
  const isStored = restorable.some(({key, objectKeys}) => objectKeys.includes(verificationKey(key)));
  const unread = isStored
    ? 'no proof counts: what is stored of verifications is damaged, or no configured key can check its seal (is PHI_ENCRYPTION_KEY the right one?)'
    : 'no backup was ever proved (loma-backup verify)';
  const never = failed.length > 0 ? 'no other backup is proved' : unread;
  const texts = [
    ...failed.slice(0, 3).map((each) => `the last verification of ${each.key}, ${formatAge(ageOf(each))}, FAILED`),
    ...(failed.length > 3 ? [`and of ${failed.length - 3} more`] : []),
    proved ? `a backup was last proved ${formatAge(ageOf(proved))}` : never,
  ];
  return {
    id: 'proof',
    isGood: failed.length === 0 && proved !== undefined && ageOf(proved) <= policy.maxUnverifiedMs,
    text: texts.join('; '),
    value: checked[0] && ageOf(checked[0]),
  };
}

/** Whole UTC days in the window, from the first backup to yesterday, on which none was started. */
export function daysWithout(backups: readonly Backup[], windowDays: number, now: Date): string[] {
  const dayOf = (time: Date) => time.toISOString().slice(0, 10);
  const days = new Set(backups.map(({startedAt}) => dayOf(startedAt)));
  const first = [...days].sort()[0];
  if (first === undefined) return [];
  const missing: string[] = [];
  for (let back = 1; back <= windowDays; back += 1) {
    const day = dayOf(new Date(now.getTime() - back * dayMs));
    if (day < first) break;
    if (!days.has(day)) missing.push(day);
  }
  return missing;
}

function missingDays(backups: readonly Backup[], policy: HealthPolicy, now: Date): Finding {
  const missing = daysWithout(backups, policy.retentionDays, now);
  const recent = new Date(now.getTime() - alarmingDays * dayMs).toISOString().slice(0, 10);
  if (missing.length === 0) return {id: 'days', isGood: true, text: 'no day without a backup', value: 0};
  const shown = missing.slice(0, 5).join(', ');
  const more = missing.length > 5 ? ` and ${missing.length - 5} more` : '';
  const text = `${missing.length} of the last ${policy.retentionDays} days without a backup: ${shown}${more}`;
  return {id: 'days', isGood: !missing.some((day) => day >= recent), text, value: missing.length};
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle) - 1] ?? 0)) / 2;
}

/** Sizes are compared among backups of the same compression, without the same rows: another codec is no loss of data. */
function size(backups: readonly Backup[]): Finding {
  const [latest] = backups;
  const earlier = backups
    .slice(1)
    .filter((other) => latest && other.compression === latest.compression && hasSamePatterns(other, latest));
  if (!latest || earlier.length === 0) {
    return {id: 'size', isGood: true, text: 'no earlier backup to compare the size with', value: undefined};
  }
  const usual = median(earlier.slice(0, 7).map(({sizeBytes}) => sizeBytes));
  const share = usual === 0 ? 1 : latest.sizeBytes / usual;
  const text = `the newest backup has ${Math.round(share * 100)} % of the median size of the last ${Math.min(7, earlier.length)} before it`;
  return {id: 'size', isGood: share >= alarmingShare, text, value: share};
}

function incomplete({backups, unfinishedUploads}: HealthInput, now: Date): Finding {
  const bad = backups.filter((backup) => !isRestorable(backup));
  const stale = unfinishedUploads.filter((at) => now.getTime() - at.getTime() > staleUploadMs);
  const count = bad.length + stale.length;
  if (count === 0) return {id: 'incomplete', isGood: true, text: 'no incomplete or damaged backup', value: 0};
  const parts = [
    ...bad.slice(0, 3).map((backup) => `${backup.key} is ${backup.state}`),
    ...(bad.length > 3 ? [`${bad.length - 3} more`] : []),
    ...(stale.length > 0 ? [`${stale.length} uploads were never finished (loma-backup prune aborts them)`] : []),
  ];
  return {id: 'incomplete', isGood: false, text: parts.join('; '), value: count};
}

/** Backups of the older procedure say nothing of their key before they are read whole. */
function unopenable(backups: readonly Backup[], fingerprints: readonly string[]): Finding {
  const locked = backups.filter(({keyFingerprint}) => keyFingerprint && !fingerprints.includes(keyFingerprint));
  if (locked.length === 0) return {id: 'keys', isGood: true, text: 'a configured key opens every backup', value: 0};
  const keys = [...new Set(locked.map(({keyFingerprint}) => keyFingerprint))].join(', ');
  return {
    id: 'keys',
    isGood: false,
    text: `no configured key opens ${locked.length} backups (key ${keys})`,
    value: locked.length,
  };
}
