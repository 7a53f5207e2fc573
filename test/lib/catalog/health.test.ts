import {describe, expect, it} from '@jest/globals';
import type {Backup} from '../../../src/lib/catalog/backups.ts';
import {assessHealth, daysWithout, type FindingId, type HealthInput} from '../../../src/lib/catalog/health.ts';
import {backupKey} from '../../../src/lib/catalog/key-names.ts';

const now = new Date('2026-03-31T12:00:00Z');
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const policy = {maxAgeMs: 26 * hourMs, maxUnverifiedMs: 35 * dayMs, retentionDays: 30};

function backupFrom(ageMs: number, changes: Partial<Backup> = {}): Backup {
  const startedAt = new Date(now.getTime() - ageMs);
  return {
    key: backupKey(startedAt, 'gzip'),
    startedAt,
    compression: 'gzip',
    state: 'complete',
    problem: undefined,
    sizeBytes: 1000,
    database: 'clinic',
    label: 'scheduled',
    isHeld: false,
    tables: 1,
    rows: 1,
    dumpBytes: 1,
    durationMs: 1,
    keyFingerprint: '0123456789abcdef',
    excludedTableData: [],
    seal: 'verified',
    verification: undefined,
    objectKeys: [],
    ...changes,
  };
}

/** One a night for so many nights, the newest `hours` old. */
function nights(count: number, hours = 10): Backup[] {
  return Array.from({length: count}, (_, index) => backupFrom(hours * hourMs + index * dayMs));
}

const proved = {at: new Date(now.getTime() - 12 * dayMs), isProved: true};

function findings(backups: Backup[], changes: Partial<HealthInput> = {}) {
  const input = {
    backups,
    unfinishedUploads: [],
    keyFingerprints: ['0123456789abcdef'],
    formatAge: (ms: number) => `${Math.round(ms / hourMs)} hours ago`,
    ...changes,
  };
  const list = assessHealth(input, policy, now);
  const alarms = list.filter(({isGood}) => !isGood).map(({id}) => id);
  const textOf = (id: FindingId) => list.find((finding) => finding.id === id)?.text ?? '';
  return {alarms, textOf, list};
}

function withProof([first, ...rest]: Backup[], verification: Backup['verification'] = proved): Backup[] {
  return first ? [{...first, verification}, ...rest] : [];
}

describe('a bucket with a backup every night and a recent proof', () => {
  it('raises no alarm', () => {
    const {alarms, list} = findings(withProof(nights(30)));
    expect(alarms).toEqual([]);
    expect(list.map(({id}) => id)).toEqual(['newest', 'proof', 'days', 'size', 'incomplete', 'keys']);
  });

  it('says nothing of keys when there are none at hand', () => {
    const {list} = findings(withProof(nights(3)), {keyFingerprints: undefined});
    expect(list.map(({id}) => id)).not.toContain('keys');
  });
});

describe('a backup that was taken before a restore', () => {
  const preRestore = (ageMs: number, changes: Partial<Backup> = {}) =>
    backupFrom(ageMs, {label: 'pre-restore', ...changes});

  it('is not the newest complete one, and fills no gap', () => {
    const {alarms, textOf} = findings([preRestore(hourMs), ...withProof(nights(3, 30))]);
    expect(alarms).toEqual(['newest']);
    expect(textOf('newest')).toContain('30 hours ago');
    expect(findings([preRestore(hourMs, {verification: proved})]).alarms).toEqual(['newest']);
    const gap = withProof(nights(30)).filter((_, index) => index !== 5);
    expect(findings([...gap, preRestore(10 * hourMs + 5 * dayMs)]).alarms).toEqual(['days']);
  });

  it('is compared with no other by its size', () => {
    expect(findings([preRestore(hourMs, {sizeBytes: 10}), ...withProof(nights(9))]).alarms).toEqual([]);
    const large = Array.from({length: 7}, () => preRestore(20 * hourMs, {sizeBytes: 1e6}));
    const [first, ...rest] = withProof(nights(9)) as [Backup, ...Backup[]];
    expect(findings([first, ...large, ...rest]).alarms).toEqual([]);
  });
});

describe('the newest backup', () => {
  it('is named with its database when there are backups of several', () => {
    const [first, ...rest] = withProof(nights(3)) as [Backup, ...Backup[]];
    const {alarms, textOf} = findings([{...first, database: 'staging'}, ...rest]);
    expect(alarms).toEqual([]);
    expect(textOf('newest')).toContain('the newest complete backup (of staging) is from');
    expect(findings([first, ...rest]).textOf('newest')).toContain('the newest complete backup is from');
  });
});

describe('a backup without the rows of some tables', () => {
  it('is the newest one, and what it lacks is said: no alarm', () => {
    const [first, ...rest] = withProof(nights(9)) as [Backup, ...Backup[]];
    const {alarms, textOf} = findings([{...first, sizeBytes: 100, excludedTableData: ['audit_log']}, ...rest]);
    expect(alarms).toEqual([]);
    expect(textOf('newest')).toMatch(/10 hours ago, without the rows of: audit_log$/);
  });

  it('is compared by its size with those of the same kind', () => {
    const excludedTableData = ['audit_log', 'sessions'];
    const partial = withProof(nights(9)).map((backup, index) => ({
      ...backup,
      sizeBytes: index === 0 ? 40 : 100,
      excludedTableData: index % 2 ? excludedTableData : excludedTableData.toReversed(),
    }));
    expect(findings(partial).alarms).toEqual(['size']);
  });
});

describe('an alarm is raised', () => {
  it('when there is no backup at all', () => {
    expect(findings([]).alarms).toEqual(['newest', 'proof']);
  });

  it.each([
    [25.9, []],
    [26.1, ['newest']],
  ])('when the newest complete one is too old (%p hours)', (hours, expected) => {
    expect(findings(withProof(nights(3, hours))).alarms).toEqual(expected);
  });

  it('when only an incomplete one is fresh', () => {
    const {alarms} = findings([backupFrom(hourMs, {state: 'incomplete'}), ...withProof(nights(3, 30))]);
    expect(alarms).toEqual(['newest', 'incomplete']);
  });

  it('when a backup is from the future: a clock is wrong', () => {
    expect(findings(withProof([backupFrom(-2 * hourMs)])).textOf('newest')).toContain('in the future');
    expect(findings(withProof([backupFrom(-2 * hourMs)])).alarms).toEqual(['newest']);
  });

  it('when none was ever proved, when the proof is old, and when the last verification failed', () => {
    expect(findings(nights(3)).textOf('proof')).toContain('no backup was ever proved');
    const old = {at: new Date(now.getTime() - 36 * dayMs), isProved: true};
    expect(findings(withProof(nights(3), old)).alarms).toEqual(['proof']);
    const failed = {at: new Date(now.getTime() - hourMs), isProved: false};
    const [first, second, ...rest] = withProof(nights(3), failed) as [Backup, Backup, ...Backup[]];
    const mixed = findings([first, {...second, verification: proved}, ...rest]);
    expect(mixed.alarms).toEqual(['proof']);
    expect(mixed.textOf('proof')).toContain('FAILED');
  });

  it('when the last verification of any backup failed, whatever was proved after it, and that backup is named', () => {
    const failed = {at: new Date(now.getTime() - 13 * dayMs), isProved: false};
    const [first, second, ...rest] = nights(7) as [Backup, Backup, ...Backup[]];
    const after = findings([{...first, verification: failed}, {...second, verification: proved}, ...rest]);
    expect(after.alarms).toEqual(['proof']);
    expect(after.textOf('proof')).toBe(
      `the last verification of ${first.key}, 312 hours ago, FAILED; a backup was last proved 288 hours ago`,
    );
    const all = findings(nights(5).map((backup) => ({...backup, verification: failed})));
    expect(all.textOf('proof')).toMatch(/FAILED; and of 2 more; no other backup is proved$/);
    // One that nobody would restore is told by its own finding.
    const broken = backupFrom(2 * dayMs, {state: 'damaged', verification: failed});
    expect(findings([...withProof(nights(7)), broken]).alarms).toEqual(['incomplete']);
  });

  it('when a day of the last seven has no backup, and not when an older one has none', () => {
    const all = withProof(nights(30));
    const without = (index: number) => findings(all.filter((_, at) => at !== index));
    expect(without(5).alarms).toEqual(['days']);
    expect(without(20).alarms).toEqual([]);
    expect(without(20).textOf('days')).toContain('1 of the last 30 days without a backup: 2026-03-11');
  });

  it.each([
    [499, ['size']],
    [500, []],
  ])('when the size falls by half against the median of the last seven (%p bytes)', (sizeBytes, expected) => {
    const [first, ...rest] = withProof(nights(9)) as [Backup, ...Backup[]];
    // One that is out of line does not move the median.
    const earlier = rest.map((backup, index) => (index === 2 ? {...backup, sizeBytes: 9} : backup));
    expect(findings([{...first, sizeBytes}, ...earlier]).alarms).toEqual(expected);
  });

  it('never for a smaller size after a change of codec', () => {
    const [first, ...rest] = withProof(nights(9)) as [Backup, ...Backup[]];
    expect(findings([{...first, sizeBytes: 100, compression: 'zstd'}, ...rest]).alarms).toEqual([]);
  });

  it('when an upload was never finished, but not while one may be under way', () => {
    const at = (ageMs: number) => [new Date(now.getTime() - ageMs)];
    expect(findings(withProof(nights(3)), {unfinishedUploads: at(25 * hourMs)}).alarms).toEqual(['incomplete']);
    expect(findings(withProof(nights(3)), {unfinishedUploads: at(hourMs)}).alarms).toEqual([]);
  });

  it('when no configured key opens a backup', () => {
    const {alarms, textOf} = findings(withProof(nights(3)), {keyFingerprints: ['ffffffffffffffff']});
    expect(alarms).toEqual(['keys']);
    expect(textOf('keys')).toContain('0123456789abcdef');
  });
});

describe('days without a backup', () => {
  it('are counted from the first backup on, to yesterday', () => {
    const backups = [backupFrom(2 * dayMs), backupFrom(5 * dayMs)];
    expect(daysWithout(backups, 30, now)).toEqual(['2026-03-30', '2026-03-28', '2026-03-27']);
    expect(daysWithout([], 30, now)).toEqual([]);
  });
});
