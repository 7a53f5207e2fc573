/**
 * An extension with rows of its own in its tables, beside which there are a user's, as PostGIS has: the dump holds the user's, and
 * the extension brings its own when it is made.
 */
import {access, constants, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, beforeAll, expect, it} from '@jest/globals';
import {createDatabase, runSql} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {roundTrip} from './round-trip.ts';

const {postgres} = servers();

const name = `loma_test_${process.pid}`;
const folder = path.join(
  await runSql(postgres.adminUrl, "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'"),
  'extension',
);
const mayInstall = await access(folder, constants.W_OK).then(
  () => true,
  () => false,
);
const files = [path.join(folder, `${name}.control`), path.join(folder, `${name}--1.0.sql`)] as const;

beforeAll(async () => {
  if (!mayInstall) return;
  await writeFile(files[0], "default_version = '1.0'\nrelocatable = true\n");
  await writeFile(
    files[1],
    `CREATE TABLE registry (id int PRIMARY KEY, name text);
     INSERT INTO registry SELECT i, 'own ' || i FROM generate_series(1, 5) i;
     CREATE TABLE settings (name text);
     SELECT pg_extension_config_dump('registry', 'WHERE id >= 100'); SELECT pg_extension_config_dump('settings', '');`,
  );
});
afterAll(() => Promise.all(files.map((file) => rm(file, {force: true}))));

// The server looks for extensions in its own folder only, which a test that is not root may not write to.
(mayInstall ? it : it.skip).each([
  ['rows of a user', "INSERT INTO ext.registry VALUES (100, 'ours'); INSERT INTO ext.settings VALUES ('x')"],
  ['no rows of a user', ''],
])('with %s comes back, is proved, and comes back over itself', async (_, rows) => {
  const sql = `CREATE SCHEMA ext; CREATE EXTENSION ${name} SCHEMA ext; CREATE TABLE visit AS SELECT 1 AS n; ${rows}`;
  const source = await createDatabase(postgres, {sql});
  const target = await createDatabase(postgres);
  await roundTrip(source, target, postgres.adminUrl, {again: true});
  const content = 'SELECT * FROM ext.registry ORDER BY id';
  expect(await target.query(content)).toBe(await source.query(content));
  await Promise.all([source.drop(), target.drop()]);
});
