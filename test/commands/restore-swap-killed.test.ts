/** `restore --swap`, killed by SIGKILL: the target's name leads to the old database or to the new one, whole. */
import {afterAll, beforeAll, beforeEach, describe, expect, jest, test} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {startCli, storeEnvironment} from '../support/cli.ts';
import type {TestDatabase} from '../support/database.ts';
import {type PostgresProxy, type ProxiedMessage, startPostgresProxy} from '../support/postgres-proxy.ts';
import {createDatabase, type PostgresServer, runSql, startPostgres} from '../support/postgres-server.ts';
import {backupSettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';
import {waitUntil} from '../support/wait-until.ts';

// A run kills and another mends: on a busy machine that takes a while.
jest.setTimeout(180_000);

const key = newKey();
const rows = 20_000;
let postgres: PostgresServer;
let store: TestStore;
let target: TestDatabase;

beforeAll(async () => {
  postgres = await startPostgres();
  store = await testStore('directory');
  const source = await createDatabase(postgres, {
    sql: `CREATE TABLE patients AS SELECT n, md5('a' || n) AS name FROM generate_series(1, ${rows}) n`,
  });
  await backup(backupSettings({database: source.url, store, key}), runtime());
  await source.drop();
});
afterAll(async () => {
  await postgres.stop('immediate');
  await store.dispose();
});
beforeEach(async () => {
  target = await createDatabase(postgres, {sql: `CREATE TABLE patients AS SELECT 1 AS n, 'old' AS name`});
});

const admin = (sql: string) => runSql(postgres.adminUrl, sql);
const databases = async () => (await admin(`SELECT datname FROM pg_database ORDER BY 1`)).split('\n');
const newDatabases = async () => (await databases()).filter((name) => name.startsWith('loma_swap_'));
const oldDatabases = async () => (await databases()).filter((name) => name.startsWith(`${target.name}_before_`));

function swapping(url: string) {
  const environment = {DATABASE_URL: url, PHI_ENCRYPTION_KEY: key, ...storeEnvironment(store.settings)};
  return startCli(['restore', '--latest', '--swap', '--yes', '--json'], environment);
}

/** Nothing that the killed run has started works on. */
async function afterwards(): Promise<void> {
  const left = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'loma-backup'`;
  await waitUntil(async () => (await admin(left)) === '0', {what: 'the killed run’s sessions to end'});
}

/** Which of the two is in place, if it is whole. */
async function inPlace(): Promise<string> {
  const found = await target.query(
    `SELECT count(*) || ' rows, ' || min(name) FROM patients WHERE name = 'old' OR n > 0`,
  );
  if (found === '1 rows, old') return 'the old one';
  const isWhole = await target.query(
    `SELECT count(*) = ${rows} AND count(DISTINCT name) = ${rows} AND sum(n) = ${rows}::bigint * (${rows} + 1) / 2 FROM patients`,
  );
  return isWhole === 't' ? 'the new one' : `neither: ${found}`;
}

/** The next run restores, and cleans up what the killed one left; then the way back is the old database. */
async function nextRunMends(left: readonly string[]): Promise<void> {
  const {exitCode, stdout, stderr} = await swapping(target.url);
  expect({exitCode, stderr: exitCode === 0 ? '' : stderr}).toEqual({exitCode: 0, stderr: ''});
  const {swap} = JSON.parse(String(stdout));
  expect(swap.droppedDatabases).toEqual(left);
  expect(await newDatabases()).toEqual([]);
  expect(await inPlace()).toBe('the new one');
  expect(await oldDatabases()).toContain(swap.oldDatabase);
}

/** Kills a run when a connection of it is where it should be, and lets what it has started go on, or not. */
async function killedAt(
  shouldStop: (message: ProxiedMessage) => boolean,
  then: 'goes on' | 'is cut',
  isThere: () => Promise<boolean> = async () => true,
): Promise<void> {
  const proxy: PostgresProxy = await startPostgresProxy(postgres, shouldStop);
  try {
    const run = swapping(proxy.url(target.name));
    await Promise.race([proxy.stopped, run.then(({stdout}) => Promise.reject(new Error(`it has ended: ${stdout}`)))]);
    await waitUntil(isThere, {what: 'the moment'});
    run.kill('SIGKILL');
    expect(await run).toMatchObject({signal: 'SIGKILL'});
    if (then === 'goes on') {
      proxy.release();
      await afterwards();
    }
  } finally {
    await proxy.stop();
  }
  await afterwards();
}

const isRename = ({text}: ProxiedMessage) => /ALTER DATABASE "loma_swap_\w+" RENAME/.test(text);

describe('SIGKILL', () => {
  test('while the new database is created', async () => {
    const locked = `SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CREATE DATABASE%' AND wait_event_type = 'Lock'`;
    const holder = runSql(postgres.adminUrl, `BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(300)`).catch(
      () => undefined,
    );
    const unlock = () =>
      admin(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()`,
      );
    await waitUntil(
      async () =>
        (await admin(
          `SELECT count(*) FROM pg_locks WHERE relation = 'pg_database'::regclass AND mode = 'ShareLock'`,
        )) === '1',
      {what: 'the lock'},
    );
    const run = swapping(target.url);
    await waitUntil(async () => (await admin(locked)) === '1', {what: 'CREATE DATABASE to wait'});
    run.kill('SIGKILL');
    await run;
    await unlock();
    await holder;
    await afterwards();
    // The server finishes what it was asked for, with nobody to mark it.
    const left = await newDatabases();
    expect(left).toHaveLength(1);
    expect(await admin(`SELECT datallowconn FROM pg_database WHERE datname = '${left[0]}'`)).toBe('f');
    expect(await inPlace()).toBe('the old one');
    await nextRunMends(left);
  });

  test('in the middle of the load', async () => {
    let sent = 0;
    await killedAt(({database, text}) => {
      if (database.startsWith('loma_swap_')) sent += text.length;
      return sent > 500_000;
    }, 'is cut');
    const left = await newDatabases();
    expect(left).toHaveLength(1);
    expect(await inPlace()).toBe('the old one');
    await nextRunMends(left);
  });

  test('when the new database is loaded, and not yet renamed', async () => {
    await killedAt(({database, earlier}) => database.startsWith('loma_swap_') && earlier === 1, 'is cut');
    const left = await newDatabases();
    expect(left).toHaveLength(1);
    expect(await runSql(postgres.url(left[0]), 'SELECT count(*) FROM patients')).toBe(String(rows));
    expect(await inPlace()).toBe('the old one');
    await nextRunMends(left);
  });

  test('between the two renames, whose transaction is lost', async () => {
    await killedAt(isRename, 'is cut');
    const left = await newDatabases();
    expect(left).toHaveLength(1);
    expect({place: await inPlace(), old: await oldDatabases()}).toEqual({place: 'the old one', old: []});
    await nextRunMends(left);
  });

  test('between the two renames, whose transaction may go on', async () => {
    await killedAt(isRename, 'goes on');
    // The orphaned psql commits, or ends because nobody reads what it says.
    const place = await inPlace();
    const [left, old] = [await newDatabases(), await oldDatabases()];
    expect([place, left.length, old.length]).toEqual(place === 'the new one' ? [place, 0, 1] : ['the old one', 1, 0]);
    await nextRunMends(left);
  });

  test('after the renames', async () => {
    let isCommitting = false;
    await killedAt(
      (message) => {
        if (isRename(message)) isCommitting = true;
        return isCommitting && message.text === '';
      },
      'is cut',
      async () => (await oldDatabases()).length === 1,
    );
    expect({place: await inPlace(), left: await newDatabases()}).toEqual({place: 'the new one', left: []});
    const [old = ''] = await oldDatabases();
    expect(await runSql(postgres.url(old), 'SELECT name FROM patients')).toBe('old');
    await nextRunMends([]);
  });
});
