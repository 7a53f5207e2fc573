import {statfs} from 'node:fs/promises';
import {expect, test} from '@jest/globals';
import {freeSpace} from '../../../src/lib/load/disk-space.ts';
import {locatePsql} from '../../../src/lib/postgres/tools.ts';
import {createDatabase} from '../../support/postgres-server.ts';
import {servers} from '../../support/sandbox.ts';
import {connectionTo} from '../../support/settings.ts';

const {postgres} = servers();

test('is known of a server on this machine, to a role that may know where its data lie', async () => {
  const database = await createDatabase(postgres);
  const role = `plain_${database.name}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'pw'`);
  const psql = await locatePsql(process.env.PATH ?? '');
  const asked = (url: string) => freeSpace({connection: connectionTo(url), psql, inherited: process.env});
  const {blocks, bsize} = await statfs(postgres.dataDirectory);
  const free = await asked(database.url);
  expect(free).toBeGreaterThan(0);
  expect(free).toBeLessThanOrEqual(blocks * bsize);
  expect(await asked(postgres.url(database.name, {user: role, password: 'pw'}))).toBeUndefined();
  expect(await asked('postgresql://user@db.example.com/clinic')).toBeUndefined();
  await database.query(`DROP ROLE ${role}`);
  await database.drop();
});
