import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {
  backupKey,
  backupsPrefix,
  manifestKey,
  parseBackupKey,
  parseTimestamp,
  partOf,
  timestampOf,
  verificationKey,
} from '../../../src/lib/catalog/key-names.ts';

const time = fc.date({
  min: new Date('0000-01-01T00:00:00Z'),
  max: new Date('9999-12-31T23:59:59.999Z'),
  noInvalidDate: true,
});
const compression = fc.constantFrom('gzip' as const, 'zstd' as const);
const good = 'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted';

describe("a backup's key", () => {
  it('is the one that existing backups have', () => {
    expect(backupKey(new Date('2025-11-04T15:30:00Z'), 'gzip')).toBe(good);
    expect(backupKey(new Date('2025-11-04T15:30:00Z'), 'zstd')).toBe(good.replace('.gz', '.zst'));
    expect(manifestKey(good)).toBe(`${good}.metadata.json`);
  });

  it('says when it was started and how it is compressed, for any time', () => {
    fc.assert(
      fc.property(time, compression, (startedAt, name) => {
        expect(parseBackupKey(backupKey(startedAt, name))).toEqual({startedAt, compression: name});
        expect(parseTimestamp(timestampOf(startedAt))).toEqual(startedAt);
      }),
    );
  });

  it('sorts by time', () => {
    fc.assert(
      fc.property(time, time, (a, b) => {
        expect(Math.sign(a.getTime() - b.getTime())).toBe(
          timestampOf(a) < timestampOf(b) ? -1 : timestampOf(a) > timestampOf(b) ? 1 : 0,
        );
      }),
    );
  });

  it.each([
    '',
    'database-backups/',
    good.slice(1),
    `/${good}`,
    `x/${good}`,
    `${good}\n`,
    `${good}.metadata.json`,
    good.replace('.gz', ''),
    good.replace('.gz', '.xz'),
    good.replace('.encrypted', ''),
    good.replace('Z/backup', 'Z/../backup'),
    good.replace('database-backups/', 'database-backups/../'),
    // The two timestamps differ.
    good.replace('/backup-2025', '/backup-2024'),
    // No such time.
    good.replaceAll('11-04T', '02-30T'),
    good.replaceAll('11-04T', '13-04T'),
    good.replaceAll('T15-', 'T24-'),
    good.replaceAll('-30-00-', '-61-00-'),
    good.replaceAll('-000Z', '-00Z'),
    good.replaceAll('2025', '٢٠٢٥'),
  ])('is not %j', (key) => {
    expect(parseBackupKey(key)).toBeUndefined();
  });

  it.each([
    '2025',
    '2025-11-04',
    '2025-11-04T15:30:00.000Z',
    '2025-11-04T15-30-00-000',
    'now',
    '2025-02-29T00-00-00-000Z',
  ])('holds no such timestamp as %s', (text) => {
    expect(parseTimestamp(text)).toBeUndefined();
  });
});

describe('an object in the bucket', () => {
  it('belongs to its backup, as body, manifest or verification', () => {
    fc.assert(
      fc.property(time, compression, (startedAt, name) => {
        const backup = backupKey(startedAt, name);
        expect(backup.startsWith(backupsPrefix)).toBe(true);
        expect(partOf(backup)).toEqual({backup, part: 'body'});
        expect(partOf(manifestKey(backup))).toEqual({backup, part: 'manifest'});
        expect(partOf(verificationKey(backup))).toEqual({backup, part: 'verification'});
      }),
    );
  });

  it.each([
    '',
    'notes.txt',
    'database-backups/notes.txt',
    `${good}.old`,
    `${good}.metadata.json.metadata.json`,
    '.metadata.json',
  ])('that is %j is none of ours', (key) => {
    expect(partOf(key)).toBeUndefined();
  });
});
