import {expect, test} from '@jest/globals';
import {closest} from '../../src/ui/did-you-mean.ts';

const names = ['backup', 'restore', 'list', 'files list', 'files migrate', 'keys'];
test.each([
  ['bakcup', 'backup'],
  ['BACKUP', 'backup'],
  ['retsore', 'restore'],
  ['lits', 'list'],
  ['file migrate', 'files migrate'],
  ['key', 'keys'],
  ['frobnicate', undefined],
  ['', undefined],
])('%j: %s', (typed, meant) => expect(closest(typed, names)).toBe(meant));
