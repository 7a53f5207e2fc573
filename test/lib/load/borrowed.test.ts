import {randomBytes} from 'node:crypto';
import {readFileSync} from 'node:fs';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, it} from '@jest/globals';
import {borrow} from '../../../src/lib/load/borrowed.ts';
import type {Scratch} from '../../../src/lib/load/scratch.ts';
import type {Session} from '../../../src/lib/postgres/query.ts';
import {locatePsql} from '../../../src/lib/postgres/tools.ts';
import {createDatabase, type DatabaseOptions, runSql, type TestDatabase} from '../../support/database.ts';
import {servers} from '../../support/sandbox.ts';
import {connectionTo, failureOf} from '../../support/settings.ts';

const {postgres} = servers();
/** Not the one that the cluster was made with: of what belongs to that one, PostgreSQL keeps no record. */
const role = `borrower_${randomBytes(4).toString('hex')}`;
let database: TestDatabase;
let session: Session;
let warnings: string[];

beforeAll(() => runSql(postgres.adminUrl, `CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'pw'`));
afterAll(() => runSql(postgres.adminUrl, `DROP ROLE ${role}`));

beforeEach(async () => {
  warnings = [];
  await begin();
});
afterEach(() => database.drop());

async function begin(options?: DatabaseOptions): Promise<void> {
  database = await createDatabase(postgres, options);
  const connection = connectionTo(urlOf(role));
  session = {connection, psql: await locatePsql(process.env.PATH ?? ''), inherited: process.env};
}

const urlOf = (user: string) => postgres.url(database.name, {user, password: 'pw'});
const take = () => borrow(session, (message) => warnings.push(message));

/** Makes something there as a restore does: in one transaction, of which the scratch database is told. */
async function load(scratch: Scratch, sql: string): Promise<void> {
  const printed = await runSql(
    urlOf(role),
    `BEGIN; ${sql};\nSELECT 'transaction ' || pg_current_xact_id(); SET search_path TO DEFAULT; COMMIT;`,
  );
  scratch.loadedBy(/^transaction (\d+)$/m.exec(printed)?.[1] ?? '');
}

/** How many rows every system catalog has, and the comment and grants on the schema public. */
async function catalogs(): Promise<string> {
  const names = await database.query(
    `SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
       AND relname NOT LIKE 'pg_statistic' ORDER BY 1`,
  );
  const counts = names.split('\n').map((name) => `SELECT '${name}', count(*) FROM ${name}`);
  const own = `(SELECT oid FROM pg_database WHERE datname = current_database())`;
  return database.query(
    `${counts.join(' UNION ALL ')} UNION ALL SELECT 'pg_shdepend', count(*) FROM pg_shdepend WHERE dbid = ${own}
     UNION ALL SELECT 'pg_subscription', count(*) FROM pg_subscription WHERE subdbid = ${own};
     SELECT obj_description(oid, 'pg_namespace'), nspacl FROM pg_namespace WHERE nspname = 'public'`,
  );
}

describe('a borrowed database', () => {
  it('is given back as it was, whatever kind of object was in the backup', async () => {
    const before = await catalogs();
    const objects = readFileSync(new URL('../../databases/objects.sql', import.meta.url), 'utf8')
      .replaceAll(':large_objects', '50')
      // A superuser's alone, who needs no database to be lent.
      .replaceAll(/^(CREATE ACCESS METHOD|CREATE TABLE in_heap_again).*$/gm, '');
    const scratch = await take();
    await load(
      scratch,
      `${objects};
       CREATE FUNCTION next_of(int, app.measured) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
       CREATE AGGREGATE counted_all (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
       CREATE AGGREGATE app.last_of (ORDER BY int) (SFUNC = int4larger, STYPE = int);
       CREATE FUNCTION nothing(app.level) RETURNS int LANGUAGE sql AS 'SELECT 1';
       CREATE OPERATOR app.## (RIGHTARG = app.level, FUNCTION = nothing);
       CREATE SCHEMA crypto; ALTER EXTENSION pgcrypto SET SCHEMA crypto;
       COMMENT ON SCHEMA public IS 'of the backup';
       ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
       ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO PUBLIC;
       CREATE SUBSCRIPTION other CONNECTION 'host=127.0.0.1 port=1' PUBLICATION x WITH (connect = false)`,
    );
    expect(await catalogs()).not.toBe(before);
    await scratch.requireUndisturbed();
    await scratch.drop();
    expect(warnings).toEqual([]);
    expect(await catalogs()).toBe(before);
  });

  it('is given back as it was, whatever the bytes of names are', async () => {
    await database.drop();
    await begin({encoding: 'SQL_ASCII'});
    await database.query(`COMMENT ON SCHEMA public IS 'für uns'`);
    const before = await catalogs();
    const scratch = await take();
    await load(
      scratch,
      `DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I CREATE TABLE t (a int); CREATE TYPE %1$I AS ENUM ()', E'\\xe4'); END $$;
       COMMENT ON SCHEMA public IS 'theirs'`,
    );
    await scratch.drop();
    expect(warnings).toEqual([]);
    expect(await catalogs()).toBe(before);
  });

  it.each(['the same role', 'another role'])('keeps what %s has made in it meanwhile, and says so', async (who) => {
    const scratch = await take();
    await load(
      scratch,
      `CREATE SCHEMA clinic; CREATE TABLE clinic.visits (a int); CREATE TABLE public.patients (id int PRIMARY KEY, name text);
       CREATE TABLE public.seen AS SELECT 1 AS a; CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
       CREATE TABLE public.parts (a int) PARTITION BY LIST (a)`,
    );
    await runSql(
      who === 'the same role' ? urlOf(role) : database.url,
      `CREATE SCHEMA mine; CREATE TABLE mine.precious AS SELECT 1 AS a; CREATE TABLE clinic.precious AS SELECT 2 AS a;
       CREATE VIEW mine.of_patients AS SELECT name FROM patients; CREATE INDEX ON seen (a);
       CREATE TABLE mine.part PARTITION OF parts FOR VALUES IN (1); INSERT INTO mine.part VALUES (1); SELECT lo_create(42)`,
    );
    await expect(scratch.requireUndisturbed()).rejects.toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('table mine.precious'),
    });
    await scratch.drop();
    expect(
      await database.query(
        `SELECT * FROM mine.precious, clinic.precious p, mine.part; SELECT count(*) FROM mine.of_patients;
         SELECT to_regclass('clinic.visits') IS NULL, to_regclass('public.seen') IS NULL, to_regproc('public.one') IS NULL;
         SELECT count(*) FROM pg_largeobject_metadata`,
      ),
    ).toBe('1|2|1\n0\nt|t|t\n1');
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toMatch(/may be PHI.* by hand: schema clinic, table public\.parts, table public\.patients$/);
    expect(warnings[1]).toContain('table clinic.precious, table mine.part, table mine.precious, view mine.of_patients');
  });

  it('into which nothing was loaded is left alone', async () => {
    const scratch = await take();
    await database.query('CREATE TABLE precious (a int)');
    await scratch.drop();
    expect(await database.query('SELECT count(*) FROM precious')).toBe('0');
    expect(warnings.join()).toContain('table public.precious');
  });

  it('takes in one run at a time', async () => {
    const scratch = await take();
    expect(await failureOf(take())).toMatchObject({kind: 'refused', reason: expect.stringContaining('another verify')});
    await scratch.drop();
    await (await take()).drop();
    expect(warnings).toEqual([]);
  });
});
