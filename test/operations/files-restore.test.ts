import {createCipheriv, randomBytes} from 'node:crypto';
import {mkdir, readdir, readFile, rm, stat, symlink, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {afterEach, beforeEach, describe, expect, test} from '@jest/globals';
import * as z from 'zod';
import {readDocument} from '../../src/lib/catalog/manifest.ts';
import {derivedKey, encryptionKey} from '../../src/lib/encrypt/keys.ts';
import {seal} from '../../src/lib/encrypt/seal.ts';
import {BackupError} from '../../src/lib/errors.ts';
import type {ProgressEvent} from '../../src/lib/observer.ts';
import {listFiles} from '../../src/lib/operations/files-list.ts';
import {migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {type FilesRestoreResult, restoreFiles} from '../../src/lib/operations/files-restore.ts';
import {filesVerificationPurpose, verifyFiles} from '../../src/lib/operations/files-verify.ts';
import {rotateKeys} from '../../src/lib/operations/keys-rotate.ts';
import {Secret} from '../../src/lib/secret.ts';
import {type FilesPlace, filesPlace, tree} from '../support/files-place.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {contentOf, failureOf, keySettings, newKey, runtime, type StoreKind, s3Settings} from '../support/settings.ts';

const mib = 1 << 20;

const actions = ({files}: FilesRestoreResult) => Object.fromEntries(files.map(({name, action}) => [name, action]));

let place: FilesPlace;
afterEach(() => place.dispose());

const restored = () => path.join(place.home, 'restored');

/** An object with a good content for its key: what only somebody with the encryption key can make. */
async function plant(key: string, content: string): Promise<void> {
  const sealed: Buffer[] = [];
  await pipeline(
    Readable.from([Buffer.from(content)]),
    seal(encryptionKey(new Secret(place.key)), {objectKey: key, compression: 'none', content: 'file'}),
    async (body: AsyncIterable<Buffer>) => {
      for await (const chunk of body) sealed.push(chunk);
    },
  );
  await place.store.replace(key, Buffer.concat(sealed));
}

/** Replaces an object's bytes and leaves its metadata: what whoever may write to the bucket can do. */
async function tamper(key: string, change: (body: Buffer) => Buffer | Promise<Buffer>): Promise<void> {
  const metadata = (await place.store.head(key))?.metadata ?? {};
  await place.store.replace(key, await change(await contentOf(place.store, key)), {metadata});
}

describe.each<StoreKind>(['directory', 's3'])('from a store of kind %s', (kind) => {
  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test('the files of a prefix, and no others', async () => {
    await place.write({'2023/a': '1', '2024/b': '2', '2024/c/d': '3', '2024-other': '4'});
    await migrateFiles(place.migrate(), runtime());
    for (const prefix of ['uploads/2024/', 'migrated/uploads/2024/']) {
      expect(await restoreFiles(place.restore({prefix}), runtime())).toMatchObject({failed: 0, conflicts: 0});
      expect([...(await tree(restored())).keys()].sort()).toEqual(['uploads/2024/b', 'uploads/2024/c/d']);
    }
    const listing = {store: place.migrate().store, optionalKeys: undefined, long: false, prefix: 'uploads/2024'};
    expect((await listFiles(listing, runtime())).map(({name}) => name)).toEqual([
      'uploads/2024-other',
      'uploads/2024/b',
      'uploads/2024/c/d',
    ]);
    const [long] = await listFiles({...listing, optionalKeys: keySettings(place.key), long: true}, runtime());
    expect(long?.facts).toMatchObject({sizeBytes: 1, contentType: 'application/octet-stream'});
  });

  test('with the wrong key nothing is written, and the keys are named', async () => {
    await place.write({a: 'content'});
    await migrateFiles(place.migrate(), runtime());
    const result = await restoreFiles(place.restore({keys: keySettings(newKey())}), runtime());
    expect(result).toMatchObject({restored: 0, failed: 1});
    expect(result.files[0]).toMatchObject({
      code: 'WRONG_KEY',
      reason: expect.stringContaining('is encrypted with key'),
    });
    expect((await tree(restored())).size).toBe(0);
    const again = await restoreFiles(place.restore({keys: keySettings(newKey(), place.key)}), runtime());
    expect(again).toMatchObject({restored: 1, failed: 0, unchecked: 0});
  });

  test('an interrupted restore is continued', async () => {
    await place.write({'1': 'one', '2': 'two', 'large.bin': randomBytes(20 * mib), z: 'last'});
    await migrateFiles(place.migrate(), runtime());
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = (event: ProgressEvent) => {
      if (event.type === 'progress' && event.items === 2) setImmediate(() => controller.abort(reason));
    };
    const settings = place.restore({concurrency: 1});
    const failure = await failureOf(restoreFiles(settings, runtime({observer, signal: controller.signal})));
    expect(failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
    expect((await readdir(path.join(restored(), 'uploads'))).sort()).toEqual(['1', '2']);
    expect(await restoreFiles(place.restore(), runtime())).toMatchObject({restored: 2, unchanged: 2, conflicts: 0});
    expect(await tree(path.join(restored(), 'uploads'))).toEqual(await tree(place.uploads));
  });

  test('what was read of files that are checked side by side is added up', async () => {
    const names = Array.from({length: 12}, (_, index) => `f${index}`);
    await place.write(Object.fromEntries(names.map((name, index) => [name, randomBytes(1000 * (index + 1))])));
    await migrateFiles(place.migrate(), runtime());
    expect(await verifyFiles(place.verify(), runtime())).toMatchObject({good: 12, bytes: 78_000});
  });

  test('objects that were cut, flipped, exchanged or put back are not restored, and verify finds them', async () => {
    await place.write({
      cut: 'cut',
      flipped: 'flip',
      swapped: 'swap',
      appended: 'append',
      old: 'version 1',
      good: 'good',
    });
    await migrateFiles(place.migrate(), runtime());
    const keyOf = (name: string) => `migrated/uploads/${name}.encrypted`;
    const oldBody = await contentOf(place.store, keyOf('old'));
    await place.write({old: 'version 2'});
    await migrateFiles(place.migrate({overwrite: true}), runtime());
    await tamper(keyOf('cut'), (body) => body.subarray(0, -1));
    await tamper(keyOf('flipped'), (body) => {
      body[body.length - 20] = (body.at(-20) ?? 0) ^ 1;
      return body;
    });
    await tamper(keyOf('appended'), (body) => Buffer.concat([body, Buffer.from('x')]));
    await tamper(keyOf('swapped'), () => contentOf(place.store, keyOf('good')));
    // The older version, authentic under its key: the newer one's metadata give it away.
    await tamper(keyOf('old'), () => oldBody);
    const result = await restoreFiles(place.restore(), runtime());
    expect(result).toMatchObject({restored: 1, failed: 5});
    expect([...(await tree(restored())).keys()]).toEqual(['uploads/good']);
    for (const file of result.files) if (file.action === 'failed') expect(file.code).toBe('DECRYPTION_FAILED');

    const verified = await verifyFiles(place.verify(), runtime());
    expect(verified).toMatchObject({good: 1, failed: 5, unchecked: 0});
    expect(verified.findings.map(({key}) => key).sort()).toEqual(
      ['appended', 'cut', 'flipped', 'old', 'swapped'].map(keyOf),
    );
    const purpose = derivedKey(encryptionKey(new Secret(place.key)), filesVerificationPurpose);
    const {fingerprint} = encryptionKey(new Secret(place.key));
    const stored = await contentOf(place.store, verified.resultKey ?? '');
    const reading = readDocument(stored, z.looseObject({failed: z.int()}), [{fingerprint, key: purpose}]);
    expect(reading).toMatchObject({is: 'document', seal: 'verified', document: {failed: 5, result: 'failed'}});
    expect(verified.resultKey?.startsWith('migrated/')).toBe(false);
  });
});

describe.each<StoreKind>(['directory', 's3'])('a prefix of nothing in a store of kind %s', (kind) => {
  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test.each([false, true])('is an error that says what is there; hidden names: %s', async (hideNames) => {
    await place.write({a: '1', 'sub/b': '2'});
    await migrateFiles(place.migrate({hideNames}), runtime());
    const before = await place.keys();
    for (const prefix of ['nomatch', 'uploads/nomatch', 'uploads/a/']) {
      const ofRestore = await failureOf(restoreFiles(place.restore({prefix}), runtime()));
      expect(ofRestore).toMatchObject({code: 'FILES_NOT_FOUND', exitCode: 4});
      expect(ofRestore.reason).toContain(`${place.store.description} holds no file`);
      expect(ofRestore.reason).toContain(`begins with "${prefix}"; files there: 2 in all`);
      const ofVerify = await failureOf(verifyFiles(place.verify({prefix}), runtime()));
      expect(ofVerify).toMatchObject({code: 'FILES_NOT_FOUND', exitCode: 6, reason: ofRestore.reason});
      const listing = {store: place.migrate().store, optionalKeys: undefined, long: false, prefix};
      expect(await listFiles(listing, runtime())).toEqual([]);
    }
    expect(await place.keys()).toEqual(before);
    expect(await readdir(place.home)).toEqual(['uploads']);
  });

  test('also when the bucket is empty', async () => {
    for (const prefix of [undefined, 'uploads/']) {
      const failure = await failureOf(restoreFiles(place.restore({prefix}), runtime()));
      expect(failure).toMatchObject({code: 'FILES_NOT_FOUND', reason: expect.stringContaining('none in all')});
      expect(await failureOf(verifyFiles(place.verify({prefix}), runtime()))).toMatchObject({exitCode: 6});
    }
    expect(await place.keys()).toEqual([]);
    expect(await readdir(place.home)).toEqual(['uploads']);
  });

  test('may be one of hidden names that the key at hand does not read', async () => {
    await place.write({a: '1'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    const settings = place.restore({prefix: 'uploads/a', keys: keySettings(newKey())});
    expect((await failureOf(restoreFiles(settings, runtime()))).reason).toContain(
      'hidden names that could not be read: 1',
    );
  });
});

describe.each<StoreKind>(['directory', 's3'])('what an index names and a store of kind %s lacks', (kind) => {
  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test.each([undefined, 'uploads', 'uploads/'])('is named, and the rest is restored (prefix %s)', async (prefix) => {
    await place.write({a: '1', b: '2', c: '3'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    const hidden = (await place.keys()).filter((key) => key.startsWith('migrated/'));
    await place.store.delete(hidden[0] ?? '');
    const one = await restoreFiles(place.restore({prefix}), runtime());
    expect(one).toMatchObject({restored: 2, failed: 1});
    const gone = one.files.find(({action}) => action === 'failed');
    expect(gone).toMatchObject({key: hidden[0], code: 'OBJECT_NOT_FOUND', reason: 'the index names it; it is gone'});
    const found = [...(await tree(restored())).keys()];
    expect([...found, gone?.name].sort()).toEqual(['uploads/a', 'uploads/b', 'uploads/c']);

    for (const key of hidden.slice(1)) await place.store.delete(key);
    expect(await restoreFiles(place.restore({prefix}), runtime())).toMatchObject({restored: 0, failed: 3});
    expect(await verifyFiles(place.verify({prefix}), runtime())).toMatchObject({good: 0, failed: 3});
    const other = place.restore({prefix: 'uploads/a'});
    expect((await restoreFiles(other, runtime())).files.map(({name}) => name)).toEqual(['uploads/a']);
  });

  test('is there all the same when a rotation that was ended has given it another key', async () => {
    await place.write({a: '1'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    const index = await contentOf(place.store, 'loma-backup/file-index/uploads.encrypted');
    const keys = keySettings(newKey(), place.key);
    const rotation = {dryRun: false, resealLegacy: false, files: true};
    await rotateKeys({store: place.migrate().store, keys, ...rotation}, runtime());
    await place.store.replace('loma-backup/file-index/uploads.encrypted', index);
    expect(await restoreFiles(place.restore({keys}), runtime())).toMatchObject({restored: 1, failed: 0});
    expect(await verifyFiles(place.verify({keys}), runtime())).toMatchObject({good: 1, failed: 0});
  });
});

test('an index that the store does not give is not taken for an empty one', async () => {
  place = await filesPlace('s3');
  await place.write({a: '1', b: '2'});
  await migrateFiles(place.migrate({hideNames: true}), runtime());
  const proxy = await startProxy(servers().objects, ({method, url}) =>
    method === 'GET' && url.includes('/file-index/uploads') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
  );
  const bucket = place.settings.backupsBucket;
  const store = {...s3Settings(proxy, bucket), filesBucket: bucket};
  const failure = await failureOf(restoreFiles(place.restore({store}), runtime()).finally(() => proxy.stop()));
  expect(failure).toMatchObject({code: 'STORAGE_DENIED', exitCode: 4});
});

describe('a restore', () => {
  beforeEach(async () => {
    place = await filesPlace('directory');
  });

  test('keeps files that are there, and replaces them with --overwrite', async () => {
    await place.write({a: 'from the bucket', b: 'b'});
    await migrateFiles(place.migrate(), runtime());
    await mkdir(path.join(restored(), 'uploads'), {recursive: true});
    await writeFile(path.join(restored(), 'uploads/a'), 'a local one....');
    const kept = await restoreFiles(place.restore(), runtime());
    expect(actions(kept)).toEqual({'uploads/a': 'conflict', 'uploads/b': 'restored'});
    expect(String(await readFile(path.join(restored(), 'uploads/a')))).toBe('a local one....');
    expect(await restoreFiles(place.restore({overwrite: true}), runtime())).toMatchObject({restored: 1, unchanged: 1});
    expect(String(await readFile(path.join(restored(), 'uploads/a')))).toBe('from the bucket');
    expect((await stat(path.join(restored(), 'uploads/a'))).mode & 0o777).toBe(0o600);
  });

  test.each([
    'migrated/../escaped.encrypted',
    'migrated/uploads/../../escaped.encrypted',
    'migrated//etc/escaped.encrypted',
    'migrated/uploads/./escaped.encrypted',
  ])('never leaves its directory, whatever a key says: %s', async (key) => {
    await place.write({good: 'x'});
    await migrateFiles(place.migrate(), runtime());
    // A directory store has no such keys: a bucket has.
    const {RestoreTarget} = await import('../../src/lib/files/restore-target.ts');
    const target = await RestoreTarget.open(restored());
    const name = key.slice('migrated/'.length, -'.encrypted'.length);
    const failure = await failureOf(target.write(name, {mtime: 0, overwrite: true}, async () => undefined));
    expect(failure.code).toBe('FILE_REFUSED');
    expect(await readdir(restored())).toEqual([]);
  });

  test('does not follow links that lie in its directory', async () => {
    await place.write({'sub/file': 'from the bucket', file: 'from the bucket'});
    await migrateFiles(place.migrate(), runtime());
    const outside = path.join(place.home, 'outside');
    await mkdir(outside);
    await mkdir(path.join(restored(), 'uploads'), {recursive: true});
    await symlink(outside, path.join(restored(), 'uploads/sub'));
    await writeFile(path.join(outside, 'target'), 'untouched');
    await symlink(path.join(outside, 'target'), path.join(restored(), 'uploads/file'));
    const result = await restoreFiles(place.restore({overwrite: true}), runtime());
    expect(actions(result)).toEqual({'uploads/file': 'restored', 'uploads/sub/file': 'failed'});
    expect(await readdir(outside)).toEqual(['target']);
    expect(String(await readFile(path.join(outside, 'target')))).toBe('untouched');
    expect(String(await readFile(path.join(restored(), 'uploads/file')))).toBe('from the bucket');
  });

  test('of a directory in the way is a failure of that file', async () => {
    await place.write({a: 'x', b: 'y'});
    await migrateFiles(place.migrate(), runtime());
    await mkdir(path.join(restored(), 'uploads/a/full'), {recursive: true});
    const result = await restoreFiles(place.restore({overwrite: true}), runtime());
    expect(actions(result)).toEqual({'uploads/a': 'failed', 'uploads/b': 'restored'});
    expect((await readdir(path.join(restored(), 'uploads'))).sort()).toEqual(['a', 'b']);
  });

  test('of objects without metadata works, and says that no digest was there', async () => {
    await plant('migrated/uploads/copied.encrypted', 'copied without metadata');
    const iv = randomBytes(16);
    const cipher = createCipheriv('aes-256-gcm', Buffer.from(place.key, 'hex'), iv);
    const legacy = Buffer.concat([iv, cipher.update('of the older procedure'), cipher.final(), cipher.getAuthTag()]);
    await place.store.create('migrated/uploads/legacy.txt.encrypted', legacy);
    const result = await restoreFiles(place.restore(), runtime());
    expect(result).toMatchObject({restored: 2, unchecked: 2, failed: 0});
    const files = await tree(path.join(restored(), 'uploads'));
    expect(files.get('copied')?.content).toBe('copied without metadata');
    expect(files.get('legacy.txt')?.content).toBe('of the older procedure');
    expect(await restoreFiles(place.restore(), runtime())).toMatchObject({unchanged: 2, restored: 0});
    expect(await verifyFiles(place.verify(), runtime())).toMatchObject({good: 0, unchecked: 2, failed: 0});
  });

  test('of a hidden name whose metadata were lost takes it from the index; verify names what is gone', async () => {
    await place.write({'J. Doe.pdf': 'hidden', other: 'other'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    const hidden = (await place.keys()).filter((key) => key.startsWith('migrated/'));
    for (const key of hidden) await place.store.replace(key, await contentOf(place.store, key));
    expect(await restoreFiles(place.restore(), runtime())).toMatchObject({restored: 2, unchecked: 0});
    expect(await tree(path.join(restored(), 'uploads'))).toEqual(await tree(place.uploads));
    await place.store.delete(hidden[0] ?? '');
    const verified = await verifyFiles(place.verify(), runtime());
    expect(verified).toMatchObject({good: 1, failed: 1});
    expect(verified.findings[0]).toMatchObject({key: undefined, code: 'OBJECT_NOT_FOUND'});
  });

  test('of altered metadata restores the authentic content, and verify fails', async () => {
    await place.write({a: 'content'});
    await migrateFiles(place.migrate(), runtime());
    const [key = ''] = await place.keys();
    const metadata = (await place.store.head(key))?.metadata ?? {};
    await place.store.replace(key, await contentOf(place.store, key), {
      metadata: {...metadata, 'original-mtime': '0.000000000'},
    });
    expect(await restoreFiles(place.restore(), runtime())).toMatchObject({restored: 1, unchecked: 1});
    const verified = await verifyFiles(place.verify(), runtime());
    expect(verified).toMatchObject({good: 0, failed: 1});
    expect(verified.findings[0]?.reason).toContain('altered');
    await rm(restored(), {recursive: true});
  });
});
