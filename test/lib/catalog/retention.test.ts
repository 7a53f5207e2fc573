import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {type Backup, type BackupState, isOpenedBy, isRestorable, kindOf} from '../../../src/lib/catalog/backups.ts';
import {defaultRetention, planRetention, type RetentionPolicy} from '../../../src/lib/catalog/retention.ts';

const now = new Date('2025-11-04T00:00:00Z');
const dayMs = 86_400_000;

type Sample = Pick<
  Backup,
  'key' | 'startedAt' | 'state' | 'isHeld' | 'database' | 'label' | 'excludedTableData' | 'keyFingerprint' | 'seal'
>;

/** Of the key at hand, and of another one. */
const [ours, lost] = ['0123456789abcdef', 'fedcba9876543210'];

function sample(changes: Partial<Sample> = {}): Sample {
  return {
    key: 'x',
    startedAt: now,
    state: 'complete',
    isHeld: false,
    database: 'clinic',
    label: 'scheduled',
    excludedTableData: [],
    keyFingerprint: ours,
    seal: 'verified',
    ...changes,
  };
}

const backups = fc
  .array(
    fc.record({
      // From ten days ahead (a wrong clock) to 200 days back; whole days meet the limit exactly.
      ageMs: fc.oneof(
        fc.integer({min: -10, max: 200}).map((days) => days * dayMs),
        fc.integer({min: -10 * dayMs, max: 200 * dayMs}),
      ),
      state: fc.constantFrom<BackupState>('complete', 'complete', 'complete', 'legacy', 'incomplete', 'damaged'),
      isHeld: fc.boolean(),
      database: fc.constantFrom('clinic', 'staging', undefined),
      label: fc.constantFrom('scheduled', 'scheduled', 'pre-restore'),
      excludedTableData: fc.constantFrom<string[][]>([], [], ['audit_log']),
      keyFingerprint: fc.constantFrom(ours, ours, lost),
    }),
    {maxLength: 40},
  )
  .map((list): Sample[] =>
    list.map(({ageMs, ...rest}, index) => ({
      ...rest,
      ...(rest.state === 'complete'
        ? {seal: rest.keyFingerprint === ours ? ('verified' as const) : ('unchecked' as const)}
        : {seal: undefined, label: undefined, excludedTableData: undefined, keyFingerprint: undefined}),
      key: String(index),
      startedAt: new Date(now.getTime() - ageMs),
    })),
  );
const keysAtHand = fc.constantFrom<string[] | undefined>([ours], undefined);
const policy = fc.record({keepDays: fc.nat({max: 120}), keepLast: fc.integer({min: 1, max: 12})});
const ageDays = ({startedAt}: Sample) => (now.getTime() - startedAt.getTime()) / dayMs;
const deleted = (list: readonly Sample[], rules: RetentionPolicy, keys: readonly string[] | undefined) =>
  planRetention(list, rules, keys, now).flatMap(({action, backup}) => (action === 'delete' ? [backup] : []));
const likeOne = {
  state: 'complete',
  label: 'scheduled',
  excludedTableData: [],
  keyFingerprint: ours,
  seal: 'verified',
} satisfies Partial<Sample>;

/** Those that a backup competes with for a place among the newest. */
const rivalsOf = (backup: Sample, list: readonly Sample[], keys: readonly string[] | undefined) =>
  list.filter(
    (other) =>
      isRestorable(other) &&
      other.database === backup.database &&
      kindOf(other) === kindOf(backup) &&
      other.state === backup.state &&
      isOpenedBy(other, keys) === isOpenedBy(backup, keys),
  );

describe('the retention policy', () => {
  it('decides for every backup once, newest first, with a reason', () => {
    fc.assert(
      fc.property(backups, policy, keysAtHand, (list, rules, keys) => {
        const plan = planRetention(list, rules, keys, now);
        expect(new Set(plan.map(({backup}) => backup))).toEqual(new Set(list));
        expect(plan).toHaveLength(list.length);
        const times = plan.map(({backup}) => backup.startedAt.getTime());
        expect(times).toEqual([...times].sort((a, b) => b - a));
        for (const {because} of plan) expect(because).toMatch(/^it is /);
      }),
    );
  });

  it('never deletes what is held, young, damaged, or among the newest of its database, kind and key', () => {
    fc.assert(
      fc.property(backups, policy, keysAtHand, (list, rules, keys) => {
        const gone = deleted(list, rules, keys);
        for (const backup of gone) {
          expect(backup.isHeld).toBe(false);
          expect(ageDays(backup)).toBeGreaterThan(rules.keepDays);
          expect(backup.state).not.toBe('damaged');
          // Itself and at least `keepLast` others.
          const newer = rivalsOf(backup, list, keys).filter(({startedAt}) => startedAt >= backup.startedAt);
          if (isRestorable(backup)) expect(newer.length).toBeGreaterThan(rules.keepLast);
        }
        for (const backup of list.filter(isRestorable)) {
          const rivals = rivalsOf(backup, list, keys);
          const left = rivals.filter((rival) => !gone.includes(rival));
          expect(left.length).toBeGreaterThanOrEqual(Math.min(rules.keepLast, rivals.length));
        }
      }),
    );
  });

  it('deletes all else', () => {
    fc.assert(
      fc.property(backups, policy, keysAtHand, (list, rules, keys) => {
        const gone = new Set(deleted(list, rules, keys));
        const old = list.filter(
          (backup) =>
            ageDays(backup) > rules.keepDays &&
            !backup.isHeld &&
            backup.state !== 'damaged' &&
            !(backup.state === 'incomplete' && ageDays(backup) <= 1),
        );
        for (const backup of old) {
          const newer = rivalsOf(backup, list, keys).filter(
            (other) => other.startedAt >= backup.startedAt && other !== backup,
          );
          if ((!isRestorable(backup) || newer.length >= rules.keepLast) && !gone.has(backup)) {
            // Kept only if it is among the newest itself, beside others of the same moment.
            expect(newer.some(({startedAt}) => startedAt.getTime() === backup.startedAt.getTime())).toBe(true);
          }
        }
      }),
    );
  });

  it('leaves of the backups that a restore of the newest would take what it leaves when there are no others', () => {
    fc.assert(
      fc.property(backups, policy, (list, rules) => {
        const wanted = (backup: Sample) =>
          backup.state === 'complete' && kindOf(backup) === 'full' && isOpenedBy(backup, [ours]) === true;
        const alone = list.filter(wanted);
        expect(new Set(deleted(list, rules, [ours]).filter(wanted))).toEqual(new Set(deleted(alone, rules, [ours])));
      }),
    );
  });

  it('deletes nothing that it would keep if all backups of a database were of one kind and key', () => {
    fc.assert(
      fc.property(backups, policy, keysAtHand, (list, rules, keys) => {
        const alike = list.map((backup) => (isRestorable(backup) ? sample({...backup, ...likeOne}) : backup));
        const gone = new Set(deleted(alike, rules, keys).map(({key}) => key));
        for (const {key} of deleted(list, rules, keys)) expect(gone).toContain(key);
      }),
    );
  });

  it('deletes no more when more is to be kept', () => {
    fc.assert(
      fc.property(backups, policy, fc.nat({max: 30}), fc.nat({max: 5}), (list, rules, moreDays, moreLast) => {
        const wider = new Set(
          deleted(list, {keepDays: rules.keepDays + moreDays, keepLast: rules.keepLast + moreLast}, [ours]),
        );
        const narrower = new Set(deleted(list, rules, [ours]));
        expect([...wider].filter((backup) => !narrower.has(backup))).toEqual([]);
      }),
    );
  });

  it('deletes no good backup because an incomplete or damaged one came', () => {
    fc.assert(
      fc.property(backups, policy, fc.constantFrom<BackupState>('incomplete', 'damaged'), (list, rules, state) => {
        const more = [...list, sample({key: 'new', state})];
        expect(new Set(deleted(more, rules, [ours]))).toEqual(new Set(deleted(list, rules, [ours])));
      }),
    );
  });

  it('leaves its input as it was', () => {
    const list = [1, 3, 2].map((day) => sample({key: String(day), startedAt: new Date(day)}));
    planRetention(list, defaultRetention, [ours], now);
    expect(list.map(({key}) => key)).toEqual(['1', '3', '2']);
  });

  it.each<[string, Partial<Sample>, number, string, string]>([
    ['held', {isHeld: true}, 100, 'keep', 'it is held'],
    ['on the last day', {}, 30, 'keep', 'it is not older than 30 days'],
    ['older by a millisecond', {}, 30 + 1 / dayMs, 'delete', 'it is older than 30 days'],
    ['from the future', {}, -400, 'keep', 'it is not older than 30 days'],
    ['incomplete and young', {state: 'incomplete'}, 1, 'keep', 'it is not older than 30 days'],
    ['incomplete and old', {state: 'incomplete'}, 31, 'delete', 'it is incomplete, and older than 30 days'],
    ['damaged and old', {state: 'damaged'}, 31, 'keep', 'it is damaged: a person should look at it'],
    [
      'legacy and old',
      {state: 'legacy', keyFingerprint: undefined, seal: undefined},
      31,
      'keep',
      'it is the newest backup of clinic in the older form',
    ],
  ])('a backup that is %s', (_, facts, days, action, because) => {
    const backup = sample({startedAt: new Date(now.getTime() - days * dayMs), ...facts});
    const newest = sample({key: 'newest', startedAt: new Date(now.getTime() + 1000 * dayMs)});
    const plan = planRetention([backup, newest], {keepDays: 30, keepLast: 1}, [ours], now);
    expect(plan.find((decision) => decision.backup === backup)).toEqual({backup, action, because});
  });

  it('keeps an incomplete one that may be under way, whatever the policy', () => {
    const backup = sample({startedAt: new Date(now.getTime() - dayMs / 2), state: 'incomplete'});
    expect(planRetention([backup], {keepDays: 0, keepLast: 1}, [ours], now)[0]).toMatchObject({action: 'keep'});
  });

  it.each([
    ['just now', 0, 'keep', 'it may be under way'],
    ['a day ago', dayMs, 'keep', 'it may be under way'],
    ['longer ago', dayMs + 1, 'delete', 'it is incomplete, and older than 30 days'],
  ])('judges an incomplete one with an old name by its objects: written %s', (_, ageMs, action, because) => {
    const startedAt = new Date(now.getTime() - 60 * dayMs);
    const backup = {...sample({startedAt, state: 'incomplete'}), modifiedAt: new Date(now.getTime() - ageMs)};
    expect(planRetention([backup], defaultRetention, [ours], now)).toEqual([{backup, action, because}]);
  });

  const old = (index: number, changes: Partial<Sample>) =>
    sample({key: String(index), startedAt: new Date(now.getTime() - (100 + index) * dayMs), ...changes});
  const lostKey = {keyFingerprint: lost, seal: 'unchecked'} as const;

  it.each<[string, Partial<Sample>, string]>([
    ['of another database', {database: 'staging'}, 'backups of staging that can be restored'],
    ['of no known database', {database: undefined}, 'backups of a database that is not recorded that can be restored'],
    ['taken before a restore', {label: 'pre-restore'}, 'pre-restore backups of clinic that can be restored'],
    [
      'without the rows of a table',
      {excludedTableData: ['audit_log']},
      'backups of clinic with rows left out that can be restored',
    ],
    ['that no key at hand opens', lostKey, 'backups of clinic that no configured key opens'],
    // Whoever may write to the bucket can name any key in a manifest.
    [
      'that only say that a key at hand opens them',
      {seal: 'unchecked'},
      'backups of clinic that no configured key opens',
    ],
  ])('keeps the newest full ones that can be restored beside newer ones %s', (_, facts, group) => {
    const list = [facts, facts, facts, {}, {}, {}].map((changes, index) => old(index, changes));
    const plan = planRetention(list, {keepDays: 30, keepLast: 2}, [ours], now);
    expect(plan.map(({action}) => action)).toEqual(['keep', 'keep', 'delete', 'keep', 'keep', 'delete']);
    expect(plan[0]?.because).toBe(`it is one of the newest 2 ${group}`);
    expect(plan[3]?.because).toBe('it is one of the newest 2 backups of clinic that can be restored');
  });

  it('takes all keys for one without a key at hand, and claims nothing of them', () => {
    const list = [lostKey, {seal: 'unchecked' as const}].map((changes, index) => old(index, changes));
    const plan = planRetention(list, {keepDays: 30, keepLast: 1}, undefined, now);
    expect(plan.map(({action, because}) => [action, because])).toEqual([
      ['keep', 'it is the newest backup of clinic'],
      ['delete', 'it is older than 30 days'],
    ]);
  });

  it('keeps the only backup, however old', () => {
    const backup = sample({startedAt: new Date(0)});
    expect(planRetention([backup], {keepDays: 0, keepLast: 1}, [ours], now)).toEqual([
      {backup, action: 'keep', because: 'it is the newest backup of clinic that can be restored'},
    ]);
  });
});
