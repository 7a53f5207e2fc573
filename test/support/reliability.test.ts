import {describe, expect, test} from '@jest/globals';
import {Random} from './random.ts';
import {reliabilityPage} from './reliability-page.ts';

describe('the page of trials', () => {
  const facts = {date: '2026-01-02', seed: '7', versions: 'PostgreSQL 15.14'};
  const trial = (area: string, what: string) => ({area, what, outcome: 'a|b', file: 'test/faults/x.test.ts'});

  test('counts trials of the same words, and says which run they come from', () => {
    const page = reliabilityPage('', [trial('B', 'cut'), trial('B', 'cut'), trial('A', 'kill')], facts);
    expect(page.indexOf('## A')).toBeLessThan(page.indexOf('## B'));
    expect(page).toContain('| cut | a\\|b | 2 |');
    expect(page).toContain('npm run test:faults -- test/faults/x.test.ts`, 2026-01-02; PostgreSQL 15.14; seed 7.');
  });

  test('replaces the sections of the run and leaves the others', () => {
    const first = reliabilityPage('', [trial('A', 'old'), trial('B', 'stays')], facts);
    const second = reliabilityPage(first, [trial('A', 'new')], facts);
    expect(second).not.toContain('old');
    expect(second).toContain('| stays |');
    expect(second).toContain('| new |');
    expect(reliabilityPage(second, [trial('A', 'new')], facts)).toBe(second);
  });
});

test('random numbers come again with the seed, and differ without it', () => {
  const of = (seed: number) => {
    const random = new Random(seed);
    return Array.from({length: 5}, () => random.below(1000));
  };
  expect(of(3)).toEqual(of(3));
  expect(of(3)).not.toEqual(of(4));
  expect(new Random(1).choose([1, 2, 3, 4, 5], 3)).toEqual(new Random(1).choose([1, 2, 3, 4, 5], 3));
});
