/** A restore that fails, or is refused or interrupted, leaves the target as it was. */
import {randomBytes} from 'node:crypto';
import {cp, mkdtemp, readdir, readFile, rm, stat, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {PassThrough, Writable} from 'node:stream';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {BackupError} from '../../src/lib/errors.ts';
import type {Observer, ProgressEvent} from '../../src/lib/observer.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {extract} from '../../src/lib/operations/extract.ts';
import {type RestoreSettings, restore} from '../../src/lib/operations/restore.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import {clinicSql} from '../support/clinic.ts';
import type {TestDatabase} from '../support/database.ts';
import {contentsOf, rowDigests, runningClients} from '../support/dumps.ts';
import {type ProxiedMessage, startPostgresProxy} from '../support/postgres-proxy.ts';
import {createDatabase, runSql, startPostgres} from '../support/postgres-server.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {endOfFirstFrame, legacyBackup, legacyManifest, manifestOf, reseal} from '../support/tampering.ts';
import {waitUntil} from '../support/wait-until.ts';

const {postgres, objects} = servers();
const key = newKey();
const yes = async () => true;

let clinic: TestDatabase;
/** Holds one good backup of the clinic; each test breaks its copy. */
let original: TestStore;
let backupKey: string;
/** Holds what the clinic holds, a little changed, and more. */
let target: TestDatabase;
let before: Awaited<ReturnType<typeof stateOfTarget>>;
let place: TestStore;

async function stateOfTarget() {
  return {contents: await contentsOf(target.url), rows: await rowDigests(target)};
}

beforeAll(async () => {
  // More than one frame of 1 MiB when compressed.
  clinic = await createDatabase(postgres, {sql: clinicSql({patients: 1200})});
  original = await testStore('directory');
  backupKey = (await backup(backupSettings({database: clinic.url, store: original, key}), runtime())).key;
  target = await createDatabase(postgres, {
    sql: `${clinicSql({patients: 20})}
      UPDATE providers SET full_name = 'Kept'; CREATE TABLE keepsake AS SELECT generate_series(1, 10) AS n;
      SELECT lo_from_bytea(920001, 'kept'::bytea);`,
  });
  before = await stateOfTarget();
});
afterAll(async () => {
  await Promise.all([clinic.drop(), target.drop()]);
  await original.dispose();
});
beforeEach(async () => {
  place = await testStore('directory');
  await cp(original.folder, place.folder, {recursive: true});
});
afterEach(async () => {
  expect(await runningClients()).toEqual([]);
  await place.dispose();
});

function restoring(changes: Partial<RestoreSettings> = {}, run: Partial<Runtime> = {}, confirm = yes) {
  const settings = restoreSettings(
    {target: target.url, store: place, key},
    {choice: {by: 'key', key: backupKey}, ...changes},
  );
  return restore(settings, confirm, runtime(run));
}

async function failing(...args: Parameters<typeof restoring>): Promise<BackupError> {
  const failure = await failureOf(restoring(...args));
  expect(await stateOfTarget()).toEqual(before);
  return failure;
}

const body = () => contentOf(place.store, backupKey);
const manifestName = () => `${backupKey}.metadata.json`;
const manifestText = async () => String(await contentOf(place.store, manifestName()));

/** Stores another body, and (as somebody with the key could) makes its size and digest fit the manifest. */
async function putBody(bytes: Buffer, {fitting = false} = {}): Promise<void> {
  await place.store.replace(backupKey, bytes);
  if (!fitting) return;
  await reseal(place.store, backupKey, key, (manifest) => ({
    ...manifest,
    size: bytes.length,
    objects: manifest.objects.map((object) => ({...object, size: bytes.length})),
  }));
}

describe('an object', () => {
  const changes: [string, (bytes: Buffer) => Buffer, RegExp][] = [
    ['cut by one byte', (bytes) => bytes.subarray(0, -1), /cut off/],
    ['cut at a frame boundary', (bytes) => bytes.subarray(0, endOfFirstFrame(bytes)), /cut off after 1 whole frame/],
    ['cut in its header', (bytes) => bytes.subarray(0, 100), /cut off|sealed object/],
    ['with a byte appended', (bytes) => Buffer.concat([bytes, Buffer.from([0])]), /appended/],
    ['appended to itself', (bytes) => Buffer.concat([bytes, bytes]), /appended/],
  ];
  test.each(changes)('%s is found to be damaged before anything is touched', async (_, change) => {
    await putBody(change(await body()));
    const failure = await failing();
    expect(failure).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
    expect(failure.reason).toMatch(/the object has \d+ bytes, and its manifest says \d+/);
  });
  test.each(changes)('%s is not restored, even if the manifest says that it is right so', async (_, change, reason) => {
    await putBody(change(await body()), {fitting: true});
    const failure = await failing();
    expect(failure).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5, message: 'Decryption failed'});
    expect(failure.reason).toMatch(reason);
    expect(failure.hint).toContain('earlier backup');
  });

  test.each([
    ['in its middle', (length: number) => Math.floor(length / 2)],
    ['in its last byte', (length: number) => length - 1],
    ['in the first frame', () => 5000],
    ['in its header', () => 200],
  ])('with a flipped bit %s', async (_, position) => {
    const bytes = await body();
    const at = position(bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await putBody(bytes);
    expect(await failing()).toMatchObject({exitCode: 5, code: expect.stringMatching(/DECRYPTION_FAILED|WRONG_KEY/)});
  });

  test('with its frames swapped', async () => {
    const bytes = await body();
    const end = endOfFirstFrame(bytes);
    const frame = 4 + 12 + (1 << 20) + 16;
    const [head, first, rest] = [bytes.subarray(0, end - frame), bytes.subarray(end - frame, end), bytes.subarray(end)];
    await putBody(Buffer.concat([head, first, first, rest]), {fitting: true});
    expect(await failing()).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
  });

  test('that is another backup’s, with its manifest, under this name', async () => {
    const later = new Date(Date.now() + 1000);
    const other = await backup(backupSettings({database: target.url, store: place, key}), runtime({now: () => later}));
    await place.store.replace(backupKey, await contentOf(place.store, other.key));
    await place.store.replace(manifestName(), await contentOf(place.store, `${other.key}.metadata.json`));
    const renamed = await failing();
    expect(renamed).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
    expect(renamed.reason).toContain(`it belongs to another backup (${other.key})`);
    // Also when the manifest was made to fit.
    const manifest = await manifestOf(place.store, other.key, key);
    await place.store.replace(manifestName(), await contentOf(original.store, manifestName()));
    await reseal(place.store, backupKey, key, () => ({
      ...manifest,
      objects: manifest.objects.map((object) => ({...object, key: backupKey})),
    }));
    const sealed = await failing();
    expect(sealed).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
    expect(sealed.reason).toContain('renamed or put in place of this one');
    // A restore of the real one still works.
    await expect(restoring({choice: {by: 'key', key: other.key}}, {signal: AbortSignal.abort()})).rejects.toThrow();
  });

  test('that is no backup at all', async () => {
    await putBody(randomBytes(10_000), {fitting: true});
    expect(await failing()).toMatchObject({exitCode: 5, code: 'DECRYPTION_FAILED'});
  });

  test('that vanished', async () => {
    await place.store.delete(backupKey);
    expect(await failing()).toMatchObject({code: 'BACKUP_INCOMPLETE', exitCode: 5});
  });
});

describe('a manifest', () => {
  test.each([
    ['that is not JSON', () => '{"version": "2.0"', /not JSON/],
    ['that is empty', () => '', /not JSON/],
    ['with another label', (text: string) => text.replace('"manual"', '"altered"'), /altered: its seal does not fit/],
    ['without its seal', (text: string) => JSON.stringify({...JSON.parse(text), seal: undefined}), /not sealed/],
    [
      'with a number changed',
      (text: string) => text.replace(/"rows": \d+/, '"rows": 1'),
      /altered: its seal does not fit/,
    ],
  ])('%s', async (_, change, reason) => {
    await place.store.replace(manifestName(), Buffer.from(change(await manifestText())));
    const failure = await failing();
    expect(failure).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
    expect(failure.reason).toMatch(reason);
  });

  test('that is missing', async () => {
    await place.store.delete(manifestName());
    const failure = await failing();
    expect(failure).toMatchObject({code: 'BACKUP_INCOMPLETE', exitCode: 5});
    expect(failure.reason).toContain('no manifest');
  });

  test('of an older version in place of the real one does not make a sealed object a legacy one', async () => {
    await place.store.replace(manifestName(), legacyManifest(new Date(), 'x', 1));
    expect(await failing()).toMatchObject({code: 'MANIFEST_INVALID', exitCode: 5});
  });

  test.each([
    ['rows of a table', {rows: 1}, /has \d+ rows, not 1/],
    ['the digest of a table', {sha256: '0'.repeat(64)}, /has other contents/],
    ['the name of a table', {table: 'public.unheard_of'}, /is missing|is not in the manifest/],
  ])(
    'with a good seal that is wrong about %s: nothing is committed, large objects included',
    async (_, wrong, reason) => {
      await reseal(place.store, backupKey, key, (manifest) => {
        const [first, ...rest] = manifest.contents.tables;
        if (!first) throw new Error('no table');
        return {...manifest, contents: {...manifest.contents, tables: [{...first, ...wrong}, ...rest]}};
      });
      const failure = await failing();
      expect(failure).toMatchObject({code: 'CONTENTS_DIFFER', exitCode: 5});
      expect(failure.reason).toMatch(reason);
    },
  );

  test('with a good seal that is wrong about the object’s digest', async () => {
    await reseal(place.store, backupKey, key, (manifest) => ({
      ...manifest,
      objects: manifest.objects.map((object) => ({...object, sha256: '0'.repeat(64)})),
    }));
    expect(await failing()).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
  });
});

describe('a key', () => {
  test('that is another is named, with the one that is needed', async () => {
    const failure = await failing({keys: keySettings(newKey(), newKey())});
    expect(failure).toMatchObject({code: 'WRONG_KEY', exitCode: 5, message: 'Decryption failed'});
    const {keyFingerprint} = await manifestOf(place.store, backupKey, key);
    expect(failure.reason).toContain(`encrypted with key ${keyFingerprint}, you have `);
    expect(failure.hint).toContain('PHI_ENCRYPTION_KEYS_PREVIOUS');
  });

  test('that is one of the previous ones opens', async () => {
    const empty = await createDatabase(postgres);
    const keys = keySettings(newKey(), newKey(), key);
    await restoring({keys, target: connectionTo(empty.url)});
    expect(await rowDigests(empty)).toEqual(await rowDigests(clinic));
    await empty.drop();
  });
});

describe('a legacy backup', () => {
  const startedAt = new Date('2025-11-04T15:30:00.000Z');
  let sql: string;
  beforeAll(async () => {
    const dump = await execa(
      `${postgres.binDirectory}/pg_dump`,
      ['--clean', '--if-exists', '--no-owner', '--no-privileges', '-h', '127.0.0.1', '-p', String(postgres.port)],
      {env: {PGUSER: postgres.user, PGPASSWORD: postgres.password, PGDATABASE: clinic.name}, stripFinalNewline: false},
    );
    sql = dump.stdout;
  });

  const store = async (text: string, {withManifest = false, cut = (bytes: Buffer) => bytes} = {}) => {
    const legacy = legacyBackup(text, key, startedAt);
    await place.store.create(legacy.key, cut(legacy.body));
    if (withManifest) {
      await place.store.create(`${legacy.key}.metadata.json`, legacyManifest(startedAt, 'clinic', legacy.body.length));
    }
    return legacy.key;
  };

  test.each([true, false])('is restored (with a manifest: %s)', async (withManifest) => {
    const legacyKey = await store(sql, {withManifest});
    const empty = await createDatabase(postgres);
    const done = await restoring({
      choice: {by: 'key', key: legacyKey},
      target: connectionTo(empty.url),
      keys: keySettings(newKey(), key),
    });
    expect(done).toMatchObject({key: legacyKey, recoveryPoint: startedAt});
    expect(await rowDigests(empty)).toEqual(await rowDigests(clinic));
    await empty.drop();
  });

  test.each([
    ['cut by one byte', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['with a byte appended', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from([0])])],
    [
      'with a flipped bit',
      (bytes: Buffer) => {
        bytes[1000] = (bytes[1000] ?? 0) ^ 1;
        return bytes;
      },
    ],
  ])('%s is refused before anything is touched', async (_, cut) => {
    const legacyKey = await store(sql, {cut});
    const failure = await failing({choice: {by: 'key', key: legacyKey}});
    expect(failure).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
  });

  test.each([
    ['shorter than any', (bytes: Buffer) => bytes.subarray(0, 20)],
    ['of nothing', () => Buffer.alloc(0)],
  ])('%s is no backup', async (_, cut) => {
    const legacyKey = await store(sql, {cut});
    const failure = await failing({choice: {by: 'key', key: legacyKey}});
    expect(failure).toMatchObject({code: 'BACKUP_INCOMPLETE', exitCode: 5});
  });

  test('under another key is refused', async () => {
    const legacyKey = await store(sql);
    const failure = await failing({choice: {by: 'key', key: legacyKey}, keys: keySettings(newKey())});
    expect(failure).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
  });

  test('whose dump was cut off is refused', async () => {
    const legacyKey = await store(sql.slice(0, sql.length - 200));
    const failure = await failing({choice: {by: 'key', key: legacyKey}});
    expect(failure).toMatchObject({code: 'DUMP_UNREADABLE', exitCode: 5});
  });

  test('with a psql command in it is refused, and the command not run', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-'));
    const file = path.join(folder, 'ran');
    const end = sql.lastIndexOf('-- PostgreSQL database dump complete');
    const legacyKey = await store(`${sql.slice(0, end)}\\! touch ${file}\n${sql.slice(end)}`);
    expect(await failing({choice: {by: 'key', key: legacyKey}})).toMatchObject({code: 'DUMP_UNREADABLE', exitCode: 5});
    expect(await readdir(folder)).toEqual([]);
    await rm(folder, {recursive: true});
  });

  test('whose SQL fails at its end leaves the target as it was', async () => {
    const end = sql.lastIndexOf('-- PostgreSQL database dump complete');
    const legacyKey = await store(`${sql.slice(0, end)}SELECT 1/0;\n${sql.slice(end)}`);
    const failure = await failing({choice: {by: 'key', key: legacyKey}});
    expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3, message: 'Database restore failed'});
    expect(failure.reason).toContain('division by zero');
  });
});

describe('a target', () => {
  test('that cannot be reached', async () => {
    const nowhere = connectionTo('postgresql://u:pw@127.0.0.1:9/db');
    expect(await failing({target: nowhere})).toMatchObject({code: 'POSTGRES_UNREACHABLE', exitCode: 3});
  });

  test('that is not empty, and that nobody confirmed', async () => {
    const asked: object[] = [];
    const failure = await failing({}, {}, async (...args: unknown[]) => {
      asked.push(args[0] as object);
      return false;
    });
    expect(failure).toMatchObject({code: 'REFUSED', exitCode: 7});
    expect(asked).toEqual([
      expect.objectContaining({
        database: target.name,
        address: `127.0.0.1:${postgres.port}/${target.name}`,
        tables: before.contents.tables.length,
      }),
    ]);
  });

  test.each([
    ['a view', 'CREATE VIEW v AS SELECT 1 AS n'],
    ['a function', "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
    ['a large object', "SELECT lo_from_bytea(0, 'x'::bytea)"],
    ['a schema', 'CREATE SCHEMA s'],
    ['an empty table', 'CREATE TABLE t ()'],
  ])('that holds %s alone is not empty either', async (_, sql) => {
    const nearlyEmpty = await createDatabase(postgres, {sql});
    const failure = await failureOf(restoring({target: connectionTo(nearlyEmpty.url)}, {}, async () => false));
    expect(failure).toMatchObject({code: 'REFUSED', exitCode: 7});
    await nearlyEmpty.drop();
  });

  test('in which something made later depends on a table: an error with the way out', async () => {
    await target.query('CREATE VIEW later AS SELECT given_name FROM patients');
    const failure = await failureOf(restoring());
    await target.query('DROP VIEW later');
    expect(await stateOfTarget()).toEqual(before);
    expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
    expect(failure.reason).toContain('depend');
    expect(failure.hint).toMatch(/Use --swap: .*new, empty database/);
  });

  test('that does not fit the backup is refused before anything is asked or changed', async () => {
    await reseal(place.store, backupKey, key, (manifest) => ({
      ...manifest,
      serverVersion: '99.1 (Debian 99.1-1)',
      databaseBytes: 1e15,
    }));
    const latin = await createDatabase(postgres, {encoding: 'LATIN1', sql: 'CREATE TABLE kept ()'});
    const asked = async () => Promise.reject(new Error('asked too early'));
    const failure = await failureOf(restoring({target: connectionTo(latin.url)}, {}, asked));
    expect(failure).toMatchObject({code: 'REFUSED', exitCode: 7});
    for (const words of ['is of PostgreSQL 99.1', "target's encoding is LATIN1", 'takes about 1,000,000,000 MB']) {
      expect(failure.reason).toContain(words);
    }
    // What was said comes true, and changes nothing.
    const tried = await failureOf(restoring({target: connectionTo(latin.url), allowUnfit: true}));
    expect(tried).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
    expect(tried.reason).toContain('has no equivalent in encoding "LATIN1"');
    expect(
      await latin.query(`SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'public'::regnamespace`),
    ).toBe('kept');
    await latin.drop();
  });

  test('that does not fit is restored into when somebody says so, with a warning', async () => {
    await reseal(place.store, backupKey, key, (manifest) => ({...manifest, serverVersion: '99.1'}));
    const empty = await createDatabase(postgres);
    const {warnings} = await restoring({target: connectionTo(empty.url), allowUnfit: true});
    expect(warnings).toEqual([expect.stringContaining("the target's server is older")]);
    expect(await rowDigests(empty)).toEqual(await rowDigests(clinic));
    await empty.drop();
  });

  test('whose role may not make anything', async () => {
    const role = `loma_${randomBytes(4).toString('hex')}`;
    await runSql(postgres.adminUrl, `CREATE ROLE ${role} LOGIN PASSWORD 'pw'`);
    const failure = await failing({target: connectionTo(postgres.url(target.name, {user: role, password: 'pw'}))});
    expect(failure).toMatchObject({exitCode: 3});
    expect(failure.reason).toMatch(/must be owner|permission denied/);
    await runSql(postgres.adminUrl, `DROP ROLE ${role}`);
  });
});

describe('half-way', () => {
  const onceLoading = (bytes: number, act: () => void) => {
    let isDone = false;
    return (event: ProgressEvent) => {
      if (isDone || event.type !== 'progress' || event.step !== 'load' || event.bytes < bytes) return;
      isDone = true;
      act();
    };
  };

  test('psql is killed', async () => {
    let killing: Promise<void> | undefined;
    const kill = async () => {
      for (const {name, pid} of await runningClients()) if (name === 'psql') process.kill(pid, 'SIGKILL');
    };
    // It can't come to its end meanwhile: somebody reads a table that it has to drop.
    await withReader(async () => {
      const failure = failureOf(restoring({}, {observer: onceLoading(1 << 20, () => (killing = kill()))}));
      expect(await failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
    });
    await killing;
    expect(await stateOfTarget()).toEqual(before);
  });

  // PostgreSQL 13 can't be asked to look after its client.
  const from14 = postgres.major >= 14 ? test : test.skip;
  from14('psql is killed while it waits for a lock: its session does not outlive it', async () => {
    const waits = `SELECT coalesce(string_agg(wait_event_type, ' '), 'none') FROM pg_stat_activity
      WHERE datname = '${target.name}' AND application_name = 'loma-backup'`;
    await withReader(async () => {
      const failure = failureOf(restoring());
      await waitUntil(async () => (await runSql(postgres.adminUrl, waits)) === 'Lock', {what: 'the restore to wait'});
      for (const {pid} of await runningClients()) process.kill(pid, 'SIGKILL');
      expect(await failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
      await waitUntil(async () => (await runSql(postgres.adminUrl, waits)) === 'none', {what: 'the session to end'});
    });
    expect(await stateOfTarget()).toEqual(before);
  });

  test('its backend is terminated', async () => {
    let ending: Promise<string> | undefined;
    const terminate = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
      WHERE datname = '${target.name}' AND application_name = 'loma-backup'`;
    await withReader(async () => {
      const observer = onceLoading(1 << 20, () => (ending = runSql(postgres.adminUrl, terminate)));
      const failure = await failureOf(restoring({}, {observer}));
      expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
      expect(failure.hint).toContain('connection to the server was lost');
    });
    expect(await ending).toBe('1');
    expect(await stateOfTarget()).toEqual(before);
  });

  test('the whole server dies', async () => {
    const own = await startPostgres();
    const database = await createDatabase(own, {sql: 'CREATE TABLE patients AS SELECT 1 AS n'});
    let killing: Promise<void> | undefined;
    const observer = onceLoading(1 << 20, () => (killing = own.kill()));
    const failure = await failureOf(restoring({target: connectionTo(database.url)}, {observer}));
    expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
    await killing;
    await own.start();
    expect(await database.query('SELECT n FROM patients')).toBe('1');
    expect(await database.query("SELECT count(*) FROM pg_class WHERE relname = 'encounters'")).toBe('0');
    await own.stop('immediate');
  });

  test.each([
    ['at the start', (event: ProgressEvent) => event.type === 'started' && event.step === 'find'],
    ['before the target', (event: ProgressEvent) => event.type === 'started' && event.step === 'target'],
    ['before the load', (event: ProgressEvent) => event.type === 'started' && event.step === 'load'],
    ['in the load', (event: ProgressEvent) => event.type === 'progress' && event.step === 'load' && event.bytes > 3e6],
  ])('it is interrupted %s', async (_, fits) => {
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = (event: ProgressEvent) => {
      if (fits(event)) controller.abort(reason);
    };
    const failure = await failing({}, {observer, signal: controller.signal});
    expect(failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
  });

  test('it is interrupted while the rows are counted', async () => {
    const proxy = await startPostgresProxy(
      postgres,
      ({from, text}) => from === 'client' && text.includes('loma.tables'),
    );
    const controller = new AbortController();
    const failure = failing({target: connectionTo(proxy.url(target.name))}, {signal: controller.signal});
    await proxy.stopped;
    controller.abort(new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'}));
    expect(await failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
    await proxy.stop();
  });

  describe('in the moment of the COMMIT', () => {
    const isCommit = ({from, text}: ProxiedMessage) => from === 'client' && /^Q.{4}COMMIT;/s.test(text);

    test('it is interrupted: the end of the COMMIT is waited for, and told', async () => {
      const other = await createDatabase(postgres, {sql: 'CREATE TABLE secrets (id int)'});
      const proxy = await startPostgresProxy(postgres, isCommit);
      const controller = new AbortController();
      const warnings: string[] = [];
      const observer: Observer = (event) => {
        if (event.type === 'warning') warnings.push(event.message);
      };
      const result = restoring({target: connectionTo(proxy.url(other.name))}, {signal: controller.signal, observer});
      await proxy.stopped;
      controller.abort(new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'}));
      expect(warnings).toEqual(['the COMMIT is under way, and its end is waited for']);
      proxy.release();
      expect(await result).toMatchObject({
        uncountedTables: [],
        warnings: [
          expect.stringContaining('secrets'),
          expect.stringMatching(/^the restore is complete, but ANALYZE was not run to its end/),
        ],
      });
      expect(await rowDigests(other)).toEqual({...(await rowDigests(clinic)), 'public.secrets': expect.anything()});
      await proxy.stop();
      await other.drop();
    });

    test('the connection is lost: what came of it is unknown, and that is said', async () => {
      const proxy = await startPostgresProxy(postgres, isCommit);
      const failure = failing({target: connectionTo(proxy.url(target.name))});
      await proxy.stopped;
      await proxy.stop();
      expect(await failure).toMatchObject({
        code: 'RESTORE_FAILED',
        exitCode: 3,
        reason: expect.stringContaining('may hold the backup or be as it was'),
      });
    });
  });

  test('the download breaks off: it goes on, and the restore is complete', async () => {
    const remote = await testStore('s3');
    for (const each of [backupKey, manifestName()]) await remote.store.create(each, await contentOf(place.store, each));
    let cuts = 0;
    const proxy = await startProxy(objects, ({method, url, headers}) => {
      const isBody = method === 'GET' && url.includes('.encrypted?') && !headers.range?.includes('bytes=0-');
      if (!isBody || cuts === 2) return undefined;
      cuts += 1;
      return {cutAfterBytes: 400_000};
    });
    const empty = await createDatabase(postgres);
    const store = s3Settings(proxy, remote.settings.backupsBucket);
    await restoring({store, target: connectionTo(empty.url)});
    expect(proxy.faulted).toHaveLength(2);
    expect(await rowDigests(empty)).toEqual(await rowDigests(clinic));
    await proxy.stop();
    await Promise.all([empty.drop(), remote.dispose()]);
  });

  /** Holds a lock on a table that the restore has to drop, as long as `work` takes. */
  async function withReader(work: () => Promise<void>): Promise<void> {
    const reading = runSql(target.url, 'BEGIN; SELECT count(*) FROM patients; SELECT pg_sleep(300)').catch(
      () => undefined,
    );
    const who = `FROM pg_stat_activity WHERE datname = '${target.name}' AND query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()`;
    while ((await runSql(postgres.adminUrl, `SELECT count(*) ${who} AND wait_event = 'PgSleep'`)) !== '1');
    try {
      await work();
    } finally {
      await runSql(postgres.adminUrl, `SELECT pg_terminate_backend(pid) ${who}`);
      await reading;
    }
  }
});

describe('plain SQL', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-output-'));
  });
  afterEach(() => rm(folder, {recursive: true, force: true}));

  const extracting = (output: string | Writable, run: Partial<Runtime> = {}) =>
    extract({store: place.settings, keys: keySettings(key), choice: {by: 'latest'}, output}, runtime(run));

  test('goes to a file that only its owner can read, and that psql takes', async () => {
    const file = path.join(folder, 'dump.sql');
    const result = await extracting(file);
    expect(result).toMatchObject({key: backupKey, output: file});
    const facts = await stat(file);
    expect(facts.mode & 0o777).toBe(0o600);
    expect(facts.size).toBe(result.dumpBytes);
    expect(await readdir(folder)).toEqual(['dump.sql']);
    const empty = await createDatabase(postgres);
    await runSql(empty.url, await readFile(file, 'utf8'));
    expect(await rowDigests(empty)).toEqual(await rowDigests(clinic));
    await empty.drop();
  });

  test('goes to a stream', async () => {
    const stream = new PassThrough();
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
    expect(await extracting(stream)).toMatchObject({output: '-', dumpBytes: bytes});
    expect(bytes).toBeGreaterThan(5_000_000);
  });

  test('does not overwrite a file', async () => {
    const file = path.join(folder, 'dump.sql');
    await writeFile(file, 'mine');
    expect(await failureOf(extracting(file))).toMatchObject({code: 'REFUSED', exitCode: 7});
    expect(await readFile(file, 'utf8')).toBe('mine');
    expect(await readdir(folder)).toEqual(['dump.sql']);
  });

  test('leaves no file when the backup is damaged', async () => {
    const bytes = await body();
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    await putBody(bytes);
    expect(await failureOf(extracting(path.join(folder, 'dump.sql')))).toMatchObject({exitCode: 5});
    expect(await readdir(folder)).toEqual([]);
  });

  test('leaves no file when it is interrupted', async () => {
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = (event: ProgressEvent) => {
      if (event.type === 'progress') controller.abort(reason);
    };
    const file = path.join(folder, 'dump.sql');
    expect(await failureOf(extracting(file, {observer, signal: controller.signal}))).toBe(reason);
    expect(await readdir(folder)).toEqual([]);
  });

  test.each([false, true])('into a folder that is not there: an error (a legacy backup: %s)', async (isLegacy) => {
    if (isLegacy) {
      const legacy = legacyBackup('SELECT 1;', key, new Date(Date.now() + 60_000));
      await place.store.create(legacy.key, legacy.body);
    }
    const failure = await failureOf(extracting(path.join(folder, 'nowhere', 'dump.sql')));
    expect(failure).toMatchObject({code: 'OUTPUT_FAILED', exitCode: 1});
    expect(failure.reason).toContain('ENOENT');
  });

  test('to a reader that went away: an error', async () => {
    const stream = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error('write EPIPE'), {code: 'EPIPE'}));
      },
    });
    expect(await failureOf(extracting(stream))).toMatchObject({code: 'OUTPUT_FAILED'});
  });
});
