/** `restore --swap`: the backup takes the target's place, or nothing has happened. */

import {stripVTControlCharacters} from 'node:util';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test} from '@jest/globals';
import {execa} from 'execa';
import {BackupError} from '../../src/lib/errors.ts';
import type {ProgressEvent} from '../../src/lib/observer.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {restoreSwap, type SwapSettings} from '../../src/lib/operations/restore-swap.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import {swapSummary} from '../../src/ui/swap-summary.ts';
import {runningClients} from '../support/dumps.ts';
import {startPostgresProxy} from '../support/postgres-proxy.ts';
import {createDatabase, type PostgresServer, runSql, startPostgres} from '../support/postgres-server.ts';
import {guardedDatabaseSql, guardedSql, privilegesQuery} from '../support/privileges.ts';
import {
  backupSettings,
  connectionTo,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {reseal} from '../support/tampering.ts';
import {waitUntil} from '../support/wait-until.ts';

// Each swap is some twenty sessions.
jest.setTimeout(120_000);

const key = newKey();
const yes = async () => true;
const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
let postgres: PostgresServer;
let store: TestStore;
let backupKey: string;
/** Of the target. */
let name: string;

beforeAll(async () => {
  postgres = await startPostgres({settings: {max_prepared_transactions: 5, allow_in_place_tablespaces: true}});
  store = await testStore('directory');
  const source = await createDatabase(postgres, {
    sql: `CREATE TABLE patients AS SELECT n, md5('a' || n) AS name FROM generate_series(1, 5000) n`,
  });
  backupKey = (await backup(backupSettings({database: source.url, store, key}), runtime())).key;
  await source.drop();
  await admin(`CREATE ROLE owner_ LOGIN PASSWORD 'pw' CREATEDB; CREATE ROLE weak LOGIN PASSWORD 'pw';
    CREATE ROLE "App User" LOGIN PASSWORD 'pw'; CREATE TABLESPACE "fast disk" LOCATION ''`);
});
afterAll(async () => {
  await postgres.stop('immediate');
  await store.dispose();
});
beforeEach(() => makeTarget('clinic'));
afterEach(async () => {
  expect(await runningClients()).toEqual([]);
  for (const database of await databases()) await admin(`DROP DATABASE ${quote(database)} WITH (FORCE)`);
});

const admin = (sql: string) => runSql(postgres.adminUrl, sql);
/** All that are not the server's own. */
const databases = async (): Promise<string[]> =>
  JSON.parse(
    await admin(
      `SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')`,
    ),
  );
const onTarget = (sql: string, database = name) => runSql(postgres.url(database), sql);

async function makeTarget(called: string, options = ''): Promise<void> {
  name = called;
  await admin(`CREATE DATABASE ${quote(called)} TEMPLATE template0 ${options}`);
  await onTarget(
    `CREATE TABLE patients (name text); INSERT INTO patients VALUES ('old'); CREATE VIEW later AS TABLE patients`,
  );
}

function swapping(changes: Partial<SwapSettings> = {}, run: Partial<Runtime> = {}, confirm = yes) {
  return restoreSwap(restoreSettings({target: postgres.url(name), store, key}, changes), confirm, runtime(run));
}

const as = (role: string) => ({target: connectionTo(postgres.url(name, {user: role, password: 'pw'}))});

const isOld = async (database = name) => expect(await onTarget('TABLE later', database)).toBe('old');
const isNew = async (database = name) =>
  expect(await onTarget('SELECT count(*), count(DISTINCT name) FROM patients', database)).toBe('5000|5000');

/** It fails, and nothing has happened. */
async function failing(...args: Parameters<typeof swapping>): Promise<BackupError> {
  const before = await databases();
  const failure = await failureOf(swapping(...args));
  expect(await databases()).toEqual(before);
  await isOld();
  return failure;
}

/** Runs the commands that the summary prints, one of its scripts, as somebody who copies them does. */
async function runPrinted(summary: string, which: number): Promise<void> {
  const scripts = [...summary.matchAll(/^psql .*<<'SQL'\n[\s\S]*?\nSQL$/gm)].map(([text]) => text);
  expect(scripts).toHaveLength(2);
  const env = {PATH: `${postgres.binDirectory}:${process.env.PATH}`, PGPASSWORD: postgres.password};
  await execa('sh', ['-e'], {input: scripts[which] ?? '', env, extendEnv: false});
}

describe('a swap', () => {
  test.each([
    ['a name with quotes, spaces and a dollar', `It's "the" $clinic; --`],
    ['a name with a line break and a backslash', 'a\n\\b\tc'],
    ['a name of 63 bytes that are not ASCII', `${'ü'.repeat(30)}患`],
  ])('of %s: the new one in place, the old one beside it, and a way back that works', async (_, called) => {
    await makeTarget(called);
    const result = await swapping();
    await isNew();
    const {oldDatabase} = result.swap;
    await isOld(oldDatabase);
    expect(result).toMatchObject({tables: 1, rows: 5000, uncountedTables: [], warnings: []});
    expect(result.swap).toMatchObject({database: called, connectTo: 'postgres', droppedDatabases: []});
    expect(result.swap.oldSizeBytes).toBeGreaterThan(1e6);
    expect(Buffer.byteLength(oldDatabase)).toBeLessThanOrEqual(63);
    const summary = swapSummary(result, connectionTo(postgres.url(called)));
    expect(stripVTControlCharacters(summary).replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
    await runPrinted(summary, 0);
    await isOld();
    const undone = (await databases()).find((database) => database.includes('_undone_'));
    await isNew(undone);
  });

  test('carries over what belongs to the database and is in no backup', async () => {
    await makeTarget(
      'carried',
      `ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' TABLESPACE "fast disk"`,
    );
    await admin(`ALTER DATABASE carried OWNER TO owner_; ALTER DATABASE carried CONNECTION LIMIT 7;
      COMMENT ON DATABASE carried IS 'It''s ours';
      REVOKE ALL ON DATABASE carried FROM PUBLIC; REVOKE TEMPORARY ON DATABASE carried FROM owner_;
      GRANT CONNECT, TEMPORARY ON DATABASE carried TO "App User" WITH GRANT OPTION; GRANT CREATE ON DATABASE carried TO weak;
      ALTER DATABASE carried SET search_path TO a, "B ""c"" d", public; ALTER DATABASE carried SET "loma.note" TO 'x = ''y'', "z"';
      ALTER DATABASE carried SET temp_tablespaces TO "fast disk"; ALTER DATABASE carried SET work_mem TO '5MB';
      ALTER DATABASE carried SET default_transaction_read_only TO on; ALTER DATABASE carried SET statement_timeout TO '60s';
      ALTER ROLE "App User" IN DATABASE carried SET search_path TO "$user"; ALTER ROLE weak IN DATABASE carried SET log_statement TO 'all'`);
    const facts = () =>
      admin(`SELECT to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid,datacl}'::text[], pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
        (SELECT array_agg(a ORDER BY a::text) FROM unnest(datacl) a),
        (SELECT json_agg(l ORDER BY l::text) FROM (SELECT setrole, unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = d.oid) l)
        FROM pg_database d WHERE datname = 'carried'`);
    const before = await facts();
    const {warnings} = await swapping({allowUnfit: true});
    await isNew();
    const after = await facts();
    expect(after).toBe(before);
    expect(after).toContain('=T*c*/owner_');
    expect(warnings).toEqual([expect.stringContaining("target's encoding is LATIN1")]);
  });

  test('keeps a NULL in an array a NULL, also where the database reads it as a text', async () => {
    const arrays = await createDatabase(postgres, {sql: `CREATE TABLE a AS SELECT ARRAY['x', NULL] AS a`});
    const place = await testStore('directory');
    await backup(backupSettings({database: arrays.url, store: place, key}), runtime());
    await onTarget(`ALTER DATABASE ${quote(name)} SET array_nulls = off`);
    await swapping({store: place.settings});
    expect(await onTarget('SELECT a[2] IS NULL FROM a')).toBe('t');
    await place.dispose();
  });

  test('ends the sessions on the old one, also of somebody who comes back at once', async () => {
    let isOver = false;
    const sleeping = onTarget('BEGIN; UPDATE patients SET name = $$lost$$; SELECT pg_sleep(300)').catch((error) =>
      String(error),
    );
    const returning = (async () => {
      while (!isOver) await onTarget('SELECT pg_sleep(300)').catch(() => undefined);
    })();
    await waitUntil(
      async () =>
        (await admin(`SELECT count(*) FROM pg_stat_activity WHERE datname = 'clinic' AND wait_event = 'PgSleep'`)) ===
        '2',
      {what: 'two sessions'},
    );
    const result = await swapping();
    isOver = true;
    await isOld(result.swap.oldDatabase);
    await isNew();
    expect(await sleeping).toContain('terminating connection');
    await admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'`);
    await returning;
    // What is printed for the end deletes the old one.
    await runPrinted(swapSummary(result, connectionTo(postgres.url(name))), 1);
    expect(await databases()).toEqual([name]);
  });
});

describe('a swap of a database whose objects belong to other roles', () => {
  test('says whose before it begins, and lists what gives them back', async () => {
    const place = await testStore('directory');
    const roles = {owner: '"App User"', other: 'owner_', reader: 'weak'};
    await onTarget(guardedSql(roles));
    await onTarget(guardedDatabaseSql(roles));
    await onTarget('DROP VIEW later; ALTER TABLE patients OWNER TO owner_');
    await backup(backupSettings({database: postgres.url(name), store: place, key}), runtime());
    const later = `CREATE VIEW later AS SELECT 'old' AS name; ALTER VIEW later OWNER TO weak`;
    await onTarget(`${later}; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO weak`);
    const before = await onTarget(privilegesQuery);

    const told: string[] = [];
    let toldBefore: string[] = [];
    const observer = (event: ProgressEvent) => {
      if (event.type === 'warning') told.push(event.message);
    };
    const {leftOut, swap} = await swapping({store: place.settings}, {observer}, async () => {
      toldBefore = [...told];
      return true;
    });
    expect(told).toEqual(toldBefore);
    expect(told).toEqual([
      expect.stringMatching(
        /^a backup holds no owners: what belongs to "App User" and is restored \(schema guarded, .* and \d+ more\) will belong to loma, and "App User" may not use it/,
      ),
      expect.stringContaining('what belongs to owner_ and is restored (type guarded.span, '),
      expect.stringContaining('what belongs to weak and is restored (view public.later)'),
      expect.stringMatching(/^a backup holds no grants: what .*PUBLIC.* may do/),
    ]);
    await isOld(swap.oldDatabase);
    expect(await onTarget(privilegesQuery)).not.toBe(before);
    const listed = leftOut.map(({sql}) => sql).join('\n');
    expect(listed).not.toContain('public.later');
    expect(listed).toContain('ALTER DEFAULT PRIVILEGES FOR ROLE loma GRANT SELECT ON TABLES TO weak;');
    await onTarget(`${later}; ${listed}`);
    expect(await onTarget(privilegesQuery)).toBe(before);
    await place.dispose();
  });
});

describe('a role that is no superuser', () => {
  test('swaps its own database, and is told what it may not carry over', async () => {
    await admin(`ALTER DATABASE clinic OWNER TO owner_; ALTER DATABASE clinic SET log_statement TO 'all'; ALTER DATABASE clinic SET work_mem TO '5MB';
      ALTER ROLE weak IN DATABASE clinic SET work_mem TO '6MB'`);
    await onTarget(
      `ALTER TABLE patients OWNER TO owner_; GRANT SELECT ON patients TO "App User"; ALTER VIEW later OWNER TO owner_;`,
    );
    const {warnings, swap, leftOut} = await swapping(as('owner_'));
    await isNew();
    await isOld(swap.oldDatabase);
    expect(warnings).toEqual([
      expect.stringContaining('the restored database is without them: log_statement, work_mem for weak'),
      expect.stringContaining('a backup holds no grants: what "App User" may do with restored objects'),
    ]);
    expect(leftOut.map(({sql}) => sql)).toEqual([
      `ALTER DATABASE "clinic" SET "log_statement" TO 'all';`,
      `ALTER ROLE "weak" IN DATABASE "clinic" SET "work_mem" TO '6MB';`,
      'GRANT SELECT ON TABLE public.patients TO "App User";',
    ]);
    expect(await onTarget('SHOW work_mem')).toBe('5MB');
    // Its own the next time, too, with a word about what lies beside it.
    const again = await swapping(as('owner_'));
    expect(again.warnings.at(-1)).toContain(`earlier swaps have left ${swap.oldDatabase}`);
  });

  test.each([
    ['no CREATEDB', 'ALTER DATABASE clinic OWNER TO weak', /weak may not create or rename databases: ALTER ROLE/],
    ['a database of somebody else', 'SELECT 1', /neither the owner of clinic nor a member of its owner loma/],
    [
      'a prepared transaction',
      `BEGIN; CREATE TABLE p (); PREPARE TRANSACTION 'p'`,
      /clinic has 1 prepared transactions/,
    ],
    [
      'no other database to connect to',
      'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC',
      /may connect to no other database/,
    ],
  ])('with %s is told before anything is changed', async (_, sql, reason) => {
    await onTarget(sql);
    const failure = await failing(as('weak'), {}, async () => Promise.reject(new Error('asked too early')));
    await onTarget(
      sql.includes('PREPARE') ? `ROLLBACK PREPARED 'p'` : 'GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC',
    );
    expect(failure).toMatchObject({code: 'SWAP_REFUSED', exitCode: 3});
    expect(failure.reason).toMatch(reason);
  });

  test('that may not end somebody’s session is told whose', async () => {
    await admin('ALTER DATABASE clinic OWNER TO owner_');
    const session = runSql(postgres.url(name, {user: 'App User', password: 'pw'}), 'SELECT pg_sleep(300)').catch(
      () => undefined,
    );
    const who = `FROM pg_stat_activity WHERE usename = 'App User'`;
    await waitUntil(async () => (await admin(`SELECT count(*) ${who}`)) === '1', {what: 'the session'});
    const failure = await failing(as('owner_'));
    expect(failure).toMatchObject({code: 'SWAP_REFUSED', exitCode: 3});
    expect(failure.reason).toContain('owner_ may not end the sessions of App User on clinic');
    await admin(`SELECT pg_terminate_backend(pid) ${who}`);
    await session;
  });
});

describe('a swap that fails leaves the target as it was, and no new database', () => {
  const at = (step: string, type: ProgressEvent['type'], act: () => void) => (event: ProgressEvent) => {
    if ('step' in event && event.step === step && event.type === type) act();
  };

  test('nobody confirmed', async () => {
    expect(await failing({}, {}, async () => false)).toMatchObject({code: 'REFUSED', exitCode: 7});
  });

  test('with another key', async () => {
    expect(await failing({keys: keySettings(newKey())})).toMatchObject({code: 'WRONG_KEY', exitCode: 5});
  });

  test('of an object that is cut off', async () => {
    const place = await testStore('directory');
    const bytes = await contentOf(store.store, backupKey);
    const manifest = await contentOf(store.store, `${backupKey}.metadata.json`);
    await place.store.create(backupKey, bytes.subarray(0, -20));
    await place.store.create(`${backupKey}.metadata.json`, manifest);
    await reseal(place.store, backupKey, key, (sealed) => ({
      ...sealed,
      size: bytes.length - 20,
      objects: sealed.objects.map((object) => ({...object, size: bytes.length - 20})),
    }));
    expect(await failing({store: place.settings})).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5});
    await place.dispose();
  });

  test('whose psql is killed', async () => {
    const proxy = await startPostgresProxy(
      postgres,
      ({database, text}) => database.startsWith('loma_swap_') && text.includes('COPY'),
    );
    const swap = failing({target: connectionTo(proxy.url(name))});
    await proxy.stopped;
    // The youngest: the oldest holds the claim.
    const pids = (await runningClients()).map(({pid}) => pid);
    process.kill(Math.max(...pids), 'SIGKILL');
    const failure = await swap;
    expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3});
    expect(failure.reason).toContain('clinic is as it was, and the new database is dropped');
    await proxy.stop();
  });

  test.each([
    ['load', 'started'],
    ['analyze', 'finished'],
  ] as const)('that is interrupted (%s %s)', async (step, type) => {
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const observer = at(step, type, () => controller.abort(reason));
    expect(await failing({}, {observer, signal: controller.signal})).toBe(reason);
  });

  test('whose target somebody else has replaced meanwhile', async () => {
    let replacing: Promise<string> | undefined;
    const replace = () => {
      replacing ??= admin(`ALTER DATABASE clinic RENAME TO moved; CREATE DATABASE clinic`);
    };
    const failure = await failureOf(swapping({}, {observer: at('create', 'started', replace)}));
    await replacing;
    expect(failure).toMatchObject({code: 'SWAP_FAILED', exitCode: 3});
    expect(failure.reason).toContain('somebody else has replaced the target meanwhile');
    expect(await databases()).toEqual(['clinic', 'moved']);
    await isOld('moved');
  });

  test('beside another swap of the same target, which goes on', async () => {
    let going: ReturnType<typeof swapping> | undefined;
    // When this one has looked at the target, the other begins; this one goes on while that one is at work.
    const confirm = () =>
      new Promise<boolean>((resolve) => {
        going = swapping({}, {observer: at('create', 'finished', () => resolve(true))});
      });
    const {code, exitCode} = await failureOf(swapping({}, {}, confirm));
    // When it claims the target, or at the rename if the other one was done by then.
    expect(['SWAP_REFUSED', 'SWAP_FAILED']).toContain(code);
    expect(exitCode).toBe(3);
    const swap = (await going)?.swap;
    await isNew();
    expect(await databases()).toEqual(['clinic', swap?.oldDatabase]);
  });
});

test('the next run drops what is provably ours and abandoned, and nothing else', async () => {
  const stamp = '20250101000000';
  const marked = `loma-backup restore --swap: to take the place of clinic`;
  await admin(
    `CREATE DATABASE loma_swap_${stamp}_00000001; COMMENT ON DATABASE loma_swap_${stamp}_00000001 IS '${marked}';`,
  );
  await admin(`CREATE DATABASE loma_swap_${stamp}_00000002 ALLOW_CONNECTIONS false`);
  // Without a mark, and somebody may have put something in; with another's comment; with a run that lives; another name.
  await admin(`CREATE DATABASE loma_swap_${stamp}_00000003`);
  await admin(`CREATE DATABASE loma_swap_${stamp}_00000004; COMMENT ON DATABASE loma_swap_${stamp}_00000004 IS 'mine'`);
  await admin(
    `CREATE DATABASE loma_swap_${stamp}_00000005; COMMENT ON DATABASE loma_swap_${stamp}_00000005 IS '${marked}';`,
  );
  await admin(`CREATE DATABASE loma_swap_mine; COMMENT ON DATABASE loma_swap_mine IS '${marked}';`);
  const living = runSql(
    postgres.url('template1'),
    `SELECT pg_advisory_lock(${0x6c6f6d61}, 5); SELECT pg_sleep(300)`,
  ).catch(() => undefined);
  await waitUntil(async () => (await admin(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'`)) === '1', {
    what: 'the lock',
  });
  const {swap, warnings} = await swapping();
  await admin(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()`,
  );
  await living;
  expect(swap.droppedDatabases).toEqual([`loma_swap_${stamp}_00000001`, `loma_swap_${stamp}_00000002`]);
  expect(warnings.join()).toContain('dropped what a run that was killed had left');
  expect((await databases()).filter((database) => database.startsWith('loma_swap_'))).toEqual([
    `loma_swap_${stamp}_00000003`,
    `loma_swap_${stamp}_00000004`,
    `loma_swap_${stamp}_00000005`,
    'loma_swap_mine',
  ]);
});
