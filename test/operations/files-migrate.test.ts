import {execFileSync} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {mkdir, readdir, stat, symlink, writeFile} from 'node:fs/promises';
import {createServer} from 'node:net';
import path from 'node:path';
import {afterEach, beforeEach, describe, expect, test} from '@jest/globals';
import {encryptionKey} from '../../src/lib/encrypt/keys.ts';
import {BackupError} from '../../src/lib/errors.ts';
import type {ProgressEvent} from '../../src/lib/observer.ts';
import {listFiles} from '../../src/lib/operations/files-list.ts';
import {type MigrateResult, migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {restoreFiles} from '../../src/lib/operations/files-restore.ts';
import {Secret} from '../../src/lib/secret.ts';
import {type FilesPlace, filesPlace, tree, treeContent} from '../support/files-place.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {contentOf, failureOf, keySettings, newKey, runtime, type StoreKind, s3Settings} from '../support/settings.ts';

const mib = 1 << 20;
/** More than a part of 8 MiB: a multipart upload of three. */
const largeBytes = 20 * mib + 123;

const strange: Record<string, string> = {
  'with space.txt': '1',
  'quote"\'`$.pdf': '22',
  'line\nbreak\r.txt': '333',
  '..dots..': '4444',
  '...': '55555',
  'caf\u00e9.txt': 'composed',
  'cafe\u0301.txt': 'decomposed',
  '山田/😀.png': 'a picture',
  ' leading and trailing ': 'x',
  'plus+percent%2F?#&=;': 'y',
  ['n'.repeat(255)]: 'z',
  'deep/er/and/deeper/file': 'deep',
  'a.encrypted': 'looks encrypted',
  empty: '',
};

const actions = ({files}: MigrateResult) => Object.fromEntries(files.map(({path: name, action}) => [name, action]));
const reasonOf = ({files}: MigrateResult, name: string) => files.find((file) => file.path === name)?.reason ?? '';

let place: FilesPlace;
afterEach(async () => {
  expect(await place.unfinished()).toEqual([]);
  await place.dispose();
});

describe.each<StoreKind>(['directory', 's3'])('into a store of kind %s', (kind) => {
  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test('every file of the tree, whatever its name, comes back the same', async () => {
    await place.write(strange);
    await place.write({'large.bin': randomBytes(largeBytes), 'part.bin': randomBytes(8 * mib)});
    const result = await migrateFiles(place.migrate(), runtime());
    const count = Object.keys(strange).length + 2;
    expect(result).toMatchObject({uploaded: count, unchanged: 0, deleted: 0, conflicts: 0, failed: 0});
    const expected = [...Object.keys(strange), 'large.bin', 'part.bin'].map(
      (name) => `migrated/uploads/${name}.encrypted`,
    );
    expect((await place.keys()).sort()).toEqual(expected.sort());
    const restored = await restoreFiles(place.restore(), runtime());
    expect(restored).toMatchObject({restored: count, failed: 0, conflicts: 0, unchecked: 0});
    expect(await tree(path.join(place.home, 'restored/uploads'))).toEqual(await tree(place.uploads));

    const again = await migrateFiles(place.migrate(), runtime());
    expect(again).toMatchObject({uploaded: 0, unchanged: count, failed: 0});
  });

  test('nothing of a file can be read in the bucket', async () => {
    await place.write({'note.txt': 'the patient has a cold '.repeat(100)});
    await migrateFiles(place.migrate(), runtime());
    const [key = ''] = await place.keys();
    expect((await contentOf(place.store, key)).includes('cold')).toBe(false);
    expect((await place.store.head(key))?.metadata).toMatchObject({
      'content-type': 'text/plain',
      'original-size': '2300',
    });
  });

  test('other content is a conflict, and the newer version with --overwrite', async () => {
    await place.write({same: 'same', 'other size': 'first', 'other content': 'first'});
    await migrateFiles(place.migrate(), runtime());
    await place.write({'other size': 'second', 'other content': 'FIRST'});
    const conflict = await migrateFiles(place.migrate({deleteLocal: true}), runtime());
    expect(actions(conflict)).toEqual({same: 'unchanged', 'other size': 'conflict', 'other content': 'conflict'});
    expect(conflict).toMatchObject({conflicts: 2, deleted: 1});
    expect((await readdir(place.uploads)).sort()).toEqual(['other content', 'other size']);
    const overwritten = await migrateFiles(place.migrate({overwrite: true}), runtime());
    expect(overwritten).toMatchObject({uploaded: 2, conflicts: 0});
    await restoreFiles(place.restore(), runtime());
    expect((await tree(path.join(place.home, 'restored/uploads'))).get('other content')?.content).toBe('FIRST');
  });

  test('--dry-run says what would be done, and changes nothing anywhere', async () => {
    await place.write({there: 'x', changed: 'x'});
    await migrateFiles(place.migrate(), runtime());
    await place.write({changed: 'yy', fresh: 'new'});
    const before = [await place.keys(), await tree(place.uploads)];
    const settings = place.migrate({dryRun: true, deleteLocal: true, overwrite: true});
    const result = await migrateFiles(settings, runtime());
    expect(actions(result)).toEqual({there: 'unchanged', changed: 'uploaded', fresh: 'uploaded'});
    expect(result).toMatchObject({dryRun: true, uploadedBytes: 5, deleted: 3});
    expect([await place.keys(), await tree(place.uploads)]).toEqual(before);
    expect((await migrateFiles(place.migrate({dryRun: true}), runtime())).conflicts).toBe(1);
  });

  test('--delete removes what was proved to be stored, now or before', async () => {
    await place.write({earlier: 'stored before'});
    await migrateFiles(place.migrate(), runtime());
    await place.write({...strange, 'large.bin': randomBytes(largeBytes)});
    const before = await tree(place.uploads);
    const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime());
    expect(result).toMatchObject({failed: 0, deleted: before.size, unchanged: 1});
    expect((await tree(place.uploads)).size).toBe(0);
    await restoreFiles(place.restore({to: place.home}), runtime());
    expect(await tree(place.uploads)).toEqual(before);
  });

  test('--delete keeps what the bucket holds otherwise than its metadata say', async () => {
    await place.write({a: 'content a', b: 'content b'});
    await migrateFiles(place.migrate(), runtime());
    const [keyA = '', keyB = ''] = await place.keys();
    // Damaged, with its good metadata: the digest says that it is there.
    const metadata = (await place.store.head(keyA))?.metadata ?? {};
    const damaged = await contentOf(place.store, keyA);
    damaged[damaged.length - 3] = (damaged.at(-3) ?? 0) ^ 1;
    await place.store.replace(keyA, damaged, {metadata});
    // Exchanged for another object.
    const metadataB = (await place.store.head(keyB))?.metadata ?? {};
    await place.store.replace(keyB, await contentOf(place.store, keyA), {metadata: metadataB});
    const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime());
    expect(actions(result)).toEqual({a: 'failed', b: 'failed'});
    expect(result.deleted).toBe(0);
    expect((await tree(place.uploads)).size).toBe(2);
  });

  test('an interruption leaves nothing half-done, and the next run goes on', async () => {
    await place.write({'1': 'one', '2': 'two', 'large.bin': randomBytes(largeBytes), z: 'last'});
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = (event: ProgressEvent) => {
      if (event.type === 'progress' && event.bytes > 6) controller.abort(reason);
    };
    const settings = place.migrate({concurrency: 1, deleteLocal: true});
    const failure = await failureOf(migrateFiles(settings, runtime({observer, signal: controller.signal})));
    expect(failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
    expect(failure.reason).toContain('2 files were uploaded');
    expect(await place.unfinished()).toEqual([]);
    expect((await readdir(place.uploads)).sort()).toEqual(['large.bin', 'z']);
    // A large file whose last part was under way is finished; one that was not is not there at all.
    const next = await migrateFiles(place.migrate(), runtime());
    expect(next).toMatchObject({failed: 0, conflicts: 0});
    expect(next.uploaded + next.unchanged).toBe(2);
    expect(await restoreFiles(place.restore(), runtime())).toMatchObject({restored: 4, failed: 0});
  });

  test('hidden names: the keys say nothing, the index and the objects say all', async () => {
    await place.write(strange);
    const count = Object.keys(strange).length;
    expect(await migrateFiles(place.migrate({hideNames: true}), runtime())).toMatchObject({uploaded: count, failed: 0});
    const keys = await place.keys();
    expect(keys).toHaveLength(count + 1);
    for (const key of keys) {
      expect(key).toMatch(/^(migrated\/uploads\/[0-9a-f]{64}|loma-backup\/file-index\/uploads)\.encrypted$/);
    }
    const again = await migrateFiles(place.migrate({hideNames: true}), runtime());
    expect(again).toMatchObject({uploaded: 0, unchanged: count});
    const listing = {store: place.migrate().store, optionalKeys: keySettings(place.key), long: false};
    const names = async () => (await listFiles(listing, runtime())).map(({name}) => name).sort();
    const expected = Object.keys(strange)
      .map((name) => `uploads/${name}`)
      .sort();
    expect(await names()).toEqual(expected);
    await place.store.delete('loma-backup/file-index/uploads.encrypted');
    expect(await names()).toEqual(expected);
    await restoreFiles(place.restore(), runtime());
    expect(await tree(path.join(place.home, 'restored/uploads'))).toEqual(await tree(place.uploads));
    // A run with nothing to do makes the index anew.
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    expect(await place.keys()).toEqual(keys);
    expect((await listFiles({...listing, prefix: 'uploads/山田/'}, runtime())).map(({name}) => name)).toEqual([
      'uploads/山田/😀.png',
    ]);
  });

  test('a key of before is used to compare, and hidden names made with it are found', async () => {
    await place.write({a: 'content'});
    await migrateFiles(place.migrate(), runtime());
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    const keys = keySettings(newKey(), place.key);
    for (const hideNames of [false, true]) {
      expect(await migrateFiles(place.migrate({keys, hideNames}), runtime())).toMatchObject({
        uploaded: 0,
        unchanged: 1,
      });
    }
    const foreign = await migrateFiles(place.migrate({keys: keySettings(newKey())}), runtime());
    expect(foreign).toMatchObject({conflicts: 1, uploaded: 0});
    expect(reasonOf(foreign, 'a')).toContain('not at hand');
  });
});

describe.each<StoreKind>(['directory', 's3'])('hidden names in a store of kind %s', (kind) => {
  const indexKey = 'loma-backup/file-index/uploads.encrypted';

  beforeEach(async () => {
    place = await filesPlace(kind);
  });

  test.each([
    ['the index', async () => undefined],
    ['the objects, when there is no index', () => place.store.delete(indexKey)],
    ['the objects, when the index is damaged', () => place.store.replace(indexKey, Buffer.from('damaged'))],
  ])('with another key nothing is stored: %s name the key that hid them', async (_, change) => {
    await place.write({a: 'content a', b: 'content b'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    await change();
    const stored = async () =>
      Promise.all((await place.keys()).map(async (key) => [key, (await contentOf(place.store, key)).toString('hex')]));
    const before = await stored();
    const other = newKey();
    for (const dryRun of [false, true]) {
      const settings = place.migrate({hideNames: true, keys: keySettings(other), dryRun});
      const failure = await failureOf(migrateFiles(settings, runtime()));
      expect(failure).toMatchObject({code: 'WRONG_KEY', exitCode: 5});
      for (const key of [place.key, other]) {
        expect(failure.reason).toContain(encryptionKey(new Secret(key)).fingerprint);
      }
      expect(failure.hint).toContain('PHI_ENCRYPTION_KEYS_PREVIOUS');
    }
    expect(await stored()).toEqual(before);
    const both = place.migrate({hideNames: true, keys: keySettings(other, place.key)});
    expect(await migrateFiles(both, runtime())).toMatchObject({unchanged: 2, uploaded: 0, failed: 0});
  });

  test.each(['', 'damaged'])('a damaged index (%j) is made anew, and kept under another key', async (damaged) => {
    await place.write({a: 'content a'});
    await migrateFiles(place.migrate({hideNames: true}), runtime());
    await place.store.replace(indexKey, Buffer.from(damaged));
    const warnings: string[] = [];
    const observer = (event: ProgressEvent) => {
      if (event.type === 'warning') warnings.push(event.message);
    };
    await place.write({b: 'content b'});
    const settings = place.migrate({hideNames: true});
    expect(await migrateFiles(settings, runtime({observer}))).toMatchObject({unchanged: 1, uploaded: 1, failed: 0});
    const kept = (await place.keys()).find((key) => key.startsWith('loma-backup/damaged-file-index/uploads-')) ?? '';
    expect(String(await contentOf(place.store, kept))).toBe(damaged);
    expect(warnings.join()).toContain(kept);
    const listing = {store: settings.store, optionalKeys: keySettings(place.key), long: false};
    expect((await listFiles(listing, runtime())).map(({name}) => name).sort()).toEqual(['uploads/a', 'uploads/b']);
    expect(await migrateFiles(settings, runtime({observer}))).toMatchObject({unchanged: 2});
    expect(warnings).toHaveLength(1);
  });
});

test('an index that the store refuses to give is not made anew', async () => {
  place = await filesPlace('s3');
  await place.write({a: 'content a'});
  await migrateFiles(place.migrate({hideNames: true}), runtime());
  const before = await place.store.head('loma-backup/file-index/uploads.encrypted');
  const proxy = await startProxy(servers().objects, ({method, url}) =>
    method === 'GET' && url.includes('/file-index/') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
  );
  const bucket = place.settings.backupsBucket;
  const store = {...s3Settings(proxy, bucket), filesBucket: bucket};
  const migration = migrateFiles(place.migrate({store, hideNames: true}), runtime()).finally(() => proxy.stop());
  const failure = await failureOf(migration);
  expect(failure).toMatchObject({code: 'STORAGE_DENIED', exitCode: 4});
  expect(await place.store.head('loma-backup/file-index/uploads.encrypted')).toEqual(before);
});

describe('what is no file, or cannot be read', () => {
  beforeEach(async () => {
    place = await filesPlace('directory');
  });

  test('links, pipes, sockets and .gitkeep are listed and left alone', async () => {
    await place.write({'.gitkeep': '', 'sub/.gitkeep': '', file: 'x'});
    await writeFile(path.join(place.home, 'secret'), 'outside');
    await symlink('../secret', path.join(place.uploads, 'link'));
    await symlink('..', path.join(place.uploads, 'folder link'));
    execFileSync('mkfifo', [path.join(place.uploads, 'pipe')]);
    const server = createServer().listen(path.join(place.uploads, 'socket'));
    await new Promise((resolve) => server.once('listening', resolve));
    const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime());
    expect(result).toMatchObject({uploaded: 1, skipped: 6, failed: 0, deleted: 1});
    expect(reasonOf(result, 'link')).toContain('symbolic link');
    expect(reasonOf(result, 'pipe')).toContain('pipe');
    expect(reasonOf(result, 'socket')).toContain('socket');
    expect(await place.keys()).toEqual(['migrated/uploads/file.encrypted']);
    server.close();
  });

  test('a file that becomes a pipe, a link, or nothing between the walk and its turn fails alone', async () => {
    await place.write({gone: '1', linked: '2', piped: '3', stays: '4'});
    let isDone = false;
    const observer = (event: ProgressEvent) => {
      if (event.type !== 'started' || event.step !== 'files' || isDone) return;
      isDone = true;
      const at = (name: string) => path.join(place.uploads, name);
      execFileSync('sh', [
        '-c',
        'rm "$1" "$2" "$3"; ln -s /etc/hostname "$2"; mkfifo "$3"',
        '-',
        ...['gone', 'linked', 'piped'].map(at),
      ]);
    };
    const result = await migrateFiles(place.migrate(), runtime({observer}));
    expect(actions(result)).toEqual({gone: 'failed', linked: 'failed', piped: 'failed', stays: 'uploaded'});
    expect(reasonOf(result, 'linked')).toContain('symbolic link');
    expect(await place.keys()).toEqual(['migrated/uploads/stays.encrypted']);
  });

  test.each(['grows', 'shrinks', 'is written to', 'is written to, its time set back', 'is replaced'])(
    'a large file that %s while it is read is neither published nor deleted',
    async (how) => {
      const file = path.join(place.uploads, 'large.bin');
      await place.write({'large.bin': randomBytes(largeBytes), other: 'x'});
      const {atime, mtime} = await stat(file);
      let isDone = false;
      const observer = (event: ProgressEvent) => {
        if (isDone || event.type !== 'progress' || event.bytes < mib || event.bytes >= largeBytes) return;
        isDone = true;
        const script = {
          grows: 'echo more >>"$1"',
          shrinks: 'truncate -s -100 "$1"',
          'is written to': 'printf x | dd of="$1" bs=1 conv=notrunc seek=$((20*1048576)) status=none',
          'is written to, its time set back': `printf x | dd of="$1" bs=1 conv=notrunc seek=$((20*1048576)) status=none; touch -d @${mtime.getTime() / 1000} "$1"`,
          'is replaced': 'cp "$1" "$1.new"; mv "$1.new" "$1"',
        }[how];
        execFileSync('sh', ['-c', script ?? '', '-', file]);
      };
      const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime({observer}));
      expect(isDone).toBe(true);
      expect(atime).toBeTruthy();
      const large = result.files.find(({path: name}) => name === 'large.bin');
      expect(large).toMatchObject({action: 'failed', code: 'FILE_CHANGED', isDeleted: false});
      expect((await stat(file)).isFile()).toBe(true);
      expect(await place.keys()).toEqual(['migrated/uploads/other.encrypted']);
    },
  );

  test('a file that is appended to after it was stored is not deleted', async () => {
    await place.write({log: 'line 1\n'});
    const observer = (event: ProgressEvent) => {
      // Stored, not yet compared.
      if (event.type === 'progress')
        execFileSync('sh', ['-c', 'echo line 2 >>"$1"', '-', path.join(place.uploads, 'log')]);
    };
    const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime({observer}));
    expect(actions(result)).toEqual({log: 'failed'});
    expect((await tree(place.uploads)).get('log')?.content).toContain('line 2');
  });

  test('a name that is not UTF-8 is named and fails alone', async () => {
    await place.write({fine: 'x'});
    await writeFile(Buffer.concat([Buffer.from(`${place.uploads}/bad`), Buffer.from([0xff])]), 'x');
    const result = await migrateFiles(place.migrate(), runtime());
    expect(result).toMatchObject({uploaded: 1, failed: 1});
    expect(reasonOf(result, 'bad\\xff')).toContain('UTF-8');
  });

  test('names that are not UTF-8 are told apart by their bytes, and chosen by globs', async () => {
    const write = async (...parts: (string | number)[]) => {
      const bytes = parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : Buffer.from(part)));
      await writeFile(Buffer.concat([Buffer.from(`${place.uploads}/`), ...bytes]), 'x');
    };
    await place.write({'fine.TXT': 'x', 'é.bin': 'x'});
    await write(0xff, 0xfe, 'bad.bin');
    await write(0xff, 0xfd, 'bad.bin');
    await write('M', 0xfc, 'ller é\\.TXT');
    await mkdir(Buffer.concat([Buffer.from(`${place.uploads}/folder`), Buffer.from([0xe9])]));
    await write('folder', 0xe9, '/inside.TXT');
    await write('folder', 0xe9, '/cut', 0xe2, 0x82);

    const failedOf = async (filter: {include?: string[]; exclude?: string[]}) => {
      const {files} = await migrateFiles(place.migrate({dryRun: true, ...filter}), runtime());
      return files.filter(({action}) => action === 'failed').map(({path: name}) => name);
    };
    const bins = ['\\xff\\xfdbad.bin', '\\xff\\xfebad.bin'];
    const texts = ['M\\xfcller é\\x5c.TXT', 'folder\\xe9/inside.TXT'];
    expect((await failedOf({})).sort()).toEqual([...bins, ...texts, 'folder\\xe9/cut\\xe2\\x82'].sort());
    expect((await failedOf({include: ['*.TXT']})).sort()).toEqual([...texts].sort());
    expect(await failedOf({include: ['M?ller*']})).toEqual([texts[0]]);
    expect((await failedOf({exclude: ['*bad.bin', 'folder?/**']})).sort()).toEqual([texts[0]]);
    const chosen = place.migrate({exclude: ['*bad.bin', 'M?ller*', 'folder?/*']});
    expect(await migrateFiles(chosen, runtime())).toMatchObject({uploaded: 2, failed: 0});
  });

  test('a key of more than 1,024 bytes is refused and named, unless names are hidden', async () => {
    const folder = 'd'.repeat(200);
    const long = `${folder}/${folder}/${folder}/${folder}/${'f'.repeat(193)}`;
    const fits = long.slice(0, 1024 - 'migrated/uploads/.encrypted'.length);
    const tooLong = `${fits}x`;
    await place.write({[fits]: 'fits', [tooLong]: 'too long'});
    const result = await migrateFiles(place.migrate(), runtime());
    expect(actions(result)).toEqual({[fits]: 'uploaded', [tooLong]: 'failed'});
    expect(reasonOf(result, tooLong)).toContain('1025 bytes');
    expect(await migrateFiles(place.migrate({hideNames: true}), runtime())).toMatchObject({uploaded: 2, failed: 0});
  });

  test('globs choose: without a slash they are about the name', async () => {
    await place.write({'a.pdf': '1', 'sub/b.pdf': '2', 'sub/c.tmp': '3', 'tmp/d.pdf': '4'});
    const result = await migrateFiles(place.migrate({include: ['*.pdf'], exclude: ['tmp/**']}), runtime());
    expect(actions(result)).toEqual({'a.pdf': 'uploaded', 'sub/b.pdf': 'uploaded'});
  });

  test('a directory that is not there is a usage error', async () => {
    const failure = await failureOf(migrateFiles(place.migrate({directory: `${place.uploads}/none`}), runtime()));
    expect(failure).toMatchObject({code: 'CONFIGURATION_INVALID', exitCode: 2});
  });

  test('1,200 files, and again', async () => {
    await mkdir(path.join(place.uploads, 'many'));
    for (let index = 0; index < 1200; index += 1) {
      await writeFile(path.join(place.uploads, 'many', `file ${index}`), `content ${index}`);
    }
    expect(await migrateFiles(place.migrate({concurrency: 16}), runtime())).toMatchObject({uploaded: 1200, failed: 0});
    expect(await migrateFiles(place.migrate(), runtime())).toMatchObject({unchanged: 1200, uploaded: 0});
  });
});

describe('an older object without metadata', () => {
  beforeEach(async () => {
    place = await filesPlace('directory');
  });

  test('is compared by its content', async () => {
    await place.write({same: 'same', other: 'same'});
    await migrateFiles(place.migrate(), runtime());
    for (const key of await place.keys()) await place.store.replace(key, await contentOf(place.store, key));
    await place.write({other: 'else'});
    const result = await migrateFiles(place.migrate({deleteLocal: true}), runtime());
    expect(actions(result)).toEqual({same: 'unchanged', other: 'conflict'});
    expect(await readdir(place.uploads)).toEqual(['other']);
  });
});

describe('an S3 server that fails', () => {
  beforeEach(async () => {
    place = await filesPlace('s3');
  });

  test('for one file: the others are stored', async () => {
    await place.write({a: '1', b: '2', 'large.bin': randomBytes(largeBytes), c: '3'});
    const proxy = await startProxy(servers().objects, ({method, url}) =>
      method === 'PUT' && (url.includes('/b.encrypted') || url.includes('partNumber=2&'))
        ? {answer: {status: 403, code: 'AccessDenied'}}
        : undefined,
    );
    const store = {...s3Settings(proxy, place.settings.backupsBucket), filesBucket: place.settings.backupsBucket};
    const result = await migrateFiles(place.migrate({store, deleteLocal: true}), runtime());
    expect(actions(result)).toEqual({a: 'uploaded', b: 'failed', 'large.bin': 'failed', c: 'uploaded'});
    expect((await readdir(place.uploads)).sort()).toEqual(['b', 'large.bin']);
    expect(await place.keys()).toEqual(['migrated/uploads/a.encrypted', 'migrated/uploads/c.encrypted']);
    await proxy.stop();
  });

  test('a second version that cannot be stored leaves the first', async () => {
    const first = randomBytes(largeBytes);
    await place.write({'large.bin': first});
    await migrateFiles(place.migrate(), runtime());
    await place.write({'large.bin': randomBytes(largeBytes)});
    const proxy = await startProxy(servers().objects, ({method, url}) =>
      method === 'PUT' && url.includes('partNumber=2&') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
    );
    const store = {...s3Settings(proxy, place.settings.backupsBucket), filesBucket: place.settings.backupsBucket};
    expect(await migrateFiles(place.migrate({store, overwrite: true}), runtime())).toMatchObject({failed: 1});
    await proxy.stop();
    await restoreFiles(place.restore(), runtime());
    const restored = await tree(path.join(place.home, 'restored/uploads'));
    expect(restored.get('large.bin')?.content).toBe(treeContent(first));
  });
});
