/** More tables than the server's lock table has room for: the backup and the restore say so, and leave all as it was. */
import {afterAll, beforeAll, expect, it} from '@jest/globals';
import {startLocalServer} from '../../src/lib/load/local-server.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {query} from '../../src/lib/postgres/query.ts';
import {locatePsql} from '../../src/lib/postgres/tools.ts';
import {createDatabase, type PostgresServer, startPostgres, type TestDatabase} from '../support/postgres-server.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  failureOf,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';

/** Room for 10 × 22 locks (connections and helper processes), and what is left of the shared memory. */
const settings = {max_locks_per_transaction: 10, max_connections: 10, max_wal_senders: 0};
const hint = expect.stringContaining('SET max_locks_per_transaction');
const key = newKey();
const schema = 'many'.padEnd(63, '_');
/** In many transactions, each of which needs few locks; the schema's name makes each statement that locks a table long. */
const sql = `CREATE SCHEMA ${schema}; DO $$ BEGIN
  FOR i IN 1..1500 LOOP EXECUTE format('CREATE TABLE ${schema}.%I (id int)', repeat('t', 58) || i); COMMIT; END LOOP; END $$;`;

let small: PostgresServer;
let store: TestStore;
let source: TestDatabase;
beforeAll(async () => {
  [small, store, source] = await Promise.all([
    startPostgres({settings}),
    testStore('directory'),
    createDatabase(servers().postgres, {sql}),
  ]);
});
afterAll(() => Promise.all([small.stop('immediate'), store.dispose(), source.drop()]));

it('a backup', async () => {
  const database = await createDatabase(small, {sql});
  const failure = await failureOf(backup(backupSettings({database: database.url, store, key}), runtime()));
  expect(failure).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3, hint});
  expect(failure.reason).toMatch(/query failed: ERROR: {2}out of shared memory\n.*LOCK TABLE .{20,100}…$/);
  expect(await store.keys()).toEqual([]);
});

it('a restore', async () => {
  await backup(backupSettings({database: source.url, store, key}), runtime());
  const target = await createDatabase(small, {sql: 'CREATE TABLE before AS SELECT 1 AS id'});
  const failure = await failureOf(
    restore(restoreSettings({target: target.url, store, key}), async () => true, runtime()),
  );
  expect(failure).toMatchObject({code: 'RESTORE_FAILED', exitCode: 3, hint});
  expect(failure.reason).toMatch(/is as it was: .*out of shared memory$/);
  expect(await target.query("SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'")).toBe(
    'before',
  );
});

it('but a trial restore on the throw-away server, which has room for many', async () => {
  const searchPath = process.env.PATH ?? '';
  const local = await startLocalServer({minimumMajor: servers().postgres.major, searchPath, dumpBytes: 0});
  try {
    const session = {connection: local.connection, psql: await locatePsql(searchPath), inherited: process.env};
    const locks = await query(session, 'SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 120000) i');
    expect(locks).toBe('120000');
  } finally {
    await local.stop();
  }
});
