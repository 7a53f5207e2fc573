/** One store for the backups of several databases: which of them is meant. */
import {afterEach, beforeEach, describe, expect, it} from '@jest/globals';
import {type BackupSettings, backup} from '../../src/lib/operations/backup.ts';
import {list} from '../../src/lib/operations/list.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {restoreSwap} from '../../src/lib/operations/restore-swap.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {listTable, restoreSummary} from '../../src/ui/summary.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';

const {postgres} = servers();
const key = newKey();
const sql = 'CREATE TABLE t AS SELECT 1 AS n';
let store: TestStore;
let [clinic, staging, target]: TestDatabase[] = [];

beforeEach(async () => {
  store = await testStore('directory');
  [clinic, staging, target] = await Promise.all([{sql}, {sql}, {}].map((options) => createDatabase(postgres, options)));
});
afterEach(async () => {
  for (const database of [clinic, staging, target]) await database?.drop();
  await store.dispose();
});

const yes = async () => true;
const take = async (database: TestDatabase | undefined, changes: Partial<BackupSettings> = {}) =>
  (await backup(backupSettings({database: database?.url ?? '', store, key}, changes), runtime())).key;
const settings = (changes = {}) => restoreSettings({target: target?.url ?? '', store, key}, changes);
const listed = async () =>
  listTable(await list({store: store.settings, optionalKeys: keySettings(key)}, runtime()), 500);

describe('in a store with backups of two databases', () => {
  let [old, other, newest]: string[] = [];
  let warning: string;
  beforeEach(async () => {
    old = await take(clinic);
    other = await take(clinic);
    newest = await take(staging);
    await take(clinic, {label: 'pre-restore'});
    warning = `the store holds backups of several databases, and ${newest} is of ${staging?.name}; the newest of ${clinic?.name}: ${other}`;
  });

  it('a restore of the newest says of which one it is, and which others there are', async () => {
    const result = await restore(settings(), yes, runtime());
    expect(result).toMatchObject({key: newest, sourceDatabase: staging?.name});
    expect(result.warnings).toContain(warning);
    expect(restoreSummary(result)).toMatch(new RegExp(`^ +Backup of: +${staging?.name}$`, 'm'));
    const swapped = await restoreSwap(settings(), yes, runtime());
    expect(swapped.sourceDatabase).toBe(staging?.name);
    expect(swapped.warnings).toContain(warning);
    await clinic?.query(`DROP DATABASE "${swapped.swap.oldDatabase}"`);
  });

  it('so does a verification of the newest', async () => {
    const scratch = postgres.adminUrl;
    const {warnings, key: verified} = await verify(verifySettings({scratch, store, key}), runtime());
    expect(verified).toBe(newest);
    expect(warnings).toContain(warning);
  });

  it('one that is named is taken without a word', async () => {
    const choice = {by: 'key', key: old} as const;
    expect((await restore(settings({choice}), yes, runtime())).warnings).toEqual([]);
  });

  it('list shows the database of each', async () => {
    const [head, first] = (await listed()).split('\n');
    expect(head).toContain('Database');
    expect(first).toContain(clinic?.name);
  });
});

it('a store with backups of one database has nothing to say of it', async () => {
  await take(clinic);
  await take(clinic);
  expect((await restore(settings(), yes, runtime())).warnings).toEqual([]);
  expect(await listed()).not.toContain('Database');
});

it('what cannot be read of older backups stops no restore', async () => {
  const old = await take(clinic);
  const newest = await take(staging);
  await store.store.replace(`${old}.metadata.json`, Buffer.from('{}'));
  expect((await restore(settings(), yes, runtime())).key).toBe(newest);
});
