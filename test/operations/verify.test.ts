import {spawnSync} from 'node:child_process';
import {createCipheriv, randomBytes} from 'node:crypto';
import {readdir, readFile, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import {afterAll, afterEach, beforeAll, describe, expect, it} from '@jest/globals';
import {backupKey, manifestKey, verificationKey} from '../../src/lib/catalog/key-names.ts';
import {type MessageHeader, parseHeader} from '../../src/lib/encrypt/message-header.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {list} from '../../src/lib/operations/list.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import {type VerifyResult, type VerifySettings, verify} from '../../src/lib/operations/verify.ts';
import {allCommandLines} from '../support/cli.ts';
import {createDatabase, runSql, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {waitUntil} from '../support/wait-until.ts';

const {postgres} = servers();
const key = newKey();
let source: TestDatabase;
let store: TestStore;

const sql = `
  CREATE TABLE patients (id int PRIMARY KEY, name text);
  INSERT INTO patients SELECT i, 'Patient ' || i FROM generate_series(1, 5000) i;
  ALTER TABLE patients ENABLE ROW LEVEL SECURITY;`;

beforeAll(async () => {
  source = await createDatabase(postgres, {sql});
});
afterAll(() => source.drop());

afterEach(async () => {
  await store.dispose();
  expect(await scratchDatabases()).toEqual([]);
});

async function scratchDatabases(): Promise<string[]> {
  const names = await source.query(`SELECT datname FROM pg_database WHERE datname LIKE 'loma_verify_%'`);
  return names.split('\n').filter(Boolean);
}

/** Folders and processes of throw-away servers. */
async function localServers(): Promise<string[]> {
  const folders = [...(await readdir('/dev/shm')), ...(await readdir(os.tmpdir()))];
  const commands = (await allCommandLines()).split('\n').filter((line) => /postgres.*loma-backup-/.test(line));
  return [...folders.filter((name) => name.startsWith('loma-backup-')), ...commands];
}

function settings(changes: Partial<VerifySettings> = {}): VerifySettings {
  return {
    store: store.settings,
    keys: keySettings(key),
    optionalDatabase: connectionTo(source.url),
    compression: 'zstd',
    choice: {by: 'latest'},
    withBackup: false,
    scratch: {on: 'server', connection: connectionTo(postgres.adminUrl)},
    formatAge: (ms) => `${ms} ms ago`,
    ...changes,
  };
}

function statuses({steps}: VerifyResult): Record<string, string> {
  return Object.fromEntries(steps.map(({id, status}) => [id, status]));
}

function noteOf({steps}: VerifyResult, id: string): string {
  return steps.find((step) => step.id === id)?.note ?? '';
}

/** Runs SQL while the backup is restored, and has the restore wait for it. */
function meanwhile(url: string, sql: string): Runtime {
  let isDone = false;
  return runtime({
    observer: (event) => {
      if (isDone || event.type !== 'progress' || event.step !== 'restore') return;
      isDone = true;
      const address = new URL(url);
      const env = {...process.env, PGPASSWORD: address.password, PGCONNECT_TIMEOUT: '10'};
      address.password = '';
      const psql = path.join(postgres.binDirectory, 'psql');
      const {status, stderr} = spawnSync(psql, ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', address.href], {
        input: sql,
        env,
      });
      if (status !== 0) throw new Error(String(stderr));
    },
  });
}

/** A role that may make no database, and an empty one that it may restore into. */
async function borrowable(grants: (names: {role: string; database: string}) => string) {
  const role = `weak_${randomBytes(4).toString('hex')}`;
  const database = await createDatabase(postgres);
  await source.query(`CREATE ROLE "${role}" LOGIN PASSWORD 'weak'; ${grants({role, database: database.name})}`);
  const url = postgres.url(database.name, {user: role, password: 'weak'});
  return {role, database, url, place: {on: 'server', connection: connectionTo(url)} as const};
}

const takeBackup = () => backup(backupSettings({database: source.url, store, key}), runtime());

describe('a good backup', () => {
  it('is proved, and the proof is stored beside it and shown by list', async () => {
    store = await testStore('s3');
    const filesBucket = await (await testStore('s3')).settings.backupsBucket;
    store.settings = {...store.settings, filesBucket};
    const {key: name} = await takeBackup();
    const result = await verify(settings(), runtime());
    expect(statuses(result)).toEqual({
      store: 'passed',
      database: 'passed',
      key: 'passed',
      catalog: 'passed',
      backup: 'skipped',
      integrity: 'passed',
      restore: 'passed',
    });
    expect(result).toMatchObject({key: name, total: 7, passed: 6, failed: 0, skipped: 1, isProved: true});
    expect(noteOf(result, 'restore')).toContain('1 tables, 5000 rows, every digest equal');
    expect(await store.keys()).toEqual([name, `${name}.metadata.json`, verificationKey(name)].sort());
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed?.verification).toEqual({at: result.startedAt, isProved: true});
  });

  it('is taken first with withBackup, and that one is verified', async () => {
    store = await testStore('directory');
    const result = await verify(settings({withBackup: true}), runtime());
    expect(statuses(result)).toMatchObject({backup: 'passed', integrity: 'passed', restore: 'passed'});
    expect(noteOf(result, 'backup')).toContain(result.key ?? 'none');
  });

  it('is proved in a throw-away PostgreSQL on this machine, which lacks the roles that policies name', async () => {
    store = await testStore('directory');
    const role = `app_${randomBytes(4).toString('hex')}`;
    await source.query(`CREATE ROLE "${role}"; CREATE POLICY own_rows ON patients TO "${role}" USING (true)`);
    try {
      await takeBackup();
      const before = await localServers();
      const result = await verify(settings({scratch: {on: 'this machine'}}), runtime());
      expect(noteOf(result, 'restore')).toContain('every digest equal');
      expect(result.isProved).toBe(true);
      // Those of other tests, which run beside this one, come and go.
      const isGone = async () => (await localServers()).every((each) => before.includes(each));
      await waitUntil(isGone, {what: 'the throw-away server to be gone'});
    } finally {
      await source.query(`DROP POLICY own_rows ON patients; DROP ROLE "${role}"`);
    }
  });

  it('is proved without the rows that were left out of it', async () => {
    store = await testStore('directory');
    await backup(
      backupSettings({database: source.url, store, key}, {excludeTableData: ['public.patients']}),
      runtime(),
    );
    const result = await verify(settings(), runtime());
    expect(result.isProved).toBe(true);
  });

  it('of the older form is authenticated and restored', async () => {
    store = await testStore('directory');
    await takeBackup();
    const [name = ''] = await store.keys();
    const {extract} = await import('../../src/lib/operations/extract.ts');
    const file = path.join(store.folder, 'plain.sql');
    await extract(
      {store: store.settings, keys: keySettings(key), choice: {by: 'key', key: name}, output: file},
      runtime(),
    );
    const iv = randomBytes(16);
    const cipher = createCipheriv('aes-256-gcm', Buffer.from(key, 'hex'), iv);
    const sealed = [iv, cipher.update(gzipSync(await readFile(file), {level: 9})), cipher.final(), cipher.getAuthTag()];
    const legacy = backupKey(new Date('2025-01-01T00:00:00Z'), 'gzip');
    await store.store.create(legacy, Buffer.concat(sealed));
    const result = await verify(settings({choice: {by: 'key', key: legacy}}), runtime());
    expect(statuses(result)).toMatchObject({integrity: 'passed', restore: 'passed'});
    expect(noteOf(result, 'integrity')).toContain('no digests to compare');
  });
});

describe('a scratch database', () => {
  it('is the named one where the role may make none, and is empty again afterwards', async () => {
    store = await testStore('directory');
    await takeBackup();
    const {
      role,
      database: empty,
      place,
    } = await borrowable((names) => `GRANT ALL ON DATABASE "${names.database}" TO "${names.role}"`);
    await empty.query(`GRANT ALL ON SCHEMA public TO "${role}"`);
    try {
      const result = await verify(settings({scratch: place}), runtime());
      expect(noteOf(result, 'restore')).toContain('it was empty');
      expect(result.warnings).toEqual([]);
      expect(result.isProved).toBe(true);
      expect(await empty.query(`SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`)).toBe('0');

      await empty.query(`CREATE TYPE precious_type AS ENUM ('a')`);
      const withType = await verify(settings({scratch: place}), runtime());
      expect(noteOf(withType, 'restore')).toContain('holds types: it could not be given back as it was');
      await empty.query('DROP TYPE precious_type');

      await empty.query('CREATE TABLE precious (a int)');
      const refused = await verify(settings({scratch: place}), runtime());
      expect(statuses(refused)).toMatchObject({restore: 'failed'});
      expect(noteOf(refused, 'restore')).toContain('could not be given back as it was');
      expect(await empty.query('SELECT count(*) FROM precious')).toBe('0');
    } finally {
      await empty.drop();
      await source.query(`DROP ROLE "${role}"`);
    }
  });

  it('that is the named one leaves the role its rights on other databases', async () => {
    store = await testStore('directory');
    await takeBackup();
    const other = await createDatabase(postgres);
    const owner = `owner_${other.name}`;
    const {role, database, place} = await borrowable(
      (names) => `CREATE ROLE "${owner}"; GRANT "${owner}" TO "${names.role}";
        ALTER DATABASE "${names.database}" OWNER TO "${owner}"; ALTER DATABASE "${other.name}" OWNER TO "${owner}"; SET ROLE "${owner}";
        GRANT CONNECT, CREATE ON DATABASE "${names.database}" TO "${names.role}"; GRANT CONNECT ON DATABASE "${other.name}" TO "${names.role}"`,
    );
    const grants = () =>
      source.query(
        `SELECT datname, datacl FROM pg_database WHERE datname IN ('${database.name}', '${other.name}') ORDER BY 1`,
      );
    try {
      const before = await grants();
      expect(before).toContain(role);
      expect((await verify(settings({scratch: place}), runtime())).isProved).toBe(true);
      expect(await grants()).toBe(before);
    } finally {
      await Promise.all([database.drop(), other.drop()]);
      await source.query(`DROP ROLE "${role}", "${owner}"`);
    }
  });

  it('that is the named one keeps what somebody else makes in it meanwhile, and then nothing is said of the backup', async () => {
    store = await testStore('directory');
    await takeBackup();
    const {role, database, url, place} = await borrowable(
      (names) => `ALTER DATABASE "${names.database}" OWNER TO "${names.role}"`,
    );
    try {
      const result = await verify(
        settings({scratch: place}),
        meanwhile(url, 'CREATE SCHEMA mine; CREATE TABLE mine.precious AS SELECT 7 AS a'),
      );
      expect(statuses(result)).toMatchObject({integrity: 'passed', restore: 'failed'});
      expect(noteOf(result, 'restore')).toMatch(/^There is no database to try the restore in.*table mine\.precious/);
      expect(result.warnings.join()).toContain('left as it is');
      expect(await database.query(`SELECT * FROM mine.precious; SELECT to_regclass('patients') IS NULL`)).toBe('7\nt');
      expect((await store.keys()).some((name) => name.endsWith('.verification.json'))).toBe(false);
    } finally {
      await database.drop();
      await source.query(`DROP ROLE "${role}"`);
    }
  });

  it('is dropped when the backup holds a subscription, and so is one that an earlier run could not drop', async () => {
    store = await testStore('directory');
    // Nobody answers there: neither a restore nor a drop asks.
    const subscription = `CREATE SUBSCRIPTION other CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION x WITH (connect = false)`;
    const subscriber = await createDatabase(postgres, {sql: `CREATE TABLE patients AS SELECT 1 AS a; ${subscription}`});
    const stale = 'loma_verify_20250101000000_0123abce';
    await source.query(`CREATE DATABASE ${stale}`);
    try {
      await runSql(postgres.url(stale), subscription);
      await backup(backupSettings({database: subscriber.url, store, key}), runtime());
      const result = await verify(settings(), runtime());
      expect(result).toMatchObject({isProved: true, warnings: []});
      expect(
        await source.query(`SELECT datname FROM pg_database JOIN pg_subscription ON subdbid = pg_database.oid`),
      ).toBe(subscriber.name);
    } finally {
      await subscriber.query('ALTER SUBSCRIPTION other SET (slot_name = NONE); DROP SUBSCRIPTION other');
      await subscriber.drop();
    }
  });

  it('that an earlier run has left and nobody can drop is told, and keeps nothing from being proved', async () => {
    store = await testStore('directory');
    await takeBackup();
    const stale = 'loma_verify_20250101000000_0123abcf';
    await source.query(`CREATE DATABASE ${stale} IS_TEMPLATE true`);
    try {
      const {isProved, warnings} = await verify(settings(), runtime());
      expect(isProved).toBe(true);
      expect(warnings).toEqual([
        expect.stringMatching(new RegExp(`${stale}.*cannot drop a template database.*DROP DATABASE ${stale}`)),
      ]);
    } finally {
      await source.query(`ALTER DATABASE ${stale} IS_TEMPLATE false`);
      await source.query(`DROP DATABASE ${stale}`);
    }
  });

  it('leaves no role behind, and names one that another run uses meanwhile', async () => {
    store = await testStore('directory');
    const [used, unused] = ['a', 'b'].map((name) => `app_${name}_${randomBytes(4).toString('hex')}`);
    const beside = await createDatabase(postgres, {sql: 'CREATE TABLE t (a int)'});
    const policies = (names: (string | undefined)[]) =>
      names.map((name) => `CREATE POLICY ${name} ON patients TO ${name} USING (true)`).join('; ');
    await source.query(`CREATE ROLE ${used}; CREATE ROLE ${unused}; ${policies([used, unused])}`);
    await takeBackup();
    await source.query(
      `DROP POLICY ${used} ON patients; DROP POLICY ${unused} ON patients; DROP ROLE ${used}, ${unused}`,
    );
    try {
      const sql = `CREATE POLICY other ON t TO ${used} USING (true)`;
      const {isProved, warnings} = await verify(settings(), meanwhile(beside.url, sql));
      expect(isProved).toBe(true);
      expect(warnings).toEqual([expect.stringContaining(`the role ${used}, made for the test, could not be dropped`)]);
      expect(await source.query(`SELECT rolname FROM pg_roles WHERE rolname IN ('${used}', '${unused}')`)).toBe(used);
    } finally {
      await beside.drop();
      await source.query(`DROP ROLE IF EXISTS ${used}, ${unused}`);
    }
  });

  it('is dropped when the verification is interrupted', async () => {
    store = await testStore('directory');
    await takeBackup();
    const abort = new AbortController();
    const error = await failureOf(
      verify(
        settings(),
        runtime({
          signal: abort.signal,
          observer: (event) => {
            if (event.type !== 'progress' || event.step !== 'restore') return;
            abort.abort(new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'}));
          },
        }),
      ),
    );
    expect(error.exitCode).toBe(130);
    // `afterEach` looks for what is left.
  });

  it('that a killed run left is dropped by the next one', async () => {
    store = await testStore('directory');
    await takeBackup();
    await source.query('CREATE DATABASE loma_verify_20250101000000_0123abcd');
    await verify(settings(), runtime());
  });

  it('is not needed: without a server the restore is skipped, with the reason, and nothing is proved', async () => {
    store = await testStore('directory');
    await takeBackup();
    const result = await verify(settings({scratch: {on: 'nothing'}, optionalDatabase: undefined}), runtime());
    expect(statuses(result)).toMatchObject({database: 'skipped', integrity: 'passed', restore: 'skipped'});
    expect(noteOf(result, 'restore')).toContain('TEST_DATABASE_URL');
    expect(result).toMatchObject({isProved: false, failed: 0});
    expect((await store.keys()).some((name) => name.endsWith('.verification.json'))).toBe(false);
  });
});

describe('what is wrong is a failed step', () => {
  it('an altered object fails the integrity, is not restored, and is on record as failed', async () => {
    store = await testStore('directory');
    const {key: name} = await takeBackup();
    const bytes = await contentOf(store.store, name);
    bytes[bytes.length - 100] = (bytes.at(-100) ?? 0) ^ 1;
    await writeFile(path.join(store.folder, name), bytes);
    const result = await verify(settings(), runtime());
    expect(statuses(result)).toMatchObject({integrity: 'failed', restore: 'skipped'});
    expect(noteOf(result, 'integrity')).toContain('Decryption failed');
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed?.verification?.isProved).toBe(false);
  });

  it.each<[string, (header: MessageHeader, body: Buffer) => number]>([
    ['its first byte', () => 0],
    ['its encryption context', () => 100],
    ['the name of its wrapping key', ({wrappedKeys: [own]}, body) => body.indexOf(own?.name ?? '')],
    ['its wrapped data key', ({wrappedKeys: [own]}, body) => body.indexOf(own?.wrapped ?? '')],
    ['its authentication tag', ({length}) => length - 1],
  ])('an object altered in %s is no longer on record as proved', async (_, placeOf) => {
    store = await testStore('directory');
    const {key: name} = await takeBackup();
    expect((await verify(settings(), runtime())).isProved).toBe(true);
    const body = await contentOf(store.store, name);
    const reading = parseHeader(body);
    if (reading.is !== 'header') throw new Error('This is no sealed object.');
    const place = placeOf(reading.header, body);
    body[place] = (body[place] ?? 0) ^ 1;
    await writeFile(path.join(store.folder, name), body);
    const result = await verify(settings(), runtime());
    expect(result).toMatchObject({key: name, failed: 1, isProved: false});
    expect(statuses(result)).toMatchObject({integrity: 'failed', restore: 'skipped'});
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed?.verification).toEqual({at: result.startedAt, isProved: false});
  });

  it('a manifest that was altered takes the proof away, too', async () => {
    store = await testStore('directory');
    const {key: name} = await takeBackup();
    await verify(settings(), runtime());
    const manifest = path.join(store.folder, manifestKey(name));
    await writeFile(manifest, (await readFile(manifest, 'utf8')).replace(/"hold": ?false/, '"hold":true'));
    await verify(settings({choice: {by: 'key', key: name}}), runtime());
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed).toMatchObject({state: 'damaged', verification: {isProved: false}});
  });

  it('a wrong key fails the integrity, and leaves an earlier proof as it was', async () => {
    store = await testStore('directory');
    await takeBackup();
    await verify(settings(), runtime());
    const result = await verify(settings({keys: keySettings(newKey())}), runtime());
    expect(statuses(result)).toMatchObject({integrity: 'failed', restore: 'skipped'});
    expect(noteOf(result, 'integrity')).toContain('is encrypted with key');
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed?.verification?.isProved).toBe(true);
  });

  it('a backup that may not be finished yet gets no result', async () => {
    store = await testStore('directory');
    const {key: name} = await takeBackup();
    await store.store.delete(manifestKey(name));
    const result = await verify(settings({choice: {by: 'key', key: name}}), runtime());
    expect(noteOf(result, 'integrity')).toContain('is incomplete');
    expect(await store.keys()).toEqual([name]);
  });

  it('an empty bucket fails the listing', async () => {
    store = await testStore('directory');
    const result = await verify(settings(), runtime());
    expect(statuses(result)).toMatchObject({
      store: 'passed',
      catalog: 'failed',
      integrity: 'failed',
      restore: 'skipped',
    });
  });

  it('a files bucket that is missing fails the first step, and the backups are proved all the same', async () => {
    store = await testStore('s3');
    store.settings = {...store.settings, filesBucket: 'no-such-bucket'};
    await takeBackup();
    const result = await verify(settings(), runtime());
    expect(statuses(result)).toMatchObject({store: 'failed', database: 'passed', key: 'passed', restore: 'passed'});
    expect(result.failed).toBe(1);
  });

  it('a backups bucket that is missing fails what needs it, and skips the rest', async () => {
    store = await testStore('s3');
    store.settings = {...store.settings, backupsBucket: 'no-such-bucket'};
    const result = await verify(settings(), runtime());
    expect(statuses(result)).toMatchObject({store: 'failed', key: 'failed', integrity: 'skipped', restore: 'skipped'});
  });

  it('a server that cannot be reached fails the restore, and leaves an earlier proof as it was', async () => {
    store = await testStore('directory');
    await takeBackup();
    await verify(settings(), runtime());
    const connection = connectionTo('postgresql://nobody@127.0.0.1:1/postgres');
    const result = await verify(settings({scratch: {on: 'server', connection}}), runtime());
    expect(statuses(result)).toMatchObject({integrity: 'passed', restore: 'failed'});
    const [listed] = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(listed?.verification?.isProved).toBe(true);
  });

  it('a role that may not read every table fails the connection', async () => {
    store = await testStore('directory');
    await takeBackup();
    const role = `blind_${randomBytes(4).toString('hex')}`;
    await source.query(`CREATE ROLE "${role}" LOGIN PASSWORD 'blind'`);
    try {
      const optionalDatabase = connectionTo(postgres.url(source.name, {user: role, password: 'blind'}));
      const result = await verify(settings({optionalDatabase}), runtime());
      expect(noteOf(result, 'database')).toContain('may not read public.patients');
      expect(noteOf(result, 'database')).toContain('row-level security hides rows of public.patients');
    } finally {
      await source.query(`DROP ROLE "${role}"`);
    }
  });

  it('a result that was altered or moved to another backup counts as none', async () => {
    store = await testStore('directory');
    const first = await takeBackup();
    await verify(settings(), runtime());
    const second = await takeBackup();
    const proof = await contentOf(store.store, verificationKey(first.key));
    await writeFile(path.join(store.folder, verificationKey(second.key)), proof);
    await writeFile(
      path.join(store.folder, verificationKey(first.key)),
      proof.toString().replace('"proved"', '"failed"'),
    );
    const backups = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(backups.map(({verification}) => verification)).toEqual([undefined, undefined]);
  });
});
