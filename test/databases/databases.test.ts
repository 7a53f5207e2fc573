/** Databases with everything in them that PostgreSQL has: what was backed up comes back, every digest equal. */
import {readFileSync} from 'node:fs';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {dumpEncoding} from '../../src/lib/dump/pg-dump.ts';
import {createDatabase, runSql, type TestDatabase} from '../support/database.ts';
import {contentsOf, rowDigests} from '../support/dumps.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {bySize, sample} from '../support/size.ts';
import {roundTrip} from './round-trip.ts';
import {typeTables, unknownTypes} from './type-values.ts';

const {postgres} = servers();

/** Settings of a database change how values and names are written, and are not in a dump. */
const foreignSettings = [
  "timezone = 'America/New_York'",
  'bytea_output = escape',
  "lc_monetary = 'C.UTF-8'",
  "datestyle = 'German, DMY'",
  'intervalstyle = sql_standard',
  'extra_float_digits = -15',
  'quote_all_identifiers = on',
  'standard_conforming_strings = off',
  'backslash_quote = off',
  "client_encoding = 'LATIN1'",
  'xmlbinary = hex',
  'xmloption = document',
  "search_path = 'types'",
  'default_transaction_read_only = on',
  'default_transaction_isolation = serializable',
  'statement_timeout = 60000',
  'synchronize_seqscans = on',
  'array_nulls = off',
  "default_text_search_config = 'german'",
  'check_function_bodies = off',
];

async function adopt(settings: readonly string[], {name}: TestDatabase): Promise<void> {
  await runSql(postgres.adminUrl, settings.map((setting) => `ALTER DATABASE ${name} SET ${setting};`).join('\n'));
}

describe('one database with every kind of object and every type', () => {
  let source: TestDatabase;
  let target: TestDatabase;
  beforeAll(async () => {
    // large.test.ts has 100,000 of them.
    const largeObjects = bySize({short: 500, full: 5000});
    const objects = readFileSync(new URL('objects.sql', import.meta.url), 'utf8');
    source = await createDatabase(postgres, {
      sql: `${objects.replaceAll(':large_objects', String(largeObjects))} ${typeTables(postgres.major)}`,
    });
    target = await createDatabase(postgres);
    await adopt(foreignSettings, source);
  });
  afterAll(() => Promise.all([source.drop(), target.drop()]));

  it('has values of every type that a column may have', async () => {
    expect(await source.query(unknownTypes(postgres.major))).toBe('');
  });

  it('comes back, is proved, comes back over itself, and every row is equal', async () => {
    await roundTrip(source, target, postgres.adminUrl, {again: true});
    await adopt(foreignSettings, target);
    // Their columns come back in another order: verify has compared them column by column.
    const reordered = {'public.child': '', 'public.grandchild': '', 'app.daughter': ''};
    expect({...(await rowDigests(target)), ...reordered}).toEqual({...(await rowDigests(source)), ...reordered});
    recordTrial({
      area: 'Real databases',
      what: 'every kind of object, every type, odd settings',
      outcome: 'all digests equal',
    });
  });
});

describe('a database in another encoding or collation', () => {
  const names = (list: string[]) =>
    list.map((name) => `EXECUTE format('CREATE TABLE %I (%I text, PRIMARY KEY (%2$I)); ', E'${name}', E'${name}');`);
  const filled = (list: string[], values: string[]) => `DO $do$ BEGIN
    ${names(list).join('\n')}
    ${list.map((name) => values.map((value) => `EXECUTE format('INSERT INTO %I VALUES (%L)', E'${name}', E'${value}');`).join('\n')).join('\n')}
    END $do$;`;

  const encodings = [
    [
      'SQL_ASCII',
      `SET client_encoding = 'SQL_ASCII'; ${filled(['caf\\xe9', 'caf\\xe8', 'plain'], ['\\xff\\xfe', '\\xc3', 'a\\xe9\\n'])}`,
    ],
    ['LATIN1', filled(['caf\u00e9', 'plain'], ['\u00ff\u00a0', 'Ärztin', '£'])],
    ['WIN1252', filled(['euro €', 'plain'], ['€ ‰ œ', 'Ž'])],
    ['EUC_JP', filled(['患者', 'plain'], ['山田', 'ｱｲｳ'])],
    ['LATIN2', filled(['łódź'], ['Dvořák'])],
  ] as const;
  const chosen = [...encodings.slice(0, 2), ...sample(encodings.slice(2), 0)];

  it.each(chosen)('%s comes back and is proved', async (encoding, sql) => {
    const source = await createDatabase(postgres, {encoding, sql});
    const target = await createDatabase(postgres, {encoding});
    const {taken} = await roundTrip(source, target, postgres.adminUrl);
    expect(taken.tables).toBeGreaterThan(0);
    expect(await contentsOf(target.url, dumpEncoding(encoding))).toEqual(
      await contentsOf(source.url, dumpEncoding(encoding)),
    );
    recordTrial({area: 'Real databases', what: `a database in ${encoding}`, outcome: 'all digests equal'});
    await Promise.all([source.drop(), target.drop()]);
  });

  it('of the ICU comes back and is proved', async () => {
    const sql = `CREATE COLLATION numeric_german (PROVIDER = icu, LOCALE = 'de-u-kn-true');
      CREATE COLLATION ignoring_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
      CREATE TABLE names (name text PRIMARY KEY, street text COLLATE numeric_german, mail text COLLATE ignoring_case UNIQUE);
      INSERT INTO names SELECT 'Ärztin ' || i, 'Weg ' || i, 'A' || i || '@B.C' FROM generate_series(1, 500) i;
      CREATE INDEX ON names (street);
      CREATE TABLE ranged (name text COLLATE numeric_german) PARTITION BY RANGE (name);
      CREATE TABLE ranged_1 PARTITION OF ranged FOR VALUES FROM ('a1') TO ('a10');
      CREATE TABLE ranged_2 PARTITION OF ranged FOR VALUES FROM ('a10') TO ('a200');
      INSERT INTO ranged SELECT 'a' || i FROM generate_series(1, 199) i;`;
    const source = await createDatabase(postgres, {icuLocale: 'de-DE', sql});
    const target = await createDatabase(postgres, {icuLocale: 'de-DE'});
    await roundTrip(source, target, postgres.adminUrl);
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
    recordTrial({area: 'Real databases', what: 'a database with ICU collation', outcome: 'all digests equal'});
    await Promise.all([source.drop(), target.drop()]);
  });
});
