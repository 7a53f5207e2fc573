import {randomBytes} from 'node:crypto';
import {afterAll, beforeAll, expect, it} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {restoreSwap} from '../../src/lib/operations/restore-swap.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {createDatabase, runSql, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  failureOf,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';

const {postgres} = servers();
const key = newKey();
const role = `managed_${randomBytes(4).toString('hex')}`;
const account = {user: role, password: 'managed'};

/** As PostGIS's spatial_ref_sys: a dump has the rows of such a table that are not the extension's own, and not the table. */
const extensionTables = `
CREATE TABLE registry (id int PRIMARY KEY, name text); INSERT INTO registry SELECT i, 'own ' || i FROM generate_series(1, 5) i;
CREATE TABLE registry_2 (id int); ALTER EXTENSION pgcrypto ADD TABLE registry; ALTER EXTENSION pgcrypto ADD TABLE registry_2;
UPDATE pg_extension SET extconfig = ARRAY['registry'::regclass, 'registry_2'::regclass], extcondition = ARRAY['WHERE id >= 100', '']
  WHERE extname = 'pgcrypto';
`;

/** What no managed server lets a customer make. */
const sql = `
CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_buffercache;
CREATE TABLE patients AS SELECT generate_series(1, 10) AS id;
CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER noted ON ddl_command_start EXECUTE FUNCTION noted();
COMMENT ON EVENT TRIGGER noted IS 'x';
CREATE FUNCTION quiet(note text DEFAULT E'a\n    SET log_statement TO ''none''') RETURNS text LANGUAGE sql IMMUTABLE
  SET log_statement TO 'all' SET search_path TO 'pg_catalog', 'public' SET "myapp.ä" TO 'b' AS E'SELECT ''\n    SET log_statement TO ''''none''''''::text';
CREATE FUNCTION random_again(int) RETURNS bytea LANGUAGE c STRICT AS '$libdir/pgcrypto', 'pg_random_bytes';
CREATE PUBLICATION few FOR TABLE patients; CREATE PUBLICATION everything FOR ALL TABLES;
COMMENT ON PUBLICATION few IS 'x';
CREATE SUBSCRIPTION other CONNECTION 'host=nowhere password=secret' PUBLICATION x WITH (connect = false, slot_name = NONE);
COMMENT ON SCHEMA public IS 'ours';
${extensionTables}
INSERT INTO registry VALUES (100, 'ours');
`;

let store: TestStore;
let source: TestDatabase;
let target: TestDatabase;

beforeAll(async () => {
  store = await testStore('directory');
  source = await createDatabase(postgres, {sql});
  target = await createDatabase(postgres);
  await target.query(
    `CREATE EXTENSION pgcrypto; ${extensionTables} CREATE ROLE "${role}" LOGIN CREATEDB PASSWORD 'managed'; ALTER DATABASE "${target.name}" OWNER TO "${role}"`,
  );
  await backup(backupSettings({database: source.url, store, key}), runtime());
});
afterAll(async () => {
  await source.query('DROP SUBSCRIPTION other');
  await Promise.all([source.drop(), target.drop()]);
  await runSql(postgres.adminUrl, `DROP ROLE "${role}"`);
  await store.dispose();
});

const settings = () => restoreSettings({target: postgres.url(target.name, account), store, key});

it('says that --managed would help, and changes nothing without it', async () => {
  const error = await failureOf(restore(settings(), async () => true, runtime()));
  expect(error).toMatchObject({code: 'RESTORE_FAILED', hint: expect.stringContaining('--managed')});
  expect(await target.query(`SELECT to_regclass('public.patients') IS NULL`)).toBe('t');
});

it('leaves out what the server refuses, and lists it; once more over what is there then', async () => {
  for (const _ of [1, 2]) {
    const {leftOut, rows} = await restore({...settings(), managed: true}, async () => true, runtime());
    expect(rows).toBe(10);
    expect(leftOut.map(({what}) => what).sort()).toEqual([
      'SET "myapp.ä" TO \'b\' of function public.quiet',
      "SET log_statement TO 'all' of function public.quiet",
      'event trigger noted',
      'extension pg_buffercache',
      'function public.random_again',
      'publication everything',
      'publication few',
      'subscription other',
      'the comment or label of event trigger noted',
      'the comment or label of extension pg_buffercache',
      'the comment or label of extension pgcrypto',
      'the comment or label of publication few',
      'the comment or label of schema public',
      "the rows of public.registry that are not the extension's own",
    ]);
    expect(JSON.stringify(leftOut)).not.toContain('secret');
  }
  expect(
    await target.query(`SELECT proconfig, pg_get_function_arguments(oid), prosrc FROM pg_proc WHERE proname = 'quiet'`),
  ).toBe(
    (
      await source.query(
        `SELECT proconfig, pg_get_function_arguments(oid), prosrc FROM pg_proc WHERE proname = 'quiet'`,
      )
    )
      .replace('log_statement=all,', '')
      .replace(',myapp.ä=b', ''),
  );
  expect(await target.query('SELECT extname FROM pg_extension ORDER BY 1')).toBe('pgcrypto\nplpgsql');
});

it('is verified there: the rows and all that was restored are compared, and what was left out is named', async () => {
  const verifyOn = (managed: boolean) =>
    verify(verifySettings({scratch: postgres.url('postgres', account), store, key}, {managed}), runtime());
  const plain = (await verifyOn(false)).steps.find(({id}) => id === 'restore');
  expect(plain).toMatchObject({status: 'failed', note: expect.stringContaining('--managed')});
  const managed = await verifyOn(true);
  expect(managed.steps.find(({id}) => id === 'restore')).toMatchObject({
    status: 'passed',
    note: expect.stringContaining('left out and not proved: event trigger noted'),
  });
  expect(managed.isProved).toBe(true);
  expect(managed.comparison).toMatchObject({tablesLeftOut: 2, objects: 'one by one'});
  expect(managed.steps.find(({id}) => id === 'restore')?.note).toContain(
    "every table's digest equal, the rows of 2 more left out and not compared, objects compared one by one",
  );
});

it('takes the place of the target with --swap, in a new database that the role may fill', async () => {
  await target.query('TRUNCATE patients');
  const {leftOut, rows, swap} = await restoreSwap({...settings(), managed: true}, async () => true, runtime());
  try {
    expect(rows).toBe(10);
    expect(leftOut.map(({what}) => what)).toEqual(
      expect.arrayContaining(['event trigger noted', "the rows of public.registry that are not the extension's own"]),
    );
    expect(await target.query('SELECT count(*) FROM patients')).toBe('10');
    expect(await runSql(postgres.url(swap.oldDatabase), 'SELECT count(*) FROM patients')).toBe('0');
  } finally {
    await runSql(postgres.adminUrl, `DROP DATABASE "${swap.oldDatabase}"`);
  }
});
