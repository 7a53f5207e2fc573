import {describe, expect, test} from '@jest/globals';
import {type BackupOrigin, preflight, type TargetServer} from '../../../src/lib/load/preflight.ts';

const backup = (changes: Partial<BackupOrigin> = {}): BackupOrigin => ({
  serverVersion: '15.14 (Debian 15.14-1)',
  pgDumpVersion: '15.14',
  encoding: 'UTF8',
  serverEncoding: 'UTF8',
  dumpBytes: 1000e6,
  ...changes,
});
const target = (changes: Partial<TargetServer> = {}): TargetServer => ({
  version: '15.14',
  major: 15,
  encoding: 'UTF8',
  freeBytes: undefined,
  ...changes,
});
const nothing = {risks: [], warnings: []};

test('a target like the source: nothing to say', () => {
  expect(preflight(backup(), target())).toEqual(nothing);
});

describe('the server’s version', () => {
  test.each<[string, string, number]>([
    ['15.14', '15.14', 15],
    ['13.22', '15.14', 17],
    ['15.14', '15.14', 18],
    ['of a fork that counts otherwise', '15.14', 15],
  ])('%s (pg_dump %s) into %i fits', (serverVersion, pgDumpVersion, major) => {
    expect(preflight(backup({serverVersion, pgDumpVersion}), target({major, version: `${major}.1`}))).toEqual(nothing);
  });

  test.each<[string, number]>([
    ['16.0', 15],
    ['17.6 (Debian 17.6-1)', 16],
    ['18beta1', 17],
    ['9.6.24', 8],
  ])('%s into %i is a risk', (serverVersion, major) => {
    const {risks, warnings} = preflight(backup({serverVersion}), target({major, version: `${major}.1`}));
    expect(risks).toEqual([
      expect.stringContaining(`of PostgreSQL ${serverVersion}, and the target's server is older (${major}.1)`),
    ]);
    expect(warnings).toEqual([]);
  });

  test('a pg_dump that is newer than the target is worth a word', () => {
    const {risks, warnings} = preflight(backup({pgDumpVersion: '17.6'}), target());
    expect(risks).toEqual([]);
    expect(warnings).toEqual([expect.stringContaining('written by pg_dump 17.6, which is newer than')]);
  });
});

describe('the encoding', () => {
  test.each<[string | undefined, string, string]>([
    ['UTF8', 'UTF8', 'UTF8'],
    ['LATIN1', 'UTF8', 'UTF8'],
    ['LATIN1', 'UTF8', 'LATIN1'],
    ['SQL_ASCII', 'SQL_ASCII', 'SQL_ASCII'],
    [undefined, 'SQL_ASCII', 'SQL_ASCII'],
    [undefined, 'UTF8', 'UTF8'],
  ])('of %s (dumped in %s) into %s fits', (serverEncoding, encoding, to) => {
    expect(preflight(backup({serverEncoding, encoding}), target({encoding: to}))).toEqual(nothing);
  });

  test.each<[string | undefined, string, string, string]>([
    ['UTF8', 'UTF8', 'LATIN1', 'what cannot be written in LATIN1 stops the restore'],
    ['UTF8', 'UTF8', 'SQL_ASCII', 'convert and check nothing'],
    ['LATIN1', 'UTF8', 'LATIN2', 'what cannot be written in LATIN2'],
    ['SQL_ASCII', 'SQL_ASCII', 'UTF8', 'what cannot be written in UTF8'],
    [undefined, 'SQL_ASCII', 'UTF8', 'what cannot be written in UTF8'],
    ['MULE_INTERNAL', 'MULE_INTERNAL', 'UTF8', 'what cannot be written in UTF8'],
  ])('of %s (dumped in %s) into %s is a risk', (serverEncoding, encoding, to, outcome) => {
    const {risks, warnings} = preflight(backup({serverEncoding, encoding}), target({encoding: to}));
    expect(risks).toEqual([expect.stringContaining(outcome)]);
    expect(warnings).toEqual([]);
  });

  test('that the backup does not name: another than UTF8 is worth a word', () => {
    const {risks, warnings} = preflight(backup({serverEncoding: undefined}), target({encoding: 'LATIN1'}));
    expect(risks).toEqual([]);
    expect(warnings).toEqual([expect.stringContaining('does not say which one')]);
  });
});

describe('the disk', () => {
  test.each<[string, number | undefined, number | undefined, boolean]>([
    ['unknown', undefined, 2000e6, true],
    ['as large as the source', 2000e6, 2000e6, true],
    ['smaller than the source', 2000e6 - 1, 2000e6, false],
    ['as large as is likely', 1500e6, undefined, true],
    ['smaller than is likely', 1500e6 - 1, undefined, false],
    ['full', 0, undefined, false],
  ])('%s', (_, freeBytes, databaseBytes, fits) => {
    const {risks} = preflight(backup({databaseBytes}), target({freeBytes}));
    expect(risks).toEqual(fits ? [] : [expect.stringMatching(/disk has [\d,]+ MB free, .* takes about [\d,]+ MB/)]);
  });
});

test('all that speaks against a target is said at once', () => {
  const {risks} = preflight(backup({serverVersion: '17.1'}), target({encoding: 'LATIN1', freeBytes: 0}));
  expect(risks).toHaveLength(3);
});
