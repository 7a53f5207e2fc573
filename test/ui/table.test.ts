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

  it('has room for a bucket of 300,000 files', () => {
    expect(show(80, Array<string[]>(300_000).fill(['1 kB', 'a']))).toHaveLength(300_001);
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

  it.each([80, 40])('keeps within %i columns, but for words that are longer, and loses no word', (width) => {
    const head = ['Date', 'Size', 'Tables', 'Rows', 'Label', 'Notes', 'Key'];
    const key = 'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted';
    const notes = 'proved 12 days ago, held, seal not checked (key 0123456789abcdef), its manifest was not readable';
    const rows = [
      ['2025-11-04 16:30 GMT+1', '1.2 MB', '12', '1,234,567', '-', '-', key],
      ['2025-11-03 16:30 GMT+1', '999 kB', '2', '1', 'pre-migration', notes, key],
    ];
    const lines = show(width, rows, head);
    expect(lines.filter((line) => line.length > width).map((line) => line.trim())).toEqual([key, key]);
    const words = (text: string) => text.split(/\s+/).filter(Boolean);
    expect(words(lines.join(' '))).toEqual([head, ...rows].flatMap((row) => row.flatMap(words)));
    expect(show(Number.POSITIVE_INFINITY, rows, head)).toHaveLength(3);
  });
});
