/** A new key takes over the files, too: sealed anew in their place, ended anywhere and run again. */
import {createCipheriv, randomBytes} from 'node:crypto';
import path from 'node:path';
import {afterEach, beforeEach, describe, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {listFiles} from '../../src/lib/operations/files-list.ts';
import {migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {restoreFiles} from '../../src/lib/operations/files-restore.ts';
import {verifyFiles} from '../../src/lib/operations/files-verify.ts';
import {type RotateSettings, requireRotated, rotateKeys} from '../../src/lib/operations/keys-rotate.ts';
import {type FilesPlace, filesPlace, tree} from '../support/files-place.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {contentOf, failureOf, keySettings, newKey, runtime, type StoreKind, s3Settings} from '../support/settings.ts';

const newer = newKey();
const content = {'a.txt': 'a', 'sub/é.txt': 'b', empty: '', 'large.bin': randomBytes(20 << 20)};

let place: FilesPlace;
afterEach(() => place.dispose());

const noBackup = expect.stringContaining('no backup was looked at');

/** There are no backups. */
const rotation = (changes: Partial<RotateSettings> = {}): RotateSettings => ({
  store: place.migrate().store,
  keys: keySettings(newer, place.key),
  dryRun: false,
  resealLegacy: false,
  files: true,
  ...changes,
});
const current = () => ({keys: keySettings(newer)});

async function expectWhole(count: number): Promise<void> {
  expect(await verifyFiles(place.verify(current()), runtime())).toMatchObject({good: count, failed: 0, unchecked: 0});
  expect(await restoreFiles(place.restore(current()), runtime())).toMatchObject({restored: count, failed: 0});
  expect(await tree(path.join(place.home, 'restored/uploads'))).toEqual(await tree(place.uploads));
}

describe.each<StoreKind>(['directory', 's3'])('in a store of kind %s', (kind) => {
  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test.each([false, true])('every file opens with the new key alone, hidden names: %s', async (hideNames) => {
    await place.write(content);
    await migrateFiles(place.migrate({hideNames}), runtime());
    const keys = await place.keys();
    const looked = await rotateKeys(rotation({files: false}), runtime());
    expect(looked.files).toMatchObject({needed: 4, current: 0});
    expect(looked.keepPreviousBecause.join()).toContain('4 files');
    const planned = await rotateKeys(rotation({dryRun: true}), runtime());
    expect(planned.files).toMatchObject({rotated: 4, failed: []});
    expect(planned.keepPreviousBecause.join()).toContain('--dry-run');
    expect(await place.keys()).toEqual(keys);

    const done = await rotateKeys(rotation(), runtime());
    expect(done).toMatchObject({files: {rotated: 4, failed: []}, keepPreviousBecause: [noBackup]});
    await expectWhole(4);
    expect(await place.keys()).toHaveLength(hideNames ? 6 : 5);
    expect(await place.unfinished()).toEqual([]);
    // A later migration finds them.
    expect(await migrateFiles(place.migrate({hideNames, ...current()}), runtime())).toMatchObject({
      unchanged: 4,
      uploaded: 0,
    });
    const names = {store: place.migrate().store, optionalKeys: keySettings(newer), long: false};
    expect((await listFiles(names, runtime())).map(({name}) => name).sort()).toEqual(
      Object.keys(content)
        .map((name) => `uploads/${name}`)
        .sort(),
    );
    expect(await rotateKeys(rotation(), runtime())).toMatchObject({files: {current: 4, rotated: 0}});
  });
});

describe('what cannot be rotated', () => {
  beforeEach(async () => {
    place = await filesPlace('directory');
  });

  test('is named and kept, and the others are rotated', async () => {
    await place.write({good: '1', altered: '2', cut: '3'});
    await migrateFiles(place.migrate(), runtime());
    const keyOf = (name: string) => `migrated/uploads/${name}.encrypted`;
    const alter = async (name: string, change: (body: Buffer) => Buffer, more: Record<string, string> = {}) => {
      const metadata = {...(await place.store.head(keyOf(name)))?.metadata, ...more};
      await place.store.replace(keyOf(name), change(await contentOf(place.store, keyOf(name))), {metadata});
    };
    await alter('altered', (body) => body, {'original-size': '7'});
    await alter('cut', (body) => body.subarray(0, -1));
    const before = await contentOf(place.store, keyOf('cut'));
    const result = await rotateKeys(rotation(), runtime());
    expect(result.files).toMatchObject({rotated: 1, needed: 0});
    expect(result.files?.failed.map(({key}) => key)).toEqual([keyOf('altered'), keyOf('cut')]);
    expect(result.keepPreviousBecause).toEqual([noBackup, '2 files could not be sealed anew']);
    expect(await failureOf((async () => requireRotated(result))())).toMatchObject({
      code: 'ROTATION_INCOMPLETE',
      message: '2 files could not be rotated',
    });
    expect((await contentOf(place.store, keyOf('cut'))).equals(before)).toBe(true);
  });

  test('without a key that fits, nothing is written', async () => {
    await place.write({a: '1'});
    await migrateFiles(place.migrate(), runtime());
    const result = await rotateKeys(rotation({keys: keySettings(newer, newKey())}), runtime());
    expect(result.files?.failed[0]?.note).toContain('not at hand');
    expect(await verifyFiles(place.verify(), runtime())).toMatchObject({good: 1});
  });

  test('a file of the older procedure is sealed, and stays unchecked', async () => {
    const iv = randomBytes(16);
    const cipher = createCipheriv('aes-256-gcm', Buffer.from(place.key, 'hex'), iv);
    const body = Buffer.concat([iv, cipher.update('old'), cipher.final(), cipher.getAuthTag()]);
    await place.store.create('migrated/uploads/old.encrypted', body);
    expect(await rotateKeys(rotation(), runtime())).toMatchObject({
      files: {rotated: 1},
      keepPreviousBecause: [noBackup],
    });
    expect(await verifyFiles(place.verify(current()), runtime())).toMatchObject({unchecked: 1, failed: 0});
  });
});

test('ended before any of its writes, a rotation is finished by the next run', async () => {
  place = await filesPlace('s3');
  await place.write({a: '1', b: '2'});
  await migrateFiles(place.migrate({hideNames: true}), runtime());
  for (let allowed = 0; ; allowed += 1) {
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    let writes = 0;
    const proxy = await startProxy(servers().objects, ({method}) => {
      if (method !== 'PUT' && method !== 'DELETE') return undefined;
      writes += 1;
      if (writes <= allowed) return undefined;
      controller.abort(reason);
      return {answer: {status: 403, code: 'AccessDenied'}};
    });
    const bucket = place.settings.backupsBucket;
    const settings = rotation({store: {...s3Settings(proxy, bucket), filesBucket: bucket}});
    const result = await rotateKeys(settings, runtime({signal: controller.signal})).catch((error) => error);
    await proxy.stop();
    const both = await verifyFiles(place.verify({keys: keySettings(newer, place.key)}), runtime());
    expect(both).toMatchObject({unchecked: 0});
    expect(both.good).toBeGreaterThanOrEqual(2);
    if (!(result instanceof BackupError)) break;
    expect(result).toMatchObject({code: 'INTERRUPTED'});
    expect(allowed).toBeLessThan(9);
  }
  await expectWhole(2);
});
