import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {
  formatAge,
  formatBytes,
  formatCount,
  formatDuration,
  formatReduction,
  formatTime,
  printable,
} from '../../src/ui/format.ts';

describe('bytes', () => {
  it.each([
    [0, '0 B'],
    [1, '1 B'],
    [999, '999 B'],
    [1000, '1.00 kB'],
    [9994, '9.99 kB'],
    [9995, '10.0 kB'],
    [99_949, '99.9 kB'],
    [99_950, '100 kB'],
    [999_499, '999 kB'],
    [999_500, '1.00 MB'],
    [1_048_576, '1.05 MB'],
    [123_456_789, '123 MB'],
    [5e12, '5.00 TB'],
    [1.5e18, '1500 PB'],
  ])('%i are %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it('have three digits at most, and are right to within half of the last one', () => {
    fc.assert(
      fc.property(fc.integer({min: 0, max: Number.MAX_SAFE_INTEGER}), (bytes) => {
        const [figure = '', unit = ''] = formatBytes(bytes).split(' ');
        const scale = 1000 ** ['B', 'kB', 'MB', 'GB', 'TB', 'PB'].indexOf(unit);
        expect(figure.replace('.', '').length).toBeLessThanOrEqual(3);
        expect(Math.abs(Number(figure) * scale - bytes)).toBeLessThanOrEqual(Math.max(0.5, bytes * 0.00501));
      }),
    );
  });
});

describe('a duration', () => {
  it.each([
    [0, '0 ms'],
    [850.4, '850 ms'],
    [999.4, '999 ms'],
    [999.6, '1.0 s'],
    [1000, '1.0 s'],
    [4210, '4.2 s'],
    [59_949, '59.9 s'],
    [59_950, '1 min 00 s'],
    [187_000, '3 min 07 s'],
    [3_599_400, '59 min 59 s'],
    [3_599_600, '1 h 00 min'],
    [7_500_000, '2 h 05 min'],
    [90_000_000, '25 h 00 min'],
  ])('of %s ms is %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe('an age', () => {
  it.each([
    [-5000, 'just now'],
    [59_999, 'just now'],
    [60_000, '1 minute ago'],
    [300_000, '5 minutes ago'],
    [3_600_000, '1 hour ago'],
    [86_399_999, '23 hours ago'],
    [86_400_000, '1 day ago'],
    [12.9 * 86_400_000, '12 days ago'],
  ])('of %i ms is %s', (ms, text) => {
    expect(formatAge(ms)).toBe(text);
  });
});

describe('other figures', () => {
  it('are written for people', () => {
    expect([formatCount(0), formatCount(1_234_567)]).toEqual(['0', '1,234,567']);
    expect([formatReduction(1000, 121), formatReduction(0, 5), formatReduction(100, 105)]).toEqual([
      '87.9 %',
      '0 %',
      '-5.0 %',
    ]);
  });

  it('name the time zone, and midnight is 00:00', () => {
    expect(formatTime(new Date(2025, 10, 4, 0, 5))).toMatch(/^2025-11-04 00:05 \S+/);
  });
});

describe('text from a database or a bucket', () => {
  it('has no character that a terminal would obey', () => {
    fc.assert(
      fc.property(fc.string({unit: 'binary'}), (text) => {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
        expect(printable(text)).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
      }),
    );
  });

  it.each([
    ['\u001b[2Jevil', '\\x1b[2Jevil'],
    ['a\nb\r\tc', 'a\\x0ab\\x0d  c'],
    ['\u009b31m\u007f', '\\x9b31m\\x7f'],
    ['Grüße 🩺 "x"', 'Grüße 🩺 "x"'],
  ])('%j is shown as %s', (text, shown) => {
    expect(printable(text)).toBe(shown);
  });
});
