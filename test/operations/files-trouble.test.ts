/** A store that is gone, another run at the same time, and what a user may not read. */
import {randomBytes} from 'node:crypto';
import {chmod, chown, mkdir, readdir, readFile} from 'node:fs/promises';
import path from 'node:path';
import {afterEach, describe, expect, test} from '@jest/globals';
import {type MigrateSettings, migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {restoreFiles} from '../../src/lib/operations/files-restore.ts';
import {verifyFiles} from '../../src/lib/operations/files-verify.ts';
import {type FilesPlace, filesPlace} from '../support/files-place.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {runtime, s3Settings} from '../support/settings.ts';
import {unprivilegedUser} from '../support/unprivileged-user.ts';

let place: FilesPlace;
afterEach(() => place.dispose());

/** Runs work as a user whom file modes bind: root is let through all of them. */
async function unprivileged<T>(folders: readonly string[], work: () => Promise<T>): Promise<T> {
  const user = await unprivilegedUser();
  if (!user) return work();
  for (const folder of folders) {
    await chown(folder, user.uid, user.gid);
    for (const entry of await readdir(folder, {recursive: true})) {
      await chown(path.join(folder, entry), user.uid, user.gid);
    }
  }
  process.seteuid?.(user.uid);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

test('a file and a directory that may not be read fail alone, and are kept', async () => {
  place = await filesPlace('directory');
  await place.write({readable: '1', secret: '2', 'locked/inside': '3', 'open/inside': '4'});
  await mkdir(place.folder, {recursive: true});
  const at = (name: string) => path.join(place.uploads, name);
  const result = await unprivileged([place.home, path.dirname(place.folder)], async () => {
    await chmod(at('secret'), 0);
    await chmod(at('locked'), 0);
    return migrateFiles(place.migrate({deleteLocal: true}), runtime());
  });
  await chmod(at('locked'), 0o700);
  expect(result.files.map(({path: name, action, code}) => [name, action, code])).toEqual([
    ['locked', 'failed', 'FILE_UNREADABLE'],
    ['open/inside', 'uploaded', undefined],
    ['readable', 'uploaded', undefined],
    ['secret', 'failed', 'FILE_UNREADABLE'],
  ]);
  expect(result).toMatchObject({failed: 2, uploaded: 2, deleted: 2});
  expect(result.files[0]?.reason).toContain('the directory cannot be read');
  expect(await readdir(at('locked'))).toEqual(['inside']);
  expect((await readdir(place.uploads)).sort()).toEqual(['locked', 'open', 'secret']);
});

test('a device is listed and left alone', async () => {
  place = await filesPlace('directory');
  const settings = place.migrate({directory: '/dev', include: ['null'], dryRun: true});
  const {files} = await migrateFiles(settings, runtime());
  expect(files).toContainEqual(
    expect.objectContaining({path: 'null', action: 'skipped', reason: 'a device is no file'}),
  );
});

describe('another run of the same directory that stores its files meanwhile', () => {
  const names = Array.from({length: 12}, (_, index) => `f${String(index).padStart(2, '0')}`);

  /** Before the first file of a run is stored, another run stores all of them, with other content of the one named `last`. */
  async function migrateBehindAnother(changes: Partial<MigrateSettings>) {
    place = await filesPlace('s3');
    const large = randomBytes(20 << 20);
    const files = {...Object.fromEntries(names.map((name) => [name, name])), large};
    let isDone = false;
    const proxy = await startProxy(servers().objects, ({method}) => {
      if (method !== 'PUT' || isDone) return undefined;
      isDone = true;
      const before = async () => {
        await place.write({last: 'of the other run'});
        const {hideNames = false} = changes;
        expect(await migrateFiles(place.migrate({hideNames}), runtime())).toMatchObject({uploaded: 14, failed: 0});
        await place.write({last: 'of this run'});
      };
      return {before};
    });
    await place.write({...files, last: 'of this run'});
    const bucket = place.settings.backupsBucket;
    const store = {...s3Settings(proxy, bucket), filesBucket: bucket};
    const settings = place.migrate({store, concurrency: 1, ...changes});
    const result = await migrateFiles(settings, runtime()).finally(() => proxy.stop());
    expect(isDone).toBe(true);
    expect(await place.unfinished()).toEqual([]);
    return result;
  }

  test.each([false, true])('is no failure: same content is there already; hidden names: %s', async (hideNames) => {
    const result = await migrateBehindAnother({hideNames, deleteLocal: true});
    expect(result).toMatchObject({uploaded: 0, unchanged: 13, deleted: 13, conflicts: 1, failed: 0});
    expect(result.files.find(({action}) => action === 'conflict')).toMatchObject({path: 'last', code: 'FILE_DIFFERS'});
    expect(await readdir(place.uploads)).toEqual(['last']);
    expect(await verifyFiles(place.verify(), runtime())).toMatchObject({good: 14, failed: 0});
  });

  test('with --overwrite, other content is replaced', async () => {
    const result = await migrateBehindAnother({overwrite: true});
    expect(result).toMatchObject({uploaded: 1, unchanged: 13, conflicts: 0, failed: 0});
    await restoreFiles(place.restore({prefix: 'uploads/last'}), runtime());
    expect(await readFile(path.join(place.home, 'restored/uploads/last'), 'utf8')).toBe('of this run');
  });

  test('in a directory store: both runs end well', async () => {
    place = await filesPlace('directory');
    await place.write(Object.fromEntries(names.map((name) => [name, randomBytes(100_000)])));
    const results = await Promise.all([0, 1].map(() => migrateFiles(place.migrate({hideNames: true}), runtime())));
    for (const result of results) {
      expect(result).toMatchObject({conflicts: 0, failed: 0});
      expect(result.uploaded + result.unchanged).toBe(12);
    }
    expect(await verifyFiles(place.verify(), runtime())).toMatchObject({good: 12, unchecked: 0, failed: 0});
  });
});

test('after ten failures of the store one after another the rest is not tried; one success begins the count anew', async () => {
  place = await filesPlace('s3');
  const names = Array.from({length: 30}, (_, index) => `f${String(index).padStart(2, '0')}`);
  await place.write(Object.fromEntries(names.map((name) => [name, name])));
  const proxy = await startProxy(servers().objects, ({method, url}) =>
    method === 'PUT' && !url.includes('/f05.') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
  );
  const bucket = place.settings.backupsBucket;
  const store = {...s3Settings(proxy, bucket), filesBucket: bucket};
  const result = await migrateFiles(place.migrate({store, concurrency: 1, deleteLocal: true}), runtime());
  await proxy.stop();
  expect(result).toMatchObject({uploaded: 1, failed: 29, deleted: 1});
  const untried = result.files.filter(({reason}) => reason?.startsWith('not tried')).map(({path: name}) => name);
  // Five fail, the sixth is stored, ten more fail.
  expect(untried).toEqual(names.slice(16));
  const asked = new Set(
    proxy.requests.flatMap(({method, url}) => (method === 'PUT' ? [/\/f\d\d\./.exec(url)?.[0]] : [])),
  );
  expect(asked.size).toBe(16);
});
