/** Tablespaces belong to a server: what lies in one comes back on a server that has none of that name. */
import {afterAll, beforeAll, expect, it} from '@jest/globals';
import {createDatabase} from '../support/database.ts';
import {type PostgresServer, startPostgres} from '../support/postgres-server.ts';
import {servers} from '../support/sandbox.ts';
import {roundTrip} from './round-trip.ts';

let elsewhere: PostgresServer;
beforeAll(async () => {
  elsewhere = await startPostgres({settings: {allow_in_place_tablespaces: true}});
});
afterAll(() => elsewhere.stop());

const where = `SELECT string_agg(relname || ' ' || spcname, ', ' ORDER BY relname) FROM pg_class JOIN pg_tablespace t ON t.oid = reltablespace
  WHERE relnamespace = 'public'::regnamespace`;

it('a database with tablespaces comes back where they are, and where they are not', async () => {
  const {postgres} = servers();
  const place = `"Fast Disk's"`;
  const sql = `CREATE TABLESPACE ${place} LOCATION ''; CREATE TABLE a (id int PRIMARY KEY) TABLESPACE ${place}; INSERT INTO a VALUES (1);
    CREATE TABLE b (x int); CREATE INDEX on_fast_disk ON b (x) TABLESPACE ${place};
    CREATE TABLE p (k int) PARTITION BY LIST (k) TABLESPACE ${place}; CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1);
    CREATE MATERIALIZED VIEW m TABLESPACE ${place} AS SELECT 1 AS one`;
  const source = await createDatabase(elsewhere, {sql});
  const [same, other] = [await createDatabase(elsewhere), await createDatabase(postgres)];
  const there = await roundTrip(source, same, elsewhere.adminUrl, {again: true});
  expect(there.restored.warnings).toEqual([]);
  expect(await same.query(where)).toBe(await source.query(where));
  const here = await roundTrip(source, other, postgres.adminUrl, {again: true});
  expect(here.restored.warnings).toEqual([expect.stringContaining("where the database lies: Fast Disk's")]);
  expect(await other.query(where)).toBe('');
  await Promise.all([source.drop(), same.drop(), other.drop()]);
});
