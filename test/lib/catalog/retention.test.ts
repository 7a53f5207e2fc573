import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import type {BackupState} from '../../../src/lib/catalog/backups.ts';
import {isRestorable} from '../../../src/lib/catalog/backups.ts';
import {defaultRetention, planRetention} from '../../../src/lib/catalog/retention.ts';

const now = new Date('2025-11-04T00:00:00Z');
const dayMs = 86_400_000;

interface Sample {
  key: string;
  startedAt: Date;
  state: BackupState;
  isHeld: boolean;
  database: string | undefined;
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
    }),
    {maxLength: 40},
  )
  .map((list): Sample[] =>
    list.map(({ageMs, ...rest}, index) => ({...rest, key: String(index), startedAt: new Date(now.getTime() - ageMs)})),
  );
const policy = fc.record({keepDays: fc.nat({max: 120}), keepLast: fc.integer({min: 1, max: 12})});
const ageDays = ({startedAt}: Sample) => (now.getTime() - startedAt.getTime()) / dayMs;
const deleted = (list: readonly Sample[], rules: {keepDays: number; keepLast: number}) =>
  planRetention(list, rules, now).flatMap(({action, backup}) => (action === 'delete' ? [backup] : []));

describe('the retention policy', () => {
  it('decides for every backup once, newest first, with a reason', () => {
    fc.assert(
      fc.property(backups, policy, (list, rules) => {
        const plan = planRetention(list, rules, now);
        expect(new Set(plan.map(({backup}) => backup))).toEqual(new Set(list));
        expect(plan).toHaveLength(list.length);
        const times = plan.map(({backup}) => backup.startedAt.getTime());
        expect(times).toEqual([...times].sort((a, b) => b - a));
        for (const {because} of plan) expect(because).toMatch(/^it is /);
      }),
    );
  });

  it('never deletes what is held, young, damaged, or among the newest that can be restored', () => {
    fc.assert(
      fc.property(backups, policy, (list, rules) => {
        const restorable = list.filter(isRestorable);
        for (const backup of deleted(list, rules)) {
          expect(backup.isHeld).toBe(false);
          expect(ageDays(backup)).toBeGreaterThan(rules.keepDays);
          expect(backup.state).not.toBe('damaged');
          const newer = restorable.filter(
            ({startedAt, database}) =>
              startedAt >= backup.startedAt && backup.state !== 'incomplete' && database === backup.database,
          );
          // Itself and at least `keepLast` others that can be restored.
          if (isRestorable(backup)) expect(newer.length).toBeGreaterThan(rules.keepLast);
        }
        const left = restorable.filter((backup) => !deleted(list, rules).includes(backup));
        expect(left.length).toBeGreaterThanOrEqual(Math.min(rules.keepLast, restorable.length));
      }),
    );
  });

  it('deletes all else', () => {
    fc.assert(
      fc.property(backups, policy, (list, rules) => {
        const gone = new Set(deleted(list, rules));
        const old = list.filter(
          (backup) =>
            ageDays(backup) > rules.keepDays &&
            !backup.isHeld &&
            backup.state !== 'damaged' &&
            !(backup.state === 'incomplete' && ageDays(backup) <= 1),
        );
        for (const backup of old) {
          const newer = list.filter(
            (other) =>
              isRestorable(other) &&
              other.startedAt >= backup.startedAt &&
              other !== backup &&
              other.database === backup.database,
          );
          if (newer.length >= rules.keepLast && !gone.has(backup)) {
            // Kept only if it is among the newest itself, beside others of the same moment.
            expect(newer.some(({startedAt}) => startedAt.getTime() === backup.startedAt.getTime())).toBe(true);
          }
        }
      }),
    );
  });

  it('deletes no more when more is to be kept', () => {
    fc.assert(
      fc.property(backups, policy, fc.nat({max: 30}), fc.nat({max: 5}), (list, rules, moreDays, moreLast) => {
        const wider = new Set(
          deleted(list, {keepDays: rules.keepDays + moreDays, keepLast: rules.keepLast + moreLast}),
        );
        const narrower = new Set(deleted(list, rules));
        expect([...wider].filter((backup) => !narrower.has(backup))).toEqual([]);
      }),
    );
  });

  it('deletes no good backup because an incomplete or damaged one came', () => {
    fc.assert(
      fc.property(backups, policy, fc.constantFrom<BackupState>('incomplete', 'damaged'), (list, rules, state) => {
        const more = [...list, {key: 'new', startedAt: now, state, isHeld: false, database: 'clinic'}];
        expect(new Set(deleted(more, rules))).toEqual(new Set(deleted(list, rules)));
      }),
    );
  });

  it('leaves its input as it was', () => {
    const list: Sample[] = [1, 3, 2].map((day) => ({
      key: String(day),
      startedAt: new Date(day),
      state: 'complete',
      isHeld: false,
      database: 'clinic',
    }));
    planRetention(list, defaultRetention, now);
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
    ['legacy and old', {state: 'legacy'}, 31, 'delete', 'it is older than 30 days'],
  ])('a backup that is %s', (_, facts, days, action, because) => {
    const backup: Sample = {
      key: 'x',
      startedAt: new Date(now.getTime() - days * dayMs),
      state: 'complete',
      isHeld: false,
      database: 'clinic',
      ...facts,
    };
    const newest: Sample = {
      key: 'newest',
      startedAt: new Date(now.getTime() + 1000 * dayMs),
      state: 'complete',
      isHeld: false,
      database: 'clinic',
    };
    const plan = planRetention([backup, newest], {keepDays: 30, keepLast: 1}, now);
    expect(plan.find((decision) => decision.backup === backup)).toEqual({backup, action, because});
  });

  it('keeps an incomplete one that may be under way, whatever the policy', () => {
    const backup: Sample = {
      key: 'x',
      startedAt: new Date(now.getTime() - dayMs / 2),
      state: 'incomplete',
      isHeld: false,
      database: undefined,
    };
    expect(planRetention([backup], {keepDays: 0, keepLast: 1}, now)[0]).toMatchObject({action: 'keep'});
  });

  it('keeps the newest of each database: one does not push out another', () => {
    const list: Sample[] = ['staging', 'staging', 'staging', 'clinic'].map((database, index) => ({
      key: String(index),
      startedAt: new Date(now.getTime() - (100 + index) * dayMs),
      state: 'complete',
      isHeld: false,
      database,
    }));
    expect(deleted(list, {keepDays: 30, keepLast: 2}).map(({key}) => key)).toEqual(['2']);
  });

  it('keeps the only backup, however old', () => {
    const backup: Sample = {key: 'x', startedAt: new Date(0), state: 'complete', isHeld: false, database: 'clinic'};
    expect(planRetention([backup], {keepDays: 0, keepLast: 1}, now)).toEqual([
      {backup, action: 'keep', because: 'it is one of the newest 1 that can be restored'},
    ]);
  });
});
