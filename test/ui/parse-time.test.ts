import {describe, expect, test} from '@jest/globals';
import fc from 'fast-check';
import {formatTime} from '../../src/ui/format.ts';
import {dateAlone, parseTime} from '../../src/ui/parse-time.ts';

const utc = (text: string) => {
  const time = parseTime(text);
  return time instanceof Date ? time.toISOString() : time;
};

test.each([
  ['2026-11-27 12:59 UTC', '2026-11-27T12:59:59.999Z'],
  ['2026-11-27T12:59Z', '2026-11-27T12:59:59.999Z'],
  ['2026-11-27T12:59z', '2026-11-27T12:59:59.999Z'],
  ['2026-11-27T12:59:46Z', '2026-11-27T12:59:46.999Z'],
  ['2026-11-27T12:59:46.123Z', '2026-11-27T12:59:46.123Z'],
  ['2026-11-27T12:59:46.1Z', '2026-11-27T12:59:46.199Z'],
  ['2026-11-27T12:59:46.123456Z', '2026-11-27T12:59:46.123Z'],
  ['2026-11-27T12:59+01:00', '2026-11-27T11:59:59.999Z'],
  ['2026-11-27 12:59 GMT+5:30', '2026-11-27T07:29:59.999Z'],
  ['2026-11-27 12:59 GMT-3', '2026-11-27T15:59:59.999Z'],
  ['2026-11-27 12:59 EST', '2026-11-27T17:59:59.999Z'],
  ['2024-02-29T00:00Z', '2024-02-29T00:00:59.999Z'],
])('%s lasts until %s', (text, expected) => {
  expect(utc(text)).toBe(expected);
});

test('without a zone it is local time', () => {
  expect(parseTime('2026-11-27T12:59')).toEqual(new Date(2026, 10, 27, 12, 59, 59, 999));
});

test('a date alone is told apart', () => {
  expect(parseTime('2026-11-27')).toBe(dateAlone);
});

describe('there is no such time', () => {
  test.each([
    '2026-02-30T12:00',
    '2025-02-29T12:00Z',
    '2026-02-30',
    '2026-04-31 12:00 UTC',
    '2026-13-01T12:00',
    '2026-00-10T12:00',
    '2026-11-00T12:00',
    '2026-11-27T24:00',
    '2026-11-27T12:60',
    '2026-11-27T12:00:60',
    '2026-11-27T12',
    '2026-11-27 12:59 XYZ',
    '2026-11-27T12:59Z (or so)',
    '27.11.2026',
    'yesterday',
    '',
  ])('%j', (text) => {
    expect(parseTime(text)).toBeUndefined();
  });
});

test('a time as the list shows it holds the moment that was shown', () => {
  const moments = fc.date({min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true});
  fc.assert(
    fc.property(moments, (moment) => {
      const time = parseTime(formatTime(moment));
      if (!(time instanceof Date)) throw new Error(`${formatTime(moment)} was not read`);
      const later = time.getTime() - moment.getTime();
      expect(later).toBeGreaterThanOrEqual(0);
      expect(later).toBeLessThan(60_000);
    }),
  );
});
