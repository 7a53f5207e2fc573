/** A backup that fails, or is interrupted, leaves nothing behind: no object, no upload, no child, and no older one less. */
import {randomBytes} from 'node:crypto';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import type {ProgressEvent} from '../../src/lib/observer.ts';
import {type BackupSettings, backup} from '../../src/lib/operations/backup.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import type {TestDatabase} from '../support/database.ts';
import {runningClients} from '../support/dumps.ts';
import {freePorts} from '../support/free-ports.ts';
import {startObjectServer} from '../support/object-server.ts';
import {createDatabase, runSql} from '../support/postgres-server.ts';
import {type Fault, startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  failureOf,
  newKey,
  runtime,
  type StoreKind,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {waitUntil} from '../support/wait-until.ts';

const {postgres, objects} = servers();
const key = newKey();
/** Would delete everything else. */
const greedy = {keepDays: 0, keepLast: 1};

let small: TestDatabase;
let large: TestDatabase;
beforeAll(async () => {
  [small, large] = await Promise.all([
    createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS n'}),
    // 34 MB of a plain dump, 19 MB compressed: three parts.
    createDatabase(postgres, {
      sql: `CREATE TABLE filler AS SELECT n, md5('a' || n) || md5('b' || n) || md5('c' || n) || md5('d' || n) AS text
        FROM generate_series(1, 250000) n`,
    }),
  ]);
});
afterAll(() => Promise.all([small.drop(), large.drop()]));

let place: TestStore;
let older: string[];

/** A store with an older backup in it, which a successful backup would prune. */
async function prepare(kind: StoreKind): Promise<void> {
  place = await testStore(kind);
  const old = runtime({now: () => new Date('2020-01-01T00:00:00Z')});
  await backup(backupSettings({database: small.url, store: place, key}, {prune: false}), old);
  older = await place.keys();
  expect(older).toHaveLength(2);
}

async function expectNothingChanged(): Promise<void> {
  expect(await place.keys()).toEqual(older);
  expect(await place.unfinished()).toEqual([]);
  expect(await runningClients()).toEqual([]);
}

function failing(changes: Partial<BackupSettings>, run: Partial<Runtime> = {}) {
  const settings = backupSettings({database: small.url, store: place, key}, {retention: greedy, ...changes});
  return failureOf(backup(settings, runtime(run)));
}

/** An observer that does something once, at the first event that fits. */
function once(fits: (event: ProgressEvent) => boolean, act: () => void): (event: ProgressEvent) => void {
  let isDone = false;
  return (event) => {
    if (isDone || !fits(event)) return;
    isDone = true;
    act();
  };
}

const progressOf = (step: string, bytes: number) => (event: ProgressEvent) =>
  event.type === 'progress' && event.step === step && event.bytes >= bytes;

describe.each<StoreKind>(['directory', 's3'])('into a store of kind %s', (kind) => {
  beforeEach(() => prepare(kind));
  afterEach(async () => {
    await expectNothingChanged();
    await place.dispose();
  });

  test('a wrong password', async () => {
    const failure = await failing({database: connectionTo(postgres.url(small.name, {password: 'wr0ng-secret'}))});
    expect(failure).toMatchObject({code: 'POSTGRES_UNREACHABLE', exitCode: 3});
    expect(failure.reason).toContain('password authentication failed');
    expect(failure.hint).toContain('user and password');
    expect(JSON.stringify({...failure, message: failure.message})).not.toContain('wr0ng-secret');
  });

  test('pg_dump killed half-way', async () => {
    const kill = async () => {
      for (const {name, pid} of await runningClients()) if (name === 'pg_dump') process.kill(pid, 'SIGKILL');
    };
    let killing: Promise<void> | undefined;
    const observer = once(progressOf('dump', 1 << 20), () => (killing = kill()));
    const failure = await failing({database: connectionTo(large.url)}, {observer});
    await killing;
    expect(failure).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3, message: 'pg_dump failed'});
    expect(failure.reason).toContain('SIGKILL');
  });

  test('the backend of pg_dump terminated half-way', async () => {
    let ending: Promise<string> | undefined;
    const terminate = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
      WHERE datname = '${large.name}' AND application_name = 'loma-backup'`;
    const observer = once(progressOf('dump', 1 << 20), () => (ending = runSql(postgres.adminUrl, terminate)));
    const failure = await failing({database: connectionTo(large.url)}, {observer});
    expect(await ending).toBe('1');
    expect(failure).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3});
    expect(failure.reason).toMatch(/terminating connection|closed the connection/);
  });

  const moments: [string, (event: ProgressEvent) => boolean][] = [
    ['at the start', (event) => event.type === 'started' && event.step === 'connect'],
    ['before the dump', (event) => event.type === 'started' && event.step === 'dump'],
    ['at the first bytes', progressOf('dump', 1)],
    ['in the middle of the dump', progressOf('dump', 16 << 20)],
    ['at the first bytes that are stored', progressOf('upload', 1)],
    ['when the dump was stored', (event) => event.type === 'finished' && event.step === 'upload'],
    ['before the manifest', (event) => event.type === 'started' && event.step === 'publish'],
  ];
  test.each(moments)('an interruption %s', async (_, fits) => {
    const controller = new AbortController();
    const reason = new BackupError('Terminated', {code: 'INTERRUPTED', kind: 'terminated'});
    const observer = once(fits, () => controller.abort(reason));
    const failure = await failing({database: connectionTo(large.url)}, {observer, signal: controller.signal});
    expect(failure).toBe(reason);
    expect(failure.exitCode).toBe(143);
  });

  test('an interruption of a small one, while its only part is on the way', async () => {
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = once(progressOf('compress', 1), () => setImmediate(() => controller.abort(reason)));
    expect(await failing({}, {observer, signal: controller.signal})).toBe(reason);
  });
});

describe('from PostgreSQL', () => {
  const role = `loma_${randomBytes(4).toString('hex')}`;
  const asRole = (database: TestDatabase) => connectionTo(postgres.url(database.name, {user: role, password: 'pw'}));
  beforeAll(() => runSql(postgres.adminUrl, `CREATE ROLE ${role} LOGIN PASSWORD 'pw'`));
  afterAll(() => runSql(postgres.adminUrl, `DROP ROLE ${role}`));
  beforeEach(() => prepare('directory'));
  afterEach(async () => {
    await expectNothingChanged();
    await place.dispose();
  });

  test('a server that is not there', async () => {
    const port = await freePorts(1);
    const failure = await failing({database: connectionTo(`postgresql://u:pw@127.0.0.1:${port}/db`)});
    expect(failure).toMatchObject({code: 'POSTGRES_UNREACHABLE', exitCode: 3});
    expect(failure.message).toBe(`Cannot connect to PostgreSQL at 127.0.0.1:${port}/db`);
    expect(failure.reason).toContain('Connection refused');
  });

  test('a database that is not there', async () => {
    const failure = await failing({database: connectionTo(postgres.url('no_such_database'))});
    expect(failure).toMatchObject({code: 'POSTGRES_UNREACHABLE', exitCode: 3});
    expect(failure.hint).toContain('database name');
  });

  test('a role that may not read a table', async () => {
    const failure = await failing({database: asRole(small)});
    expect(failure).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3});
    expect(failure.reason).toContain('permission denied');
    expect(failure.hint).toContain('pg_read_all_data');
  });

  test('row-level security for a role that it binds: no silent gap', async () => {
    const database = await createDatabase(postgres, {
      sql: `CREATE TABLE secret AS SELECT 1 AS n; ALTER TABLE secret ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secret TO ${role}`,
    });
    const failure = await failing({database: asRole(database)});
    expect(failure).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3});
    expect(failure.hint).toContain('BYPASSRLS');
    await database.drop();
  });

  test('a pattern of tables to leave out that fits none', async () => {
    const taken = await backup(
      backupSettings({database: small.url, store: place, key}, {excludeTableData: ['nothing*'], retention: greedy}),
      runtime(),
    ).catch((error: unknown) => error);
    // pg_dump takes it for a pattern that excludes nothing; the backup holds everything.
    expect(taken).toMatchObject({rows: 1000});
    for (const each of await place.keys()) if (!older.includes(each)) await place.store.delete(each);
    older = await place.keys();
  });

  test('a wait for a lock that somebody holds can be interrupted', async () => {
    const holding = runSql(large.url, 'BEGIN; LOCK TABLE filler IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)');
    const held = holding.catch((error: unknown) => String(error));
    const count = (where: string) =>
      runSql(postgres.adminUrl, `SELECT count(*) FROM pg_stat_activity WHERE datname = '${large.name}' AND ${where}`);
    await waitUntil(async () => (await count("wait_event = 'PgSleep'")) === '1', {what: 'the lock'});
    const controller = new AbortController();
    const failure = failing({database: connectionTo(large.url)}, {signal: controller.signal});
    await waitUntil(async () => (await count("wait_event_type = 'Lock'")) === '1', {what: 'pg_dump to wait for it'});
    controller.abort(new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'}));
    expect(await failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
    await waitUntil(async () => (await count("application_name = 'loma-backup'")) === '0', {
      what: 'pg_dump to be gone',
    });
    await runSql(
      postgres.adminUrl,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${large.name}'`,
    );
    expect(await held).toContain('terminating connection');
  });
});

describe('from the S3 server', () => {
  test('killed half-way: an error that says so; nothing is visible when it comes back', async () => {
    const own = await startObjectServer();
    place = await testStore('s3', own);
    let killing: Promise<void> | undefined;
    const observer = once(progressOf('upload', 1), () => (killing = own.kill()));
    const failure = await failing({database: connectionTo(large.url)}, {observer});
    await killing;
    expect(failure).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
    expect(failure.message).toContain('Storage failed: uploading database-backups/');
    expect(await runningClients()).toEqual([]);
    await own.resume();
    expect(await place.keys()).toEqual([]);
    // Its parts could not be removed; prune finds them, and a day later aborts them.
    for (const unfinished of await place.unfinished()) expect(unfinished).toMatch(/^database-backups\/.*\.encrypted$/);
    await place.dispose();
    await own.stop();
  }, 120_000);

  const faults: [string, (method: string, url: string) => Fault | undefined, object][] = [
    [
      'a part refused',
      (method, url) =>
        method === 'PUT' && url.includes('partNumber=2&') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
      {code: 'STORAGE_DENIED', exitCode: 4},
    ],
    [
      'the completion refused',
      (method, url) =>
        method === 'POST' && url.includes('uploadId=') ? {answer: {status: 400, code: 'InvalidPart'}} : undefined,
      {code: 'STORAGE_FAILED', exitCode: 4},
    ],
    [
      'the manifest refused',
      (method, url) =>
        method === 'PUT' && url.includes('metadata.json') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
      {code: 'STORAGE_DENIED', exitCode: 4},
    ],
    [
      'a manifest of that name there already',
      (method, url) =>
        method === 'PUT' && url.includes('metadata.json')
          ? {answer: {status: 412, code: 'PreconditionFailed'}}
          : undefined,
      {code: 'OBJECT_EXISTS', exitCode: 4},
    ],
    [
      'the listing refused',
      (method, url) =>
        method === 'GET' && url.includes('list-type=2') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
      {code: 'STORAGE_DENIED', exitCode: 4},
    ],
  ];
  test.each(faults)('%s', async (name, faultOf, expected) => {
    await prepare('s3');
    const proxy = await startProxy(objects, ({method, url}) => faultOf(method, url));
    const store = s3Settings(proxy, place.settings.backupsBucket);
    const failure = await failing({database: connectionTo(large.url), store});
    expect(failure).toMatchObject(expected);
    expect(proxy.faulted.length).toBeGreaterThan(0);
    await proxy.stop();
    if (name.startsWith('a manifest of that name')) {
      // It is another run's: the object under it is not ours to remove.
      for (const each of await place.keys()) if (!older.includes(each)) await place.store.delete(each);
    }
    await expectNothingChanged();
    await place.dispose();
  });

  test('that is slow for a moment (503, then connections cut): the backup is made', async () => {
    place = await testStore('s3');
    let count = 0;
    const proxy = await startProxy(objects, ({method, url}) => {
      if (method !== 'PUT' || !url.includes('partNumber=')) return undefined;
      count += 1;
      if (count === 1) return {answer: {status: 503, code: 'SlowDown'}};
      return count === 2 ? {cutAfterBytes: -1} : undefined;
    });
    const store = s3Settings(proxy, place.settings.backupsBucket);
    const taken = await backup(
      backupSettings({database: large.url, store: {...place, settings: store}, key}),
      runtime(),
    );
    expect(taken.rows).toBe(250_000);
    expect(proxy.faulted).toHaveLength(2);
    expect(await place.keys()).toEqual([taken.key, `${taken.key}.metadata.json`]);
    expect(await place.unfinished()).toEqual([]);
    await proxy.stop();
    await place.dispose();
  });

  test('an interruption after the manifest: the backup is complete, and it says so', async () => {
    await prepare('s3');
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = once(
      (event) => event.type === 'started' && event.step === 'catalog',
      () => controller.abort(reason),
    );
    const failure = await failing({}, {observer, signal: controller.signal});
    expect(failure).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
    expect(failure.reason).toContain('the backup is complete');
    const added = (await place.keys()).filter((each) => !older.includes(each));
    expect(added).toHaveLength(2);
    expect(failure.reason).toContain(added[0]);
    expect(await place.keys()).toEqual(expect.arrayContaining(older));
    await place.dispose();
  });
});
