/** A clock that is wrong by a year: names of backups, ages and retention would go by it, so nothing is done. */
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {backup} from '../../src/lib/operations/backup.ts';
import {program, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {ensurePrograms} from '../support/packages.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';

const {postgres, objects} = servers();
const key = newKey();

let database: TestDatabase;
let place: TestStore;
beforeAll(async () => {
  await ensurePrograms(['faketime']);
  database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 100) AS n'});
  place = await testStore('s3');
  const store = {database: database.url, store: place, key};
  for (const age of [3, 0]) {
    const now = () => new Date(Date.now() - age * 86_400_000);
    await backup(backupSettings(store, {prune: false}), runtime({now}));
  }
}, 180_000);
afterAll(async () => {
  await database.drop();
  await place.dispose();
});

test.each([
  ['+365d', 'backup'],
  ['-365d', 'backup'],
  // It would take every backup for one that is a year old.
  ['+365d', 'prune'],
])('%s: %s says that the clock is wrong, and changes nothing', async (offset, command) => {
  const before = await place.keys();
  const args = command === 'prune' ? ['prune', '--keep-last', '1'] : [command];
  const {exitCode, stderr} = await execa('faketime', ['-f', offset, process.execPath, program, ...args], {
    cwd: '/',
    env: {
      PATH: process.env.PATH ?? '',
      HOME: '/nonexistent',
      PHI_ENCRYPTION_KEY: key,
      DATABASE_URL: database.url,
      ...storeEnvironment(place.settings),
    },
    extendEnv: false,
    reject: false,
  });
  expect({exitCode, stderr}).toEqual({exitCode: 4, stderr: expect.stringContaining("This machine's clock is wrong")});
  expect(await place.keys()).toEqual(before);
  recordTrial({
    area: `A wrong clock (${objects.kind})`,
    what: `${command}, the clock ${offset}`,
    outcome: 'STORAGE_DENIED (exit code 4) that names the clock; nothing changed',
  });
});
