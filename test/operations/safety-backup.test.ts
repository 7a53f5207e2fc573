import {afterEach, beforeEach, describe, expect, it} from '@jest/globals';
import {defaultRetention} from '../../src/lib/catalog/retention.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {findBackup} from '../../src/lib/operations/catalog.ts';
import {prune} from '../../src/lib/operations/prune.ts';
import {type RestoreSettings, restore} from '../../src/lib/operations/restore.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  failureOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';

const {postgres} = servers();
const key = newKey();
let store: TestStore;
let source: TestDatabase;
let target: TestDatabase;

beforeEach(async () => {
  store = await testStore('directory');
  source = await createDatabase(postgres, {
    sql: `CREATE TABLE patients (name text); INSERT INTO patients VALUES ('from the backup')`,
  });
  target = await createDatabase(postgres, {
    sql: `CREATE TABLE patients (name text); INSERT INTO patients VALUES ('newer')`,
  });
  await backup(backupSettings({database: source.url, store, key}), runtime());
});
afterEach(async () => {
  await source.drop();
  await target.drop();
  await store.dispose();
});

function settings(changes: Partial<RestoreSettings> = {}): RestoreSettings {
  return {
    store: store.settings,
    keys: keySettings(key),
    choice: {by: 'latest'},
    target: connectionTo(target.url),
    allowUnrestricted: false,
    safetyBackup: {compression: 'zstd', retention: defaultRetention},
    ...changes,
  };
}

const yes = async () => true;
const names = (database: TestDatabase) => database.query('SELECT name FROM patients');

describe('a restore over a database that is not empty', () => {
  it('backs it up first, and that backup brings it back', async () => {
    const {safetyBackup = ''} = await restore(settings(), yes, runtime());
    expect(await names(target)).toBe('from the backup');
    await restore(settings({choice: {by: 'key', key: safetyBackup}, safetyBackup: undefined}), yes, runtime());
    expect(await names(target)).toBe('newer');
  });

  it('never takes that backup for the newest one', async () => {
    const {key: first, safetyBackup} = await restore(settings(), yes, runtime());
    const latest = await findBackup(store.store, {by: 'latest'}, undefined);
    const atAnyTime = await findBackup(store.store, {by: 'time', at: new Date(Date.now() + 1e9)}, undefined);
    expect([latest.backup.key, atAnyTime.backup.key]).toEqual([first, first]);
    expect(safetyBackup).not.toBe(first);
  });

  it('keeps a backup that can be restored as the newest one, however many were taken before a restore', async () => {
    for (let times = 0; times < 2; times += 1) await restore(settings(), yes, runtime());
    const {decisions, deleted} = await prune(
      {
        store: store.settings,
        optionalKeys: keySettings(key),
        retention: {keepDays: 0, keepLast: 1},
        dryRun: false,
      },
      // A day later, so that none is young.
      runtime({now: () => new Date(Date.now() + 86_400_000)}),
    );
    expect(deleted).toHaveLength(1);
    expect(decisions.map(({action, because}) => [action, because])).toEqual([
      ['keep', `it is the newest pre-restore backup of ${target.name} that can be restored`],
      ['delete', 'it is older than 0 days'],
      ['keep', `it is the newest backup of ${source.name} that can be restored`],
    ]);
    expect((await restore(settings(), yes, runtime())).key).toBe(decisions[2]?.backup.key);
  });

  it('names such a backup when there is no other, and does not take it by itself', async () => {
    const {key: first, safetyBackup} = await restore(settings(), yes, runtime());
    for (const object of [first, `${first}.metadata.json`]) await store.store.delete(object);
    const error = await failureOf(restore(settings(), yes, runtime()));
    expect(error).toMatchObject({code: 'BACKUP_NOT_FOUND', exitCode: 4});
    expect(error.reason).toMatch(/holds no backup that is complete, but for those .*before a restore/);
    expect(error.hint).toContain(safetyBackup);
    const atATime = {by: 'time', at: new Date(Date.now() + 1e9)} as const;
    expect((await failureOf(findBackup(store.store, atATime, undefined))).hint).toContain(safetyBackup);
  });

  it('says which newer backups were passed over, because they are not whole', async () => {
    const newer = 'database-backups/2999-01-01T00-00-00-000Z/backup-2999-01-01T00-00-00-000Z.sql.gz.encrypted';
    await store.store.create(newer, Buffer.alloc(100), 'application/octet-stream');
    await store.store.create(`${newer}.metadata.json`, Buffer.from('{}'), 'application/json');
    const {key: first, warnings} = await restore(settings(), yes, runtime());
    await store.store.delete(newer);
    await store.store.delete(`${newer}.metadata.json`);
    expect(first).not.toBe(newer);
    expect(warnings.join()).toContain(`a newer backup is passed over, because it is damaged: ${newer}`);
  });

  it('restores nothing when that backup fails', async () => {
    const {choice} = settings();
    const key2 = (await findBackup(store.store, choice, undefined)).backup.key;
    // A table that its own owner may not read: pg_dump fails, the restore would not.
    await target.query(`CREATE ROLE weak_${target.name} LOGIN PASSWORD 'weak'; GRANT CREATE, CONNECT ON DATABASE ${target.name} TO weak_${target.name};
      GRANT ALL ON SCHEMA public TO weak_${target.name}`);
    try {
      const connection = connectionTo(postgres.url(target.name, {user: `weak_${target.name}`, password: 'weak'}));
      const error = await failureOf(restore(settings({target: connection}), yes, runtime()));
      expect(error).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3});
      expect(error.message).toContain('Nothing was restored');
      expect(error.hint).toContain('--no-safety-backup');
      expect(await names(target)).toBe('newer');
      expect(await store.keys()).toEqual([key2, `${key2}.metadata.json`]);
    } finally {
      await target.query(`DROP OWNED BY weak_${target.name}; DROP ROLE weak_${target.name}`);
    }
  });

  it('takes none of an empty database', async () => {
    const empty = await createDatabase(postgres);
    try {
      const result = await restore(settings({target: connectionTo(empty.url)}), yes, runtime());
      expect(result.safetyBackup).toBeUndefined();
      expect(await names(empty)).toBe('from the backup');
    } finally {
      await empty.drop();
    }
  });
});
