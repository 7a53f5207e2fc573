/** What makes a backup look unusual, next to the earlier ones: then nothing is pruned. */
import {afterEach, beforeEach, describe, expect, test} from '@jest/globals';
import {type BackupSettings, backup} from '../../src/lib/operations/backup.ts';
import {rotateKeys} from '../../src/lib/operations/keys-rotate.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, keySettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';
import {manifestOf} from '../support/tampering.ts';

const {postgres} = servers();
const [key, newer] = [newKey(), newKey()];
let store: TestStore;
let database: TestDatabase;

beforeEach(async () => {
  store = await testStore('directory');
  database = await createDatabase(postgres, {
    sql: 'CREATE TABLE patients AS SELECT generate_series(1, 10) AS n; CREATE TABLE audit_log AS SELECT generate_series(1, 90) AS n',
  });
});
afterEach(async () => {
  await database.drop();
  await store.dispose();
});

const take = (changes: Partial<BackupSettings> = {}, now = new Date()) =>
  backup(backupSettings({database: database.url, store, key}, changes), runtime({now: () => now}));
const long = new Date('2020-01-01T00:00:00Z');
const retention = {keepDays: 1, keepLast: 1};

describe('a key that opens none of the earlier backups of the database', () => {
  test('is asked about, and nothing is pruned', async () => {
    const {key: name, keyFingerprint} = await take({}, long);
    await take({}, new Date('2020-01-02T00:00:00Z'));
    const {warnings, isSuspicious, pruned} = await take({keys: keySettings(newer), retention});
    expect({isSuspicious, pruned}).toEqual({isSuspicious: true, pruned: undefined});
    expect(warnings.join()).toContain(
      `the earlier backups of ${database.name} were sealed with key ${keyFingerprint}, and no configured key opens them: is PHI_ENCRYPTION_KEY the right one?`,
    );
    expect(await store.keys()).toContain(name);
  });

  test('is none beside the previous key, nor after a rotation to it', async () => {
    await take({}, long);
    expect(await take({keys: keySettings(newer, key)})).toMatchObject({isSuspicious: false, warnings: []});
    const keys = keySettings(newer, key);
    const settings = {store: store.settings, keys, dryRun: false, resealLegacy: false, files: false};
    await rotateKeys(settings, runtime());
    expect(await take({keys: keySettings(newer)})).toMatchObject({isSuspicious: false, warnings: []});
  });

  test('is none when the first backup of the database is taken, or its others are from before a restore', async () => {
    expect(await take({label: 'pre-restore'})).toMatchObject({isSuspicious: false, warnings: []});
    expect(await take({keys: keySettings(newer)})).toMatchObject({isSuspicious: false, warnings: []});
  });
});

describe('the number of rows', () => {
  test('of a backup without the rows of a table is compared with those of the same kind', async () => {
    const excludeTableData = ['audit_log'];
    await take();
    expect(await take({excludeTableData})).toMatchObject({rows: 10, isSuspicious: false});
    expect(await take({excludeTableData: ['audit_*']})).toMatchObject({rows: 10, isSuspicious: false});
    await database.query('DELETE FROM patients WHERE n > 4');
    expect(await take({excludeTableData})).toMatchObject({rows: 4, isSuspicious: true});
    // A full one must not have fewer rows than a partial one had.
    await database.query('DELETE FROM audit_log');
    expect((await take()).warnings.join()).toContain('held 100 in an earlier backup');
  });

  test('is not compared with that of a backup from before a restore', async () => {
    const {key: name} = await take({label: 'pre-restore'});
    expect((await manifestOf(store.store, name, key)).label).toBe('pre-restore');
    await database.query('DELETE FROM audit_log');
    expect(await take()).toMatchObject({isSuspicious: false, warnings: []});
  });
});
