/**
 * Whoever may write to the bucket may change everything in it. Whatever is there, a reader gives what was stored, or an
 * error of ours; it never releases a byte that was not authenticated.
 */
import {createSecretKey} from 'node:crypto';
import {mkdir, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {gzipSync, zstdCompressSync} from 'node:zlib';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import type {Backup} from '../../src/lib/catalog/backups.ts';
import {manifestKey, verificationKey} from '../../src/lib/catalog/key-names.ts';
import {inspect} from '../../src/lib/dump/inspect.ts';
import {encryptionKey, keyring} from '../../src/lib/encrypt/keys.ts';
import {seal} from '../../src/lib/encrypt/seal.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {decodeMetadata, encodeMetadata, type FileFacts, type FileKeys} from '../../src/lib/files/metadata.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {readCatalog} from '../../src/lib/operations/catalog.ts';
import {list} from '../../src/lib/operations/list.ts';
import {checkOpenable, openBackup} from '../../src/lib/operations/open-backup.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {Secret} from '../../src/lib/secret.ts';
import {feed, noise} from '../lib/feed.ts';
import {createDatabase} from '../support/database.ts';
import {Random} from '../support/random.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  contentOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';
import {bySize, seed} from '../support/size.ts';
import {legacyBackup, legacyManifest, manifestOf, reseal} from '../support/tampering.ts';
import {damaged, damagedJson} from './mutations.ts';

const {postgres} = servers();
const key = newKey();
const keys = keyring(new Secret(key), []);
const legacySql = `SELECT 1;\n${'-- a line of the older procedure\n'.repeat(300)}`;

let store: TestStore;
/** What is in the bucket, by key, as it was stored. */
const originals = new Map<string, Buffer>();
/** The dump in each backup. */
const plaintexts = new Map<string, Buffer>();

beforeAll(async () => {
  store = await testStore('directory');
  const sql = `CREATE TABLE t (id int, body text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 60000) i`;
  const source = await createDatabase(postgres, {sql});
  const settings = backupSettings({database: source.url, store, key});
  const [one, other] = [await backup(settings, runtime()), await backup({...settings, compression: 'zstd'}, runtime())];
  await verify(
    verifySettings(
      {scratch: postgres.adminUrl, store, key},
      {optionalDatabase: connectionTo(source.url), choice: {by: 'key', key: one.key}},
    ),
    runtime(),
  );
  await source.drop();
  const startedAt = new Date('2024-01-01T00:00:00.000Z');
  const legacy = legacyBackup(legacySql, key, startedAt);
  await put(legacy.key, legacy.body);
  await put(manifestKey(legacy.key), legacyManifest(startedAt, 'old', legacy.body.length));
  for (const name of await store.keys()) originals.set(name, await contentOf(store.store, name));
  expect([...originals.keys()]).toEqual(expect.arrayContaining([one.key, other.key, verificationKey(one.key)]));
  for (const found of await readCatalog(store.store, keys)) {
    const {released, error} = await read(found);
    plaintexts.set(found.key, released);
    // The older procedure's dump has no closing line.
    if (found.state !== 'legacy') expect(error).toBeUndefined();
    else expect(error).toMatchObject({code: 'DUMP_UNREADABLE'});
  }
});
afterAll(() => store.dispose());

async function put(name: string, body: Buffer): Promise<void> {
  const file = path.join(store.folder, name);
  await mkdir(path.dirname(file), {recursive: true});
  await writeFile(file, body);
}

/** Everything that a restore does but for psql, and what got through. */
async function read(found: Backup): Promise<{released: Buffer; error: unknown}> {
  const chunks: Buffer[] = [];
  try {
    const openable = await checkOpenable(store.store, {backup: found}, keys);
    const dump = await openBackup(store.store, openable, keys, {});
    const tap = inspect();
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        chunks.push(chunk);
        done();
      },
    });
    await pipeline([...dump.stages, tap, sink]).catch((error) => {
      throw dump.translate(error) ?? error;
    });
    dump.check(tap.inspection);
    return {released: Buffer.concat(chunks), error: undefined};
  } catch (error) {
    return {released: Buffer.concat(chunks), error};
  }
}

function expectOurs(error: unknown): void {
  expect(error).toBeInstanceOf(BackupError);
  expect([4, 5]).toContain((error as BackupError).exitCode);
}

/** Lists the bucket, reads the backup that an object belongs to, and holds what came out to what was stored. */
async function expectNothingFalse(name: string): Promise<string> {
  const outcomes = new Set<string>();
  const affected = (await readCatalog(store.store, keys)).filter(({key: backupKey}) => name.startsWith(backupKey));
  for (const found of affected) {
    const {released, error} = await read(found);
    const stored = plaintexts.get(found.key) ?? Buffer.alloc(0);
    expect(stored.subarray(0, released.length).equals(released)).toBe(true);
    if (error === undefined) expect(released.equals(stored)).toBe(true);
    else expectOurs(error);
    outcomes.add(error === undefined ? 'whole' : (error as BackupError).code);
  }
  return [...outcomes].join();
}

describe('the objects of a bucket', () => {
  it('damaged in any way are read as they were stored, or refused', async () => {
    const random = new Random(seed);
    const names = [...originals.keys()];
    const all = [...originals.values()];
    const cases = bySize({short: 150, full: 12_000});
    const seen = new Map<string, number>();
    for (let count = 0; count < cases; count += 1) {
      const name = names[random.below(names.length)] ?? '';
      const original = originals.get(name) ?? Buffer.alloc(0);
      const isJson = name.endsWith('.json');
      const body = isJson && random.below(2) === 0 ? damagedJson(original, random) : damaged(original, random, all);
      await put(name, body);
      try {
        const outcome = await expectNothingFalse(name);
        seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
      } catch (error) {
        throw new Error(`case ${count} of seed ${seed}: ${name}`, {cause: error});
      }
      await put(name, original);
    }
    expect([...seen.keys()].join()).toMatch(/DECRYPTION_FAILED/);
    recordTrial({
      area: 'Hostile input: objects of a bucket',
      what: `${cases} damages to objects of a bucket`,
      outcome: 'as stored, or refused',
    });
  }, 1_800_000);

  it('exchanged with one another are refused', async () => {
    const names = [...originals.keys()];
    for (const name of names) {
      for (const other of names) {
        await put(name, originals.get(other) ?? Buffer.alloc(0));
        await expectNothingFalse(name);
      }
      await put(name, originals.get(name) ?? Buffer.alloc(0));
    }
  });
});

describe('a manifest', () => {
  const backupName = () =>
    [...originals.keys()].find((name) => name.endsWith('.sql.gz.encrypted') && !name.includes('2024-')) ?? '';

  it.each(['[', '{"a":', '{"seal":{"algorithm":"HMAC-SHA-256"},"a":['])(
    'of endless nesting (%s) is damaged',
    async (opening) => {
      const name = manifestKey(backupName());
      await put(name, Buffer.from(opening.repeat(200_000)));
      const found = (await list({store: store.settings, optionalKeys: keySettings(key)}, {})).find(
        (one) => one.key === backupName(),
      );
      expect(found?.state).toBe('damaged');
      const fingerprint = encryptionKey(new Secret(key)).fingerprint;
      const sealText = JSON.stringify({algorithm: 'HMAC-SHA-256', keyFingerprint: fingerprint, value: '0'.repeat(64)});
      await put(name, Buffer.from(`{"seal":${sealText},"deep":${'['.repeat(200_000)}${']'.repeat(200_000)}}`));
      expect(await expectNothingFalse(name)).toContain('MANIFEST_INVALID');
      await put(name, originals.get(name) ?? Buffer.alloc(0));
    },
  );
});

describe('a decompression bomb, sealed with the right key', () => {
  const bytes = bySize({short: 256 << 20, full: 4 * 2 ** 30});

  it.each(['gzip', 'zstd'] as const)(
    'of %s ends at the size that the manifest promises, in constant memory',
    async (compression) => {
      const suffix = compression === 'gzip' ? '.gz.encrypted' : '.zst.encrypted';
      const name = [...originals.keys()].find((one) => one.endsWith(suffix) && !one.includes('2024-')) ?? '';
      // As much as a frame of ours holds: longer ones are refused unread.
      const block = Buffer.alloc(1 << 20, '-- \n');
      const member = compression === 'gzip' ? gzipSync(block) : zstdCompressSync(block);
      function* members() {
        for (let total = 0; total < bytes; total += block.length) yield member;
      }
      const context = {objectKey: name, compression, content: 'postgresql-dump'};
      const sealed = await feed(members(), seal(encryptionKey(new Secret(key)), context));
      await put(name, sealed);
      await reseal(store.store, name, key, (manifest) => ({
        ...manifest,
        objects: manifest.objects.map((object) => ({...object, size: sealed.length})),
      }));
      const promised = (await manifestOf(store.store, name, key)).dumpBytes;
      const found = (await readCatalog(store.store, keys)).find((one) => one.key === name);
      if (!found) throw new Error(`There is no ${name}.`);
      const dump = await openBackup(store.store, await checkOpenable(store.store, {backup: found}, keys), keys, {});
      let released = 0;
      const before = process.memoryUsage().rss;
      const sink = new Writable({
        write(chunk: Buffer, _encoding, done) {
          released += chunk.length;
          done();
        },
      });
      const error = await pipeline([...dump.stages, inspect(), sink]).then(
        () => undefined,
        (reason: unknown) => dump.translate(reason) ?? reason,
      );
      expect(error).toMatchObject({code: 'CONTENTS_DIFFER', exitCode: 5});
      expect(released).toBeLessThanOrEqual(promised + (1 << 20));
      expect(process.memoryUsage().rss - before).toBeLessThan(300 << 20);
      for (const one of [name, manifestKey(name)]) await put(one, originals.get(one) ?? Buffer.alloc(0));
    },
  );
});

describe('the metadata of a file', () => {
  const fileKeys: FileKeys = {
    fingerprint: '0'.repeat(16),
    digests: createSecretKey(noise(32, 1)),
    names: createSecretKey(noise(32, 2)),
    seal: createSecretKey(noise(32, 3)),
    hidden: createSecretKey(noise(32, 4)),
  };
  const objectKey = 'migrated/uploads/a/b.pdf.encrypted';

  it.each([false, true])('damaged in any way are what was stored, or not believed (hidden: %s)', (isHidden) => {
    const facts: FileFacts = {
      name: 'uploads/a/b.pdf',
      contentType: 'application/pdf',
      sizeBytes: 12_345,
      mtime: '1700000000.123456789',
      digest: 'ab'.repeat(32),
      keyFingerprint: fileKeys.fingerprint,
      isHidden,
    };
    const metadata = encodeMetadata(objectKey, facts, fileKeys);
    const stored = decodeMetadata(objectKey, metadata, [fileKeys]);
    expect(stored.is).toBe('facts');
    const random = new Random(seed);
    const values = Object.values(metadata).map((value) => Buffer.from(value));
    for (let count = bySize({short: 2000, full: 10_000}); count > 0; count -= 1) {
      const altered: Record<string, string> = {...metadata};
      const names = Object.keys(altered);
      const name = names[random.below(names.length)] ?? '';
      if (random.below(10) === 0) delete altered[name];
      else altered[name] = damaged(Buffer.from(altered[name] ?? ''), random, values).toString('latin1');
      const reading = decodeMetadata(objectKey, altered, [fileKeys]);
      if (reading.is === 'facts') expect(reading).toEqual(stored);
      else expect(['none', 'invalid']).toContain(reading.is);
    }
    expect(decodeMetadata('migrated/uploads/other.encrypted', metadata, [fileKeys]).is).toBe('invalid');
  });
});
