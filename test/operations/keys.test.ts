/** Keys change, and every backup stays openable: rotation, interrupted at every write; legacy backups sealed anew. */
import {generateKeyPairSync} from 'node:crypto';
import {cp, mkdir, mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {Writable} from 'node:stream';
import {gunzipSync} from 'node:zlib';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {manifestKey, verificationKey} from '../../src/lib/catalog/key-names.ts';
import {sealVerification, type Verification} from '../../src/lib/catalog/verification.ts';
import type {StoreSettings} from '../../src/lib/config.ts';
import {encryptionKey} from '../../src/lib/encrypt/keys.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {verificationSealingKey} from '../../src/lib/operations/catalog.ts';
import {extract} from '../../src/lib/operations/extract.ts';
import {generateKey} from '../../src/lib/operations/keys-generate.ts';
import {type RotateSettings, requireRotated, rotateKeys} from '../../src/lib/operations/keys-rotate.ts';
import {showKeys} from '../../src/lib/operations/keys-show.ts';
import {list} from '../../src/lib/operations/list.ts';
import {prune} from '../../src/lib/operations/prune.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {status} from '../../src/lib/operations/status.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {Secret} from '../../src/lib/secret.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {debianPython, ensurePrograms} from '../support/packages.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type StoreKind,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {legacyBackup, legacyManifest} from '../support/tampering.ts';

const [oldKey, key, laterKey] = [newKey(), newKey(), newKey()];
const fingerprint = (hex: string) => encryptionKey(new Secret(hex)).fingerprint;
const day = 86_400_000;

let database: TestDatabase;
let original: TestStore;
/** Two backups under the old key, the older one with the result of a verification. */
let taken: string[];
let sql: Map<string, string>;

beforeAll(async () => {
  database = await createDatabase(servers().postgres, {
    sql: `CREATE TABLE patients (id integer PRIMARY KEY, note text);
      INSERT INTO patients SELECT n, md5(n::text) FROM generate_series(1, 1000) n;`,
  });
  original = await testStore('directory');
  taken = [];
  sql = new Map();
  for (const [ago, compression] of [[2 * day, 'gzip'] as const, [day, 'zstd'] as const]) {
    const now = () => new Date(Date.now() - ago);
    const settings = backupSettings({database: database.url, store: original, key: oldKey}, {compression});
    taken.push((await backup(settings, runtime({now}))).key);
  }
  const [first = ''] = taken;
  const verification: Verification = {
    version: '2.0',
    backup: first,
    verifiedAt: new Date(Date.now() - day).toISOString(),
    result: 'proved',
    toolVersion: '0.0.0-test',
    serverVersion: '15',
    steps: [],
  };
  const sealed = sealVerification(verification, verificationSealingKey(encryptionKey(new Secret(oldKey))));
  await original.store.create(verificationKey(first), Buffer.from(sealed));
  for (const each of taken) sql.set(each, await plain(original, each, [oldKey]));
});
afterAll(async () => {
  await database.drop();
  await original.dispose();
});

/** A store of its own with the same objects. */
async function copied(kind: StoreKind = 'directory'): Promise<TestStore> {
  const place = await testStore(kind);
  for (const name of await original.keys()) await place.store.create(name, await contentOf(original.store, name));
  return place;
}

const keysOf = ([current = '', ...previous]: readonly string[]) => keySettings(current, ...previous);

/** The plain dump of a backup, by these keys. */
async function plain(place: Pick<TestStore, 'settings'>, backupKey: string, keys: readonly string[]): Promise<string> {
  const chunks: Buffer[] = [];
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  const choice = {by: 'key', key: backupKey} as const;
  await extract({store: place.settings, keys: keysOf(keys), choice, output}, runtime());
  return String(Buffer.concat(chunks));
}

async function expectOpenable(place: TestStore, keys: readonly string[]): Promise<void> {
  for (const each of taken) expect((await plain(place, each, keys)) === sql.get(each)).toBe(true);
}

function rotation(
  place: Pick<TestStore, 'settings'>,
  keys: readonly string[],
  changes: Partial<RotateSettings> = {},
): RotateSettings {
  const store = withoutFiles(place.settings);
  return {store, keys: keysOf(keys), dryRun: false, resealLegacy: false, files: false, ...changes};
}

/** The files bucket is there, and holds no files. */
function withoutFiles(settings: StoreSettings): StoreSettings {
  return {...settings, filesBucket: settings.backupsBucket};
}

async function outcomes(settings: RotateSettings): Promise<string[]> {
  const {rotations} = await rotateKeys(settings, runtime());
  return rotations.map(({outcome}) => outcome);
}

describe('keys generate', () => {
  test('makes another key each time, with the fingerprint that backups will name', () => {
    const one = generateKey();
    expect(one.key).toMatch(/^[0-9a-f]{64}$/);
    expect(one.fingerprint).toBe(fingerprint(one.key));
    expect(generateKey().key).not.toBe(one.key);
  });
});

describe('keys rotate', () => {
  test.each<StoreKind>(['directory', 's3'])('lets the new key alone do everything (%s)', async (kind) => {
    const place = await copied(kind);
    const bodies = await Promise.all(taken.map((each) => contentOf(place.store, each)));
    const names = await place.keys();
    const result = await rotateKeys(rotation(place, [key, oldKey]), runtime());
    expect(result).toMatchObject({dryRun: false, keyFingerprint: fingerprint(key), keepPreviousBecause: []});
    expect(result.rotations.map(({outcome}) => outcome)).toEqual(['rotated', 'rotated']);

    await expectOpenable(place, [key]);
    const backups = await list({store: place.settings, optionalKeys: keysOf([key])}, runtime());
    expect(backups).toMatchObject([
      {state: 'complete', seal: 'verified', keyFingerprint: fingerprint(key)},
      {state: 'complete', seal: 'verified', verification: {isProved: true}},
    ]);
    const health = await status(
      {
        store: place.settings,
        optionalKeys: keysOf([key]),
        policy: {maxAgeMs: 3 * day, maxUnverifiedMs: 3 * day, retentionDays: 2},
        formatAge: String,
      },
      runtime(),
    );
    expect(health.findings.filter(({id}) => ['keys', 'proof', 'incomplete'].includes(id))).toMatchObject([
      {isGood: true},
      {isGood: true},
      {isGood: true},
    ]);
    const verified = await verify(
      {
        store: place.settings,
        keys: keysOf([key]),
        optionalDatabase: undefined,
        compression: 'gzip',
        choice: {by: 'key', key: taken[0] ?? ''},
        withBackup: false,
        scratch: {on: 'nothing'},
        formatAge: String,
      },
      runtime(),
    );
    expect(verified.steps.find(({id}) => id === 'integrity')).toMatchObject({status: 'passed'});
    // No object was uploaded again, and none was added.
    expect(await place.keys()).toEqual(names);
    for (const [index, each] of taken.entries()) {
      expect((await contentOf(place.store, each)).equals(bodies[index] ?? Buffer.alloc(0))).toBe(true);
    }
    const gone = await failureOf(plain(place, taken[0] ?? '', [oldKey]));
    expect(gone).toMatchObject({code: 'WRONG_KEY', exitCode: 5});
    expect(gone.reason).toContain(`is encrypted with key ${fingerprint(key)}, you have ${fingerprint(oldKey)}`);

    const retention = {keepDays: 0, keepLast: 1};
    await prune({store: place.settings, optionalKeys: keysOf([key]), retention, dryRun: false}, runtime());
    expect(await place.keys()).toEqual(names.filter((name) => name.startsWith(taken[1] ?? '')));
    await place.dispose();
  });

  test('changes nothing the second time, and nothing with --dry-run', async () => {
    const place = await copied();
    const contents = async () => Promise.all((await place.keys()).map((name) => contentOf(place.store, name)));
    const before = await contents();
    const dry = await rotateKeys(rotation(place, [key, oldKey], {dryRun: true}), runtime());
    expect(dry.rotations.map(({outcome}) => outcome)).toEqual(['rotated', 'rotated']);
    expect(dry.keepPreviousBecause).toEqual([expect.stringContaining('2 backups are not rotated yet')]);
    expect(await contents()).toEqual(before);
    await rotateKeys(rotation(place, [key, oldKey]), runtime());
    const after = await contents();
    expect(await outcomes(rotation(place, [key, oldKey]))).toEqual(['unchanged', 'unchanged']);
    expect(await contents()).toEqual(after);
    await place.dispose();
  });

  test('goes on to a third key, and back to the first', async () => {
    const place = await copied();
    await rotateKeys(rotation(place, [key, oldKey]), runtime());
    expect(await outcomes(rotation(place, [laterKey, key]))).toEqual(['rotated', 'rotated']);
    await expectOpenable(place, [laterKey]);
    expect(await outcomes(rotation(place, [oldKey, laterKey]))).toEqual(['rotated', 'rotated']);
    await expectOpenable(place, [oldKey]);
    // The header's own wrapped key serves again.
    expect(String(await contentOf(place.store, manifestKey(taken[0] ?? '')))).not.toContain('wrappedKeys');
    await place.dispose();
  });

  test('without the right old key fails for each backup, and changes nothing', async () => {
    const place = await copied();
    const result = await rotateKeys(rotation(place, [key, laterKey]), runtime());
    expect(result.rotations).toMatchObject([{outcome: 'failed'}, {outcome: 'failed'}]);
    expect(result.rotations[0]?.note).toContain(`encrypted with key ${fingerprint(oldKey)}`);
    expect(result.keepPreviousBecause).toEqual(['2 backups could not be rotated']);
    expect(() => requireRotated(result)).toThrow('2 backups could not be rotated');
    await expectOpenable(place, [oldKey]);
    await place.dispose();
  });

  test('rotates the good ones beside a damaged one, whose manifest stays as it is', async () => {
    const place = await copied();
    const [bad = '', good = ''] = taken;
    const body = await contentOf(place.store, bad);
    // In the wrapped data key: the early check of names does not see it.
    const at = body.indexOf(fingerprint(oldKey)) + 16 + 4 + 4 + 12 + 2 + 5;
    body[at] = (body[at] ?? 0) ^ 1;
    await place.store.replace(bad, body);
    const before = await contentOf(place.store, manifestKey(bad));
    const result = await rotateKeys(rotation(place, [key, oldKey]), runtime());
    expect(result.rotations).toMatchObject([
      {key: good, outcome: 'rotated'},
      {key: bad, outcome: 'failed', note: expect.stringContaining('wrapped data key was altered')},
    ]);
    expect(await contentOf(place.store, manifestKey(bad))).toEqual(before);
    expect((await plain(place, good, [key])) === sql.get(good)).toBe(true);
    await place.dispose();
  });

  test('an altered wrapped key in a manifest is refused, with or without the old key', async () => {
    const place = await copied();
    await rotateKeys(rotation(place, [key, oldKey]), runtime());
    const [first = ''] = taken;
    const text = String(await contentOf(place.store, manifestKey(first)));
    const altered = text.replace(
      /"wrappedKey": "(..)/,
      (_, byte: string) => `"wrappedKey": "${byte === '00' ? '01' : '00'}`,
    );
    expect(altered).not.toBe(text);
    await place.store.replace(manifestKey(first), Buffer.from(altered));
    for (const keys of [[key], [key, oldKey]]) {
      const failure = await failureOf(plain(place, first, keys));
      expect(failure).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
      expect(failure.reason).toContain('its seal does not fit');
    }
    expect(await outcomes(rotation(place, [key, oldKey]))).toEqual(['unchanged', 'left']);
    await place.dispose();
  });

  test('keys show counts what each key opens, half-way through a rotation, too', async () => {
    const place = await copied();
    await place.store.create(
      'database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted',
      legacyBackup('', oldKey, new Date()).body,
    );
    const half = await copied();
    await rotateKeys(rotation(half, [key, oldKey]), runtime());
    const [first = ''] = taken;
    await place.store.replace(manifestKey(first), await contentOf(half.store, manifestKey(first)));
    const shown = await showKeys({store: place.settings, optionalKeys: keysOf([key, laterKey])}, runtime());
    expect(shown).toEqual({
      keys: [
        {fingerprint: fingerprint(key), role: 'current', backups: 1},
        {fingerprint: fingerprint(laterKey), role: 'previous', backups: 0},
        {fingerprint: fingerprint(oldKey), role: 'unknown', backups: 1},
      ],
      recoveryFingerprint: undefined,
      backups: 3,
      legacy: 1,
      unreadable: 0,
    });
    await expectOpenable(place, [key, oldKey]);
    await Promise.all([place.dispose(), half.dispose()]);
  });

  test('warns to keep the old keys for files in the files bucket', async () => {
    const place = await copied();
    const files = await testStore('directory');
    await files.store.create('migrated/uploads/a.pdf.encrypted', Buffer.from('x'));
    const settings = {...place.settings, kind: 'directory', path: place.folder.replace(/\/backups$/, '')} as const;
    await mkdir(`${settings.path}/files`, {recursive: true});
    await cp(files.folder, `${settings.path}/files`, {recursive: true});
    const {keepPreviousBecause} = await rotateKeys(rotation({settings}, [key, oldKey], {store: settings}), runtime());
    expect(keepPreviousBecause).toEqual([expect.stringMatching(/^1 files in .* need them \(keys rotate --files/)]);
    await Promise.all([place.dispose(), files.dispose()]);
  });

  test.each<StoreKind>(['directory', 's3'])('keeps the old keys where there is no files bucket (%s)', async (kind) => {
    const place = await copied(kind);
    const store = {...place.settings, filesBucket: 'loma-misspelt'};
    const {files, keepPreviousBecause} = await rotateKeys(rotation(place, [key, oldKey], {store}), runtime());
    expect(files).toBeUndefined();
    expect(keepPreviousBecause).toEqual([
      expect.stringMatching(/^for files, .*loma-misspelt.* is not there: .* set CLOUDFLARE_R2_BUCKET_FILES/),
    ]);
    await place.dispose();
  });

  test.each<StoreKind>(['directory', 's3'])('keeps the old keys when it saw no backup (%s)', async (kind) => {
    const place = await testStore(kind);
    const {rotations, keepPreviousBecause} = await rotateKeys(rotation(place, [key, oldKey]), runtime());
    expect(rotations).toEqual([]);
    expect(keepPreviousBecause).toContainEqual(expect.stringMatching(/^no backup was looked at: .* holds none/));
    await place.dispose();
  });

  test('leaves out a backup that is pruned meanwhile, and one that is being pruned', async () => {
    const [first = '', second = ''] = taken;
    for (const deleted of [[manifestKey(second), second], [manifestKey(second)]]) {
      const place = await copied('s3');
      let isDone = false;
      const proxy = await startProxy(servers().objects, ({method, url, headers}) => {
        if (method !== 'GET' || !url.includes(`${second}?`) || !headers.range || isDone) return undefined;
        isDone = true;
        return {
          before: async () => {
            for (const name of deleted) await place.store.delete(name);
          },
        };
      });
      const settings = s3Settings(proxy, place.settings.backupsBucket);
      const result = await rotateKeys(rotation({settings}, [key, oldKey]), runtime());
      expect(proxy.faulted).toHaveLength(1);
      await proxy.stop();
      requireRotated(result);
      const left = {key: second, outcome: 'left', note: expect.stringContaining('manifest was deleted')};
      const rotated = {key: first, outcome: 'rotated', note: undefined};
      expect(result.rotations).toEqual(deleted.length === 2 ? [rotated] : [left, rotated]);
      expect(await place.keys()).not.toContain(manifestKey(second));
      await place.dispose();
    }
  });

  test('calls no key a previous one that is the current one, and none twice', async () => {
    const place = await copied();
    const keys = [key, oldKey, key.toUpperCase(), oldKey, key];
    const {previousFingerprints, keyFingerprint} = await rotateKeys(rotation(place, keys), runtime());
    expect({previousFingerprints, keyFingerprint}).toEqual({
      previousFingerprints: [fingerprint(oldKey)],
      keyFingerprint: fingerprint(key),
    });
    await expectOpenable(place, [key]);
    await place.dispose();
  });
});

describe('keys rotate, ended at a write', () => {
  // Two manifests and one verification: three writes.
  const moments = [1, 2, 3].flatMap((nth) => [[nth, 'is done'] as const, [nth, 'is not done'] as const]);
  test.each(moments)('number %i, which %s, leaves every backup openable, and goes on', async (nth, fate) => {
    const place = await copied('s3');
    const abort = new AbortController();
    let writes = 0;
    const proxy = await startProxy(servers().objects, ({method}) => {
      if (method !== 'PUT') return undefined;
      writes += 1;
      if (writes < nth) return undefined;
      if (writes > nth || fate === 'is not done') {
        abort.abort();
        return {answer: {status: 403, code: 'AccessDenied'}};
      }
      return {before: async () => abort.abort()};
    });
    const settings = s3Settings(proxy, place.settings.backupsBucket);
    // The last write of all may be done before anything looks at the signal.
    await rotateKeys(rotation({settings}, [key, oldKey]), runtime({signal: abort.signal})).catch((error: unknown) => {
      expect(error).toMatchObject({code: 'INTERRUPTED'});
    });
    expect(proxy.faulted.length).toBeGreaterThan(0);
    await proxy.stop();

    await expectOpenable(place, [key, oldKey]);
    const halfway = await list({store: place.settings, optionalKeys: keysOf([key, oldKey])}, runtime());
    expect(halfway).toMatchObject([{state: 'complete'}, {state: 'complete', verification: {isProved: true}}]);
    const {keepPreviousBecause} = await rotateKeys(rotation(place, [key, oldKey]), runtime());
    expect(keepPreviousBecause).toEqual([]);
    await expectOpenable(place, [key]);
    const listed = await list({store: place.settings, optionalKeys: keysOf([key])}, runtime());
    expect(listed).toMatchObject([{seal: 'verified'}, {seal: 'verified', verification: {isProved: true}}]);
    await place.dispose();
  });
});

describe('the recovery key', () => {
  const passphrase = 'correct horse battery staple';
  const pair = generateKeyPairSync('rsa', {
    modulusLength: 3072,
    publicKeyEncoding: {type: 'spki', format: 'pem'},
    privateKeyEncoding: {type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase},
  });
  const recovery = {pem: new Secret(pair.privateKey), passphrase: new Secret(passphrase)};
  const withRecovery = (...keys: string[]) => ({...keysOf(keys), recoveryPublicKey: pair.publicKey});

  async function recovered(place: TestStore, backupKey: string, given = recovery): Promise<string> {
    const output = path.join(await mkdtemp(path.join(os.tmpdir(), 'loma-recovered-')), 'dump.sql');
    const choice = {by: 'key', key: backupKey} as const;
    try {
      await extract({store: place.settings, keys: undefined, recovery: given, choice, output}, runtime());
      return await readFile(output, 'utf8');
    } finally {
      await rm(path.dirname(output), {recursive: true, force: true});
    }
  }

  let place: TestStore;
  let own: string;
  beforeAll(async () => {
    place = await copied();
    const settings = backupSettings({database: database.url, store: place, key: oldKey}, {keys: withRecovery(oldKey)});
    own = (await backup(settings, runtime())).key;
  });
  afterAll(() => place.dispose());

  test('opens a backup without the PHI key, and the PHI key opens it as before', async () => {
    const dump = await plain(place, own, [oldKey]);
    expect((await recovered(place, own)) === dump).toBe(true);
    const target = await createDatabase(servers().postgres);
    const settings = restoreSettings({target: target.url, store: place, key}, {keys: undefined, recovery});
    const result = await restore(settings, () => Promise.reject(new Error('nobody was to be asked')), runtime());
    expect(result).toMatchObject({key: own, rows: 1000});
    // Over a database that is not empty: there is no key to back it up with first.
    const safetyBackup = {compression: 'gzip', retention: {keepDays: 1, keepLast: 1}} as const;
    const refused = await failureOf(restore({...settings, safetyBackup}, async () => true, runtime()));
    expect(refused).toMatchObject({code: 'REFUSED', exitCode: 7});
    await target.drop();
  });

  test('is named when another is needed, and when its passphrase is wrong', async () => {
    const other = generateKeyPairSync('rsa', {modulusLength: 3072}).privateKey.export({type: 'pkcs8', format: 'pem'});
    const failure = await failureOf(
      recovered(place, own, {pem: new Secret(String(other)), passphrase: new Secret('')}),
    );
    expect(failure).toMatchObject({code: 'WRONG_KEY', exitCode: 5});
    expect(failure.reason).toMatch(/or recovery key [0-9a-f]{16}, you have recovery key [0-9a-f]{16}/);
    expect(await failureOf(recovered(place, taken[0] ?? ''))).toMatchObject({code: 'WRONG_KEY'});
    const wrong = await failureOf(recovered(place, own, {...recovery, passphrase: new Secret('another')}));
    expect(wrong).toMatchObject({code: 'CONFIGURATION_INVALID', exitCode: 2});
    expect(wrong.reason).toContain('passphrase');
  });

  test('finds a manifest altered by its other seal', async () => {
    const text = String(await contentOf(place.store, manifestKey(own)));
    for (const [from, to] of [
      ['"manual"', '"altered"'],
      ['"dataKeySeal"', '"lostSeal"'],
    ] as const) {
      await place.store.replace(manifestKey(own), Buffer.from(text.replace(from, to)));
      const failure = await failureOf(recovered(place, own));
      expect(failure).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
    }
    await place.store.replace(manifestKey(own), Buffer.from(text));
  });

  test('is given to earlier backups by keys rotate, and stays when PHI keys change', async () => {
    const settings = {...rotation(place, []), keys: withRecovery(key, oldKey)};
    expect(await outcomes(settings)).toEqual(['rotated', 'rotated', 'rotated']);
    expect(await outcomes(settings)).toEqual(['unchanged', 'unchanged', 'unchanged']);
    await expectOpenable(place, [key]);
    for (const each of taken) expect((await recovered(place, each)) === sql.get(each)).toBe(true);
    expect(await recovered(place, own)).toBe(await plain(place, own, [key]));
    const shown = await showKeys({store: place.settings, optionalKeys: withRecovery(key)}, runtime());
    expect(shown.recoveryFingerprint).toMatch(/^[0-9a-f]{16}$/);
  });

  test('stays when a later rotation does not know it, and another one takes its place', async () => {
    const own = await copied();
    await rotateKeys({...rotation(own, []), keys: withRecovery(key, oldKey)}, runtime());
    expect(await outcomes(rotation(own, [laterKey, key]))).toEqual(['rotated', 'rotated']);
    await expectOpenable(own, [laterKey]);
    for (const each of taken) expect((await recovered(own, each)) === sql.get(each)).toBe(true);
    const {publicKey, privateKey} = generateKeyPairSync('rsa', {
      modulusLength: 3072,
      publicKeyEncoding: {type: 'spki', format: 'pem'},
      privateKeyEncoding: {type: 'pkcs8', format: 'pem'},
    });
    const keys = {...keysOf([laterKey]), recoveryPublicKey: publicKey};
    expect(await outcomes({...rotation(own, []), keys})).toEqual(['rotated', 'rotated']);
    const other = {pem: new Secret(privateKey), passphrase: new Secret('')};
    for (const each of taken) {
      expect((await recovered(own, each, other)) === sql.get(each)).toBe(true);
      expect(await failureOf(recovered(own, each))).toMatchObject({code: 'WRONG_KEY'});
    }
    await own.dispose();
  });

  test('and a rotated backup open with the reader in Python', async () => {
    await ensurePrograms(['python3-cryptography']);
    const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-reader-'));
    const [first = ''] = taken;
    const file = (name: string) => path.join(folder, name);
    await writeFile(file('object'), await contentOf(place.store, first));
    await writeFile(file('manifest'), await contentOf(place.store, manifestKey(first)));
    await writeFile(file('recovery.pem'), pair.privateKey);
    const args = ['-I', 'examples/open_backup.py', '--manifest', file('manifest'), first, file('object')];
    const asBytes = {encoding: 'buffer', stripFinalNewline: false} as const;
    const byKey = await execa(debianPython, args, {...asBytes, env: {PHI_ENCRYPTION_KEY: key}});
    const byRecovery = await execa(debianPython, [...args, '--recovery-key', file('recovery.pem')], {
      ...asBytes,
      env: {LOMA_BACKUP_RECOVERY_PASSPHRASE: passphrase},
    });
    for (const {stdout} of [byKey, byRecovery]) expect(String(gunzipSync(stdout)) === sql.get(first)).toBe(true);
    await rm(folder, {recursive: true});
  });
});

describe('keys rotate --reseal-legacy', () => {
  const startedAt = new Date('2025-11-04T15:30:00.000Z');
  const newName = legacyBackup('', oldKey, startedAt).key.replace('.sql.gz.', '.sql.zst.');
  let dump: string;
  let legacy: {key: string; body: Buffer};
  beforeAll(() => {
    dump = sql.get(taken[0] ?? '') ?? '';
    legacy = legacyBackup(dump, oldKey, startedAt);
  });

  async function withLegacy(kind: StoreKind): Promise<TestStore> {
    const place = await testStore(kind);
    await place.store.create(legacy.key, legacy.body);
    await place.store.create(manifestKey(legacy.key), legacyManifest(startedAt, 'clinic', legacy.body.length));
    return place;
  }

  test('is not done unless it is asked for', async () => {
    const place = await withLegacy('directory');
    const names = await place.keys();
    for (const changes of [{}, {resealLegacy: true, dryRun: true}]) {
      const {keepPreviousBecause} = await rotateKeys(rotation(place, [key, oldKey], changes), runtime());
      expect(keepPreviousBecause).toHaveLength(1);
      expect(await place.keys()).toEqual(names);
    }
    await place.dispose();
  });

  test('seals the same dump under the new key, under a name of the same time', async () => {
    const place = await withLegacy('directory');
    const result = await rotateKeys(rotation(place, [key, oldKey], {resealLegacy: true}), runtime());
    expect(result.rotations).toEqual([{key: legacy.key, outcome: 'resealed', note: newName}]);
    expect(result.keepPreviousBecause).toEqual([]);
    expect(await place.keys()).toEqual([newName, manifestKey(newName)]);
    expect((await plain(place, newName, [key])) === dump).toBe(true);
    const [listed] = await list({store: place.settings, optionalKeys: keysOf([key])}, runtime());
    expect(listed).toMatchObject({startedAt, state: 'complete', database: 'clinic', label: 'legacy', rows: 1000});
    await place.dispose();
  });

  test('with another key, or of an object that was altered, changes nothing', async () => {
    const place = await withLegacy('directory');
    const names = await place.keys();
    const wrong = await rotateKeys(rotation(place, [key, laterKey], {resealLegacy: true}), runtime());
    expect(wrong.rotations).toMatchObject([{outcome: 'failed', note: expect.stringContaining('Decryption failed')}]);
    const body = Buffer.from(legacy.body);
    body[500] = (body[500] ?? 0) ^ 1;
    await place.store.replace(legacy.key, body);
    expect(await outcomes(rotation(place, [key, oldKey], {resealLegacy: true}))).toEqual(['failed']);
    expect(await place.keys()).toEqual(names);
    await place.dispose();
  });

  test.each([1, 2, 3, 4])('ended at change number %i leaves the backup openable, and goes on', async (nth) => {
    const place = await withLegacy('s3');
    const abort = new AbortController();
    let changes = 0;
    const proxy = await startProxy(servers().objects, ({method, url}) => {
      const isChange = ['PUT', 'DELETE'].includes(method) || (method === 'POST' && url.includes('upload'));
      if (!isChange) return undefined;
      changes += 1;
      return changes === nth ? {before: async () => abort.abort()} : undefined;
    });
    const settings = s3Settings(proxy, place.settings.backupsBucket);
    const all = rotation({settings}, [key, oldKey], {resealLegacy: true});
    await rotateKeys(all, runtime({signal: abort.signal})).catch(() => undefined);
    expect(proxy.faulted).toHaveLength(1);
    await proxy.stop();
    const names = await place.keys();
    const openable = names.includes(manifestKey(newName)) ? newName : legacy.key;
    expect((await plain(place, openable, [key, oldKey])) === dump).toBe(true);
    await rotateKeys(rotation(place, [key, oldKey], {resealLegacy: true}), runtime());
    expect(await place.keys()).toEqual([newName, manifestKey(newName)]);
    expect((await plain(place, newName, [key])) === dump).toBe(true);
    await place.dispose();
  });

  /** What a run leaves that was killed when the copy was stored, and its manifest was not. */
  async function withUnpublished(): Promise<{place: TestStore; manifest: Buffer}> {
    const [done, place] = [await withLegacy('directory'), await withLegacy('s3')];
    await rotateKeys(rotation(done, [key, oldKey], {resealLegacy: true}), runtime());
    await place.store.create(newName, await contentOf(done.store, newName));
    const manifest = await contentOf(done.store, manifestKey(newName));
    await done.dispose();
    return {place, manifest};
  }

  test('after a run that was killed, the timestamp names the one that can be restored', async () => {
    const {place} = await withUnpublished();
    const timestamp = legacy.key.split('/')[1] ?? '';
    expect((await plain(place, timestamp, [oldKey])) === dump).toBe(true);
    expect(await failureOf(plain(place, newName, [key]))).toMatchObject({code: 'BACKUP_INCOMPLETE'});
    await place.store.delete(legacy.key);
    expect(await failureOf(plain(place, timestamp, [key]))).toMatchObject({code: 'BACKUP_INCOMPLETE'});
    await place.dispose();
  });

  test('a prune at the same time leaves the copy alone that has no manifest yet', async () => {
    const place = await withLegacy('s3');
    const retention = {keepDays: 30, keepLast: 1};
    let pruned: unknown;
    const proxy = await startProxy(servers().objects, ({method, url}) =>
      method === 'PUT' && url.endsWith('.zst.encrypted.metadata.json')
        ? {
            before: async () => {
              const settings = {store: place.settings, optionalKeys: keysOf([key]), retention, dryRun: false};
              pruned = (await prune(settings, runtime())).deleted;
            },
          }
        : undefined,
    );
    const {backupsBucket} = place.settings;
    const settings = rotation({settings: s3Settings(proxy, backupsBucket)}, [key, oldKey], {resealLegacy: true});
    const {rotations} = await rotateKeys(settings, runtime());
    await proxy.stop();
    expect(pruned).toEqual([]);
    expect(rotations).toMatchObject([{outcome: 'resealed'}]);
    expect((await plain(place, newName, [key])) === dump).toBe(true);
    await place.dispose();
  });

  test('a copy that another run publishes after the listing is not made again', async () => {
    const {place, manifest} = await withUnpublished();
    let isPublished = false;
    const proxy = await startProxy(servers().objects, ({method, url}) => {
      if (method !== 'GET' || !url.includes(newName) || isPublished) return undefined;
      isPublished = true;
      return {before: () => place.store.create(manifestKey(newName), manifest)};
    });
    const {backupsBucket} = place.settings;
    const settings = rotation({settings: s3Settings(proxy, backupsBucket)}, [key, oldKey], {resealLegacy: true});
    expect(await outcomes(settings)).toEqual(['resealed']);
    await proxy.stop();
    const changes = proxy.requests.filter(({method}) => !['GET', 'HEAD'].includes(method));
    expect(changes.map(({method, url}) => [method, url.includes('.sql.gz.')])).toEqual([
      ['DELETE', true],
      ['DELETE', true],
    ]);
    expect((await plain(place, newName, [key])) === dump).toBe(true);
    await place.dispose();
  });

  test.each(['manifest', 'object'])('keeps the old object when the %s of the copy is gone by then', async (part) => {
    const place = await withLegacy('s3');
    let downloaded = false;
    let gone = false;
    const proxy = await startProxy(servers().objects, ({method, url, headers}) => {
      if (method === 'GET' && url.includes('.zst.encrypted?') && headers.range === undefined) downloaded = true;
      if (!downloaded || method !== 'HEAD' || gone) return undefined;
      gone = true;
      return {before: () => place.store.delete(part === 'manifest' ? manifestKey(newName) : newName)};
    });
    const {backupsBucket} = place.settings;
    const settings = rotation({settings: s3Settings(proxy, backupsBucket)}, [key, oldKey], {resealLegacy: true});
    const {rotations} = await rotateKeys(settings, runtime());
    expect(proxy.faulted).toHaveLength(1);
    await proxy.stop();
    expect(rotations).toMatchObject([{outcome: 'failed', note: expect.stringContaining('the older one was kept')}]);
    expect((await plain(place, legacy.key, [oldKey])) === dump).toBe(true);
    await place.dispose();
  });
});
