/** Functions that name others without their schema, in an index and a generated column: pg_dump's empty search path does not find those. */
import {afterAll, beforeAll, expect, it} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {restoreSwap} from '../../src/lib/operations/restore-swap.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
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
const searchPath = 'public';

let store: TestStore;
let source: TestDatabase;
let target: TestDatabase;
beforeAll(async () => {
  store = await testStore('directory');
  source = await createDatabase(postgres, {
    sql: `CREATE FUNCTION inner_one(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
      CREATE FUNCTION outer_one(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT inner_one($1)';
      CREATE TABLE names (name text, plain text GENERATED ALWAYS AS (outer_one(name)) STORED); INSERT INTO names VALUES ('Abc');
      CREATE INDEX ON names (outer_one(name));`,
  });
  target = await createDatabase(postgres);
  await backup(backupSettings({database: source.url, store, key}), runtime());
});
afterAll(async () => {
  await Promise.all([source.drop(), target.drop(), store.dispose()]);
});

const settings = () => restoreSettings({target: target.url, store, key});

function verified(path: string | undefined) {
  return verify(
    verifySettings(
      {scratch: postgres.adminUrl, store, key},
      {optionalDatabase: connectionTo(source.url), searchPath: path},
    ),
    runtime(),
  );
}

it('stop a restore, which says what to do, and changes nothing', async () => {
  const failure = await failureOf(restore(settings(), async () => true, runtime()));
  expect(failure).toMatchObject({code: 'RESTORE_FAILED', hint: expect.stringContaining('--search-path')});
  expect(failure.reason).toContain('function inner_one(text) does not exist');
  expect(await target.query(`SELECT to_regclass('public.names') IS NULL`)).toBe('t');
});

it('are found where --search-path says', async () => {
  await restore({...settings(), searchPath}, async () => true, runtime());
  expect(await target.query('TABLE names')).toBe('Abc|abc');
  await restoreSwap({...settings(), searchPath}, async () => true, runtime());
  expect(await target.query('TABLE names')).toBe('Abc|abc');
});

it('are found by verify, too', async () => {
  expect(await verified(undefined)).toMatchObject({isProved: false});
  expect(await verified(searchPath)).toMatchObject({isProved: true});
});
