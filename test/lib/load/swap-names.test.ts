import {describe, expect, test} from '@jest/globals';
import fc from 'fast-check';
import {
  earlierNames,
  nameBeside,
  newDatabaseName,
  newDatabasePattern,
  swapInstructions,
} from '../../../src/lib/load/swap-names.ts';
import {settingLiteral} from '../../../src/lib/load/swap-settings.ts';

const now = new Date('2025-11-04T15:30:00.123Z');
const bytes = (text: string) => Buffer.byteLength(text);

describe('the name of the old database', () => {
  test('says when it made way', () => {
    expect(nameBeside('clinic', 'before', now, new Set())).toBe('clinic_before_20251104153000');
    expect(nameBeside('clinic', 'undone', now, new Set(['clinic_undone_20251104153000']))).toBe(
      'clinic_undone_20251104153000_2',
    );
  });

  test('has at most 63 bytes, is whole in its characters, and is none that is taken', () => {
    const names = fc
      .string({unit: 'grapheme', minLength: 1})
      .filter((name) => bytes(name) <= 63 && !name.includes('\0'));
    fc.assert(
      fc.property(names, fc.nat({max: 12}), (name, count) => {
        const taken = new Set<string>();
        for (let i = 0; i <= count; i++) {
          const made = nameBeside(name, 'before', now, taken);
          expect(taken.has(made)).toBe(false);
          expect(bytes(made)).toBeLessThanOrEqual(63);
          expect(made.isWellFormed()).toBe(name.isWellFormed());
          expect(earlierNames(name, [made])).toEqual([made]);
          taken.add(made);
        }
      }),
    );
  });

  test('is found again, and another’s is not', () => {
    const names = ['clinic', 'clinic_before_20251104153000', 'clinic2_before_20251104153000', 'clinic_before_x'];
    expect(earlierNames('clinic', names)).toEqual(['clinic_before_20251104153000']);
  });
});

test('the name of the new database fits its pattern', () => {
  for (const token of [0, 1, 2 ** 31 - 1]) expect(newDatabaseName(now, token)).toMatch(new RegExp(newDatabasePattern));
});

test('what is printed has no control characters in it, and is one statement a line', () => {
  const names = {target: `a\n"\\b'`, old: 'a\u0007', undone: 'plain', connectTo: 'postgres'};
  const {undoSql, dropSql} = swapInstructions(names);
  expect(dropSql).toBe('DROP DATABASE U&"a\\0007";');
  expect(undoSql.split('\n')).toHaveLength(5);
  expect(undoSql).toContain(`datname = U&'a\\000a"\\\\b''';`);
  expect(undoSql).toContain('ALTER DATABASE U&"a\\000a""\\\\b\'" RENAME TO "plain";');
});

test.each([
  ['work_mem', '5MB', `'5MB'`],
  ['loma.note', `it's "x", y`, `'it''s "x", y'`],
  ['search_path', '', `''`],
  ['search_path', '""', `''`],
  ['search_path', 'a, "B ""c"" d", public', `'a', 'B "c" d', 'public'`],
  ['search_path', '"$user", "a,b"', `'$user', 'a,b'`],
  ['Search_Path', `it's, b`, `'it''s', 'b'`],
])('the setting %s = %s is written as %s', (name, value, literal) => {
  expect(settingLiteral(name, value)).toBe(literal);
});
