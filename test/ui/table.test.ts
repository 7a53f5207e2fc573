import {stripVTControlCharacters} from 'node:util';
import {describe, expect, it} from '@jest/globals';
import {table} from '../../src/ui/table.ts';

const show = (width: number, rows: string[][], head = ['Size', 'Key']) =>
  stripVTControlCharacters(table(head, rows, width)).split('\n');

describe('a table', () => {
  it('lines its columns up, without spaces at the ends of lines', () => {
    expect(
      show(80, [
        ['1.2 MB', 'a'],
        ['3 B', 'longer key'],
      ]),
    ).toEqual(['Size    Key', '1.2 MB  a', '3 B     longer key']);
  });

  it('is its head alone without rows', () => {
    expect(show(80, [])).toEqual(['Size  Key']);
  });

  it('fits as long as its widest row does, and puts the last column on a line of its own when it does not', () => {
    const rows = [['1', 'x'.repeat(20)]];
    expect(show(26, rows)).toHaveLength(2);
    expect(show(25, rows)).toEqual(['Size', '  Key', '1', `  ${'x'.repeat(20)}`]);
  });

  it('never breaks or shortens a key', () => {
    const key = 'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted';
    for (const width of [1, 40, 80, 200])
      expect(show(width, [['1', key]]).some((line) => line.trim().endsWith(key))).toBe(true);
  });
});
