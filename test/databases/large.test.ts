/** Databases that are large in one respect: what was backed up comes back, is proved, and every digest is equal. */
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {contentsOf} from '../support/dumps.ts';
import {createDatabase, type PostgresServer, startPostgres, type TestDatabase} from '../support/postgres-server.ts';
import {recordTrial} from '../support/reliability.ts';
import {bySize, isFullRun} from '../support/size.ts';
import {roundTrip} from './round-trip.ts';

const timeoutMs = 3_600_000;

let postgres: PostgresServer;
beforeAll(async () => {
  // With its default a server of 100 connections has room for 1,300 tables with a key and a TOAST table.
  postgres = await startPostgres({settings: {max_locks_per_transaction: 1024}});
});
afterAll(() => postgres.stop('immediate'));

interface Large {
  what: string;
  fill: (database: TestDatabase) => Promise<unknown>;
}

const bySql = (what: string, sql: string): Large => ({what, fill: (database) => database.query(sql)});

const scale = bySize({short: 1, full: 20});
const tables = bySize({short: 60, full: 3000});
const rows = bySize({short: 20_000, full: 7_500_000});
const megabytes = bySize({short: 5, full: 200});
const largeObjects = bySize({short: 500, full: 100_000});
const levels = bySize({short: 8, full: 40});

const cases: Large[] = [
  {
    what: `pgbench at scale ${scale}, after some of its transactions`,
    async fill({url}) {
      const address = new URL(url);
      const env = {PGPASSWORD: decodeURIComponent(address.password)};
      address.password = '';
      const pgbench = path.join(postgres.binDirectory, 'pgbench');
      await execa(pgbench, ['-i', '-s', String(scale), '-I', 'dtgvpf', '-q', address.href], {env});
      await execa(pgbench, ['-t', '500', '-c', '2', address.href], {env});
    },
  },
  bySql(
    `${tables} tables, each with a key, a sequence, a text and a foreign key to the one before`,
    `CREATE TABLE t0 (id serial PRIMARY KEY, note text);
     DO $$ BEGIN FOR i IN 1..${tables - 1} LOOP
       EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, note text, before int REFERENCES t%s)', i, i - 1);
       EXECUTE format('INSERT INTO t%s (note) VALUES (''a''), (''b'')', i);
     END LOOP; END $$;`,
  ),
  bySql(
    `one table of ${rows} rows${isFullRun ? ', 1 GB' : ''}`,
    `CREATE TABLE large AS SELECT i AS id, repeat(md5(i::text), 4) AS note FROM generate_series(1, ${rows}) i;
     ALTER TABLE large ADD PRIMARY KEY (id);`,
  ),
  bySql(
    `a row of ${megabytes} MB of text, and one of ${megabytes / 2} MB of bytes`,
    `CREATE TABLE wide (id int PRIMARY KEY, note text, scan bytea);
     INSERT INTO wide SELECT 1, string_agg(md5(i::text), E'\\t'), NULL FROM generate_series(1, ${megabytes} * 1000000 / 33) i;
     INSERT INTO wide SELECT 2, NULL, decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, ${megabytes} * 1000000 / 32) i;
     INSERT INTO wide VALUES (3, 'narrow', NULL);`,
  ),
  bySql(
    `${largeObjects} large objects of 1 KB`,
    `CREATE TABLE papers AS SELECT i AS id, lo_from_bytea(0, decode(repeat(md5(i::text), 64), 'hex')) AS paper
       FROM generate_series(1, ${largeObjects}) i;`,
  ),
  bySql(
    `partitions ${levels} levels deep`,
    `CREATE TABLE deep_0 (id int, note text) PARTITION BY RANGE (id);
     CREATE INDEX ON deep_0 (note, id);
     DO $$ BEGIN FOR i IN 1..${levels} LOOP
       EXECUTE format('CREATE TABLE deep_%s PARTITION OF deep_%s FOR VALUES FROM (%s) TO (1000) PARTITION BY RANGE (id)', i, i - 1, i * 10);
       EXECUTE format('CREATE TABLE leaf_%s PARTITION OF deep_%s FOR VALUES FROM (%s) TO (%s)', i, i - 1, (i - 1) * 10, i * 10);
     END LOOP; END $$;
     CREATE TABLE deep_rest PARTITION OF deep_${levels} DEFAULT;
     INSERT INTO deep_0 SELECT i % 1000, md5(i::text) FROM generate_series(1, 20000) i;`,
  ),
];

describe('a large database', () => {
  it.each(cases)(
    '$what',
    async ({what, fill}) => {
      const [source, target] = await Promise.all([createDatabase(postgres), createDatabase(postgres)]);
      await fill(source);
      await roundTrip(source, target, postgres.adminUrl);
      expect(await contentsOf(target.url)).toEqual(await contentsOf(source.url));
      recordTrial({area: 'Large databases', what, outcome: 'all digests equal'});
      await Promise.all([source.drop(), target.drop()]);
    },
    timeoutMs,
  );
});
