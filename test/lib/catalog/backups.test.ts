import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {
  describeBackup,
  groupObjects,
  isRestorable,
  type ListedObject,
  strayVerifications,
} from '../../../src/lib/catalog/backups.ts';
import {backupKey, manifestKey, verificationKey} from '../../../src/lib/catalog/key-names.ts';
import type {DocumentReading, Manifest} from '../../../src/lib/catalog/manifest.ts';
import {sampleKey, sampleManifest} from './backup.ts';

const body: ListedObject = {key: sampleKey, sizeBytes: sampleManifest.size};
const manifest: ListedObject = {key: manifestKey(sampleKey), sizeBytes: 900};
const reading: DocumentReading<Manifest> = {
  is: 'document',
  document: sampleManifest,
  seal: 'verified',
  sealedBy: '0123456789abcdef',
  json: {},
};

function describe_(objects: ListedObject[], ...rest: [DocumentReading<Manifest>?, ('sealed' | 'legacy')?]) {
  const [group] = groupObjects(objects);
  if (!group) throw new Error('no backup');
  return describeBackup(group, rest[0], rest[1]);
}

describe('a listing', () => {
  it('becomes backups, newest first, in whatever order it comes', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({min: 0, max: 4e12}), {maxLength: 20}).chain((times) => {
          const keys = times.map((ms) => backupKey(new Date(ms), ms % 2 ? 'gzip' : 'zstd'));
          const objects = keys.flatMap((key) =>
            [key, manifestKey(key), verificationKey(key)].map((name) => ({key: name, sizeBytes: 1})),
          );
          return fc.tuple(fc.constant(keys), fc.shuffledSubarray(objects, {minLength: objects.length}));
        }),
        ([keys, objects]) => {
          const groups = groupObjects([...objects, {key: 'database-backups/notes.txt', sizeBytes: 1}]);
          expect(groups.map(({key}) => key)).toEqual([...keys].sort().reverse());
          for (const {key, ...parts} of groups) {
            expect([parts.body?.key, parts.manifest?.key, parts.verification?.key]).toEqual([
              key,
              manifestKey(key),
              verificationKey(key),
            ]);
          }
        },
      ),
    );
  });

  it('of nothing is no backups', () => {
    expect(groupObjects([])).toEqual([]);
    expect(groupObjects([{key: 'migrated/uploads/x', sizeBytes: 1}])).toEqual([]);
  });
});

describe('the result of a verification whose backup is gone', () => {
  const verification = {key: verificationKey(sampleKey), sizeBytes: 5};

  it('is no backup', () => {
    expect(groupObjects([verification])).toEqual([]);
    expect(strayVerifications([verification])).toEqual([sampleKey]);
  });

  it.each([[[body]], [[manifest]], [[body, manifest]]])('is not, beside %p', (rest) => {
    expect(groupObjects([verification, ...rest])).toHaveLength(1);
    expect(strayVerifications([verification, ...rest])).toEqual([]);
  });
});

describe('a backup', () => {
  it('is as old as the newest of its objects', () => {
    const at = (day: number) => ({modifiedAt: new Date(`2026-01-0${day}`)});
    expect(
      describe_(
        [
          {...body, ...at(1)},
          {...manifest, ...at(3)},
        ],
        reading,
      ).modifiedAt,
    ).toEqual(at(3).modifiedAt);
    expect(describe_([{...body, ...at(2)}]).modifiedAt).toEqual(at(2).modifiedAt);
  });

  it('is complete when its manifest fits its object, and shows what the manifest says', () => {
    expect(describe_([body, manifest], reading)).toMatchObject({
      key: sampleKey,
      startedAt: new Date('2025-11-04T15:30:00Z'),
      state: 'complete',
      problem: undefined,
      sizeBytes: 1234,
      database: 'clinic',
      label: 'scheduled',
      isHeld: false,
      tables: 2,
      rows: 7,
      dumpBytes: 9876,
      seal: 'verified',
      objectKeys: [manifest.key, sampleKey],
    });
  });

  it('lists its body last of what is stored of it: a delete that is broken off leaves an incomplete backup', () => {
    const verification = {key: verificationKey(sampleKey), sizeBytes: 5};
    expect(describe_([body, manifest, verification], reading).objectKeys).toEqual([
      manifest.key,
      verification.key,
      sampleKey,
    ]);
  });

  it('is damaged when the object has another size than the manifest says', () => {
    for (const sizeBytes of [1233, 1235, 0]) {
      expect(describe_([{...body, sizeBytes}, manifest], reading)).toMatchObject({
        state: 'damaged',
        problem: expect.stringContaining(`${sizeBytes} bytes`),
      });
    }
  });

  it('is damaged when its manifest cannot be trusted', () => {
    expect(describe_([body, manifest], {is: 'invalid', reason: 'it is not JSON'})).toMatchObject({
      state: 'damaged',
      problem: 'its manifest cannot be trusted: it is not JSON',
      tables: undefined,
      isHeld: false,
    });
  });

  it('is incomplete without its object, or without a manifest', () => {
    expect(describe_([manifest], reading)).toMatchObject({
      state: 'incomplete',
      sizeBytes: 0,
      objectKeys: [manifest.key],
    });
    expect(describe_([body], undefined, 'sealed')).toMatchObject({
      state: 'incomplete',
      problem: expect.stringMatching(/no manifest/),
    });
    expect(describe_([body, manifest], {is: 'legacy', database: 'clinic'}, 'sealed')).toMatchObject({
      state: 'damaged',
    });
  });

  it('is a legacy one when its object is, with or without the older manifest', () => {
    expect(describe_([body], undefined, 'legacy')).toMatchObject({state: 'legacy', database: undefined});
    expect(describe_([body, manifest], {is: 'legacy', database: 'clinic'}, 'legacy')).toMatchObject({
      state: 'legacy',
      database: 'clinic',
    });
  });

  it.each([
    ['complete', true],
    ['legacy', true],
    ['incomplete', false],
    ['damaged', false],
  ] as const)('that is %s can be restored: %s', (state, expected) => {
    expect(isRestorable({state})).toBe(expected);
  });
});
