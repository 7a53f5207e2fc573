import {pipeline} from 'node:stream/promises';
import {afterAll, afterEach, describe, expect, it} from '@jest/globals';
import {inspect} from '../../src/lib/dump/inspect.ts';
import {startDump} from '../../src/lib/dump/pg-dump.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {type Comparison, describeComparison, type Proof, prove} from '../../src/lib/operations/proof.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {locatePgDump, locatePsql} from '../../src/lib/postgres/tools.ts';
import {clinicSql} from '../support/clinic.ts';
import {createDatabase, type DatabaseOptions, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, connectionTo, keySettings, newKey, runtime, testStore} from '../support/settings.ts';

const {postgres} = servers();
const store = await testStore('directory');
const key = newKey();
const searchPath = process.env.PATH ?? '';
const made: TestDatabase[] = [];

async function database(options: DatabaseOptions = {}): Promise<TestDatabase> {
  const one = await createDatabase(postgres, options);
  made.push(one);
  return one;
}

afterEach(async () => {
  for (const one of made.splice(0)) await one.drop();
});
afterAll(() => store.dispose());

const clinic = `
  CREATE TABLE patients (id int PRIMARY KEY, name text NOT NULL, balance money, seen timestamptz, scan bytea);
  INSERT INTO patients SELECT i, 'Patient ' || i, i, timestamptz '2025-01-01 12:00+00' + i * interval '1 day', '\\xdeadbeef'
    FROM generate_series(1, 100) i;
  CREATE INDEX patients_name ON patients (name);
  CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
  CREATE TRIGGER patients_touch BEFORE UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION touch();
  CREATE SEQUENCE invoice_number; SELECT setval('invoice_number', 42);
  SELECT lo_from_bytea(4711, '\\x0102');`;

interface Pair {
  target: TestDatabase;
  proof(): Promise<Proof>;
}

/** Backs a database up, restores it into another one, and gives a way to prove the second. */
async function restored(
  sql: string,
  options: DatabaseOptions & {before?: string; onSource?: string} = {},
): Promise<Pair> {
  const {before, onSource, ...made} = options;
  const source = await database({...made, sql});
  if (onSource) await source.query(onSource.replaceAll('SOURCE', source.name));
  const target = await database({...made, ...(before ? {sql: before} : {})});
  const {key: name} = await backup(backupSettings({database: source.url, store, key}, {prune: false}), runtime());
  await restore(
    {
      store: store.settings,
      keys: keySettings(key),
      choice: {by: 'key', key: name},
      target: connectionTo(target.url),
      allowUnrestricted: false,
    },
    async () => true,
    runtime(),
  );
  const pgDump = await locatePgDump(postgres.major, searchPath);
  const dump = startDump({connection: connectionTo(source.url), pgDump, inherited: process.env});
  const inspector = inspect(undefined, {withEntries: true});
  await pipeline(dump.stream, inspector, async (chunks) => {
    for await (const _ of chunks);
  });
  const {contents, entries} = inspector.inspection;
  const expected = {
    contents,
    entries,
    encoding: options.encoding ?? 'UTF8',
    excludedTableData: [],
    pgDumpVersion: pgDump.version.text,
    serverVersion: postgres.version,
  };
  const session = {connection: connectionTo(target.url), psql: await locatePsql(searchPath), inherited: process.env};
  return {target, proof: () => prove(expected, {session, pgDump, serverVersion: postgres.version})};
}

describe('a restored database that is the same', () => {
  it('is proved without a note', async () => {
    const {proof} = await restored(clinic);
    expect(await proof()).toEqual({
      differences: [],
      notes: [],
      compared: {tablesByDigest: 1, tablesBySize: 0, tablesLeftOut: 0, rows: 100, objects: 'as a whole'},
    });
  });

  it.each([
    ['an extension that existed already', {sql: 'CREATE EXTENSION pgcrypto', before: 'CREATE EXTENSION pgcrypto'}],
    ['an extension that only the target has', {sql: '', before: 'CREATE EXTENSION citext'}],
    [
      'an extension with a hyphen in its name',
      {sql: 'CREATE EXTENSION "uuid-ossp"', before: 'CREATE EXTENSION "uuid-ossp"'},
    ],
    [
      'another comment on an extension',
      {
        sql: `CREATE EXTENSION pgcrypto; COMMENT ON EXTENSION pgcrypto IS 'ours; it''s'`,
        before: 'CREATE EXTENSION pgcrypto',
      },
    ],
    ['a comment on the schema public', {sql: `COMMENT ON SCHEMA public IS 'ours'`}],
    [
      'another time zone set on the source database',
      {sql: '', onSource: `ALTER DATABASE "SOURCE" SET timezone = 'Asia/Kolkata'`},
    ],
    [
      'another form of bytea set on the source database',
      {sql: '', onSource: `ALTER DATABASE "SOURCE" SET bytea_output = 'escape'`},
    ],
    [
      'strings read the old way on the source database',
      {sql: '', onSource: `ALTER DATABASE "SOURCE" SET standard_conforming_strings = off`},
    ],
    [
      'every identifier quoted on the source database',
      {sql: '', onSource: `ALTER DATABASE "SOURCE" SET quote_all_identifiers = on`},
    ],
    ['the encoding LATIN1', {sql: `INSERT INTO patients (id, name) VALUES (200, 'Zoë')`, encoding: 'LATIN1'}],
    [
      'the encoding SQL_ASCII',
      {sql: `INSERT INTO patients (id, name) VALUES (200, E'\\xe4\\xff')`, encoding: 'SQL_ASCII'},
    ],
  ])('is proved in spite of %s', async (_, {sql, ...options}) => {
    const {proof} = await restored(`${clinic} ${sql}`, options);
    expect((await proof()).differences).toEqual([]);
  });

  it('is proved with a collation of another version', async () => {
    const {target, proof} = await restored(
      `${clinic} CREATE COLLATION german (provider = icu, locale = 'de');
       CREATE TABLE words (word text COLLATE german); CREATE INDEX ON words (word); INSERT INTO words VALUES ('ä'), ('z')`,
    );
    await target.query(`UPDATE pg_collation SET collversion = '1.2.3' WHERE collname = 'german'`);
    expect((await proof()).differences).toEqual([]);
  });

  it('is proved when the columns of an inheritance child come back in another order', async () => {
    const {proof} = await restored(
      `CREATE TABLE parent (a int); CREATE TABLE child (b text) INHERITS (parent); ALTER TABLE parent ADD COLUMN "C c" int;
       INSERT INTO child VALUES (1, 'one', 10), (2, 'two', 20);
       CREATE TABLE parent2 (a int); CREATE TABLE child2 (z regclass) INHERITS (parent2); ALTER TABLE parent2 ADD COLUMN b int;
       INSERT INTO child2 VALUES (1, 'child2', 2)`,
    );
    const {differences, notes, compared} = await proof();
    expect(differences).toEqual([]);
    expect(notes.join()).toContain('table public.child has its columns in another order, and the same rows');
    expect(compared).toMatchObject({tablesByDigest: 4, objects: 'one by one'});
  });
});

describe('a source whose rows were updated', () => {
  it('is proved to the same digests: a table made in the transaction is filled in order, without looking for gaps', async () => {
    const {proof} = await restored(clinicSql({patients: 3000}));
    expect(await proof()).toMatchObject({differences: [], notes: []});
  });
});

describe('what was compared, in words', () => {
  const all = {tablesByDigest: 3, tablesBySize: 0, tablesLeftOut: 0, rows: 42, objects: 'as a whole'} as const;
  it.each<[Partial<Comparison>, string]>([
    [{}, '3 tables, 42 rows, every digest equal'],
    [{objects: 'one by one'}, "3 tables, 42 rows, every table's digest equal, objects compared one by one"],
    [{objects: 'by name'}, "3 tables, 42 rows, every table's digest equal, objects compared by name only"],
    [{tablesBySize: 1}, '4 tables, 42 rows, the digests of 3 tables equal, 1 compared by rows and bytes only'],
    [{tablesLeftOut: 2}, '3 tables, 42 rows, every digest equal, the rows of 2 more left out and not compared'],
  ])('%j', (changes, text) => {
    expect(describeComparison({...all, ...changes})).toBe(text);
  });
});

describe('a restored database that is another', () => {
  it.each([
    ['a row is missing', 'DELETE FROM patients WHERE id = 50', 'table public.patients has 99 rows, not 100'],
    [
      'a row is changed',
      `UPDATE patients SET name = 'Patient X' WHERE id = 100`,
      'table public.patients has other contents',
    ],
    [
      'a row is too many',
      `INSERT INTO patients (id, name) VALUES (101, 'x')`,
      'table public.patients has 101 rows, not 100',
    ],
    ['a table is missing', 'DROP TABLE patients', 'table public.patients is missing (100 rows)'],
    ['a table is too many', 'CREATE TABLE extra (a int)', 'table public.extra (0 rows) is not in the backup'],
    ['an index is missing', 'DROP INDEX patients_name', 'missing: INDEX public.patients_name'],
    [
      'a trigger is missing',
      'DROP TRIGGER patients_touch ON patients',
      'missing: TRIGGER public.patients patients_touch',
    ],
    [
      'a constraint is missing',
      'ALTER TABLE patients DROP CONSTRAINT patients_pkey',
      'missing: CONSTRAINT public.patients patients_pkey',
    ],
    ['a default was changed', `ALTER TABLE patients ALTER name SET DEFAULT 'x'`, 'differs: TABLE public.patients'],
    [
      'a function was changed',
      `CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
      'differs: FUNCTION public.touch()',
    ],
    ['a sequence went on', `SELECT nextval('invoice_number')`, 'differs: SEQUENCE SET public.invoice_number'],
    ['a large object was changed', `SELECT lo_put(4711, 0, '\\x09')`, 'differs: BLOBS'],
  ])('is not proved when %s, and the difference is named', async (_, sql, difference) => {
    const {target, proof} = await restored(clinic);
    await target.query(sql);
    expect((await proof()).differences.join('\n')).toContain(difference);
  });

  it('is not proved when a row of a table with reordered columns is changed', async () => {
    const {target, proof} = await restored(
      `CREATE TABLE parent (a int); CREATE TABLE child (b text) INHERITS (parent); ALTER TABLE parent ADD COLUMN c int;
       INSERT INTO child VALUES (1, 'one', 10)`,
    );
    await target.query(`UPDATE child SET b = 'eins'`);
    expect((await proof()).differences.join()).toContain('table public.child has other contents');
  });
});
