import {randomBytes} from 'node:crypto';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import type {Observer} from '../../src/lib/observer.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {list} from '../../src/lib/operations/list.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {guardedDatabaseSql, guardedSql, privilegesQuery} from '../support/privileges.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  connectionTo,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';

const {postgres} = servers();
const key = newKey();
const role = `owner_${randomBytes(4).toString('hex')}`;
let store: TestStore;
let source: TestDatabase;
let target: TestDatabase;

beforeAll(async () => {
  store = await testStore('directory');
  source = await createDatabase(postgres);
  target = await createDatabase(postgres);
  await source.query(`CREATE ROLE "${role}" LOGIN PASSWORD 'owner'`);
  for (const database of [source, target]) await database.query(`ALTER DATABASE "${database.name}" OWNER TO "${role}"`);
});
afterAll(async () => {
  await source.drop();
  await target.query(`DROP OWNED BY "${role}"`);
  await target.drop();
  await postgresQuery(`DROP ROLE "${role}"`);
  await store.dispose();
});

async function postgresQuery(sql: string): Promise<void> {
  const admin = await createDatabase(postgres);
  try {
    await admin.query(sql);
  } finally {
    await admin.drop();
  }
}

describe('an owner that is no superuser, as on a managed server', () => {
  it('restores tables with forced row-level security, and is told which rows it cannot count', async () => {
    await source.query(`
      CREATE TABLE open_table AS SELECT generate_series(1, 10) AS id;
      CREATE TABLE secret_table AS SELECT generate_series(1, 10) AS id;
      ALTER TABLE secret_table ENABLE ROW LEVEL SECURITY; ALTER TABLE secret_table FORCE ROW LEVEL SECURITY;
      CREATE POLICY few ON secret_table USING (id < 3)`);
    const {key: name} = await backup(backupSettings({database: source.url, store, key}), runtime());
    const result = await restore(
      {
        store: store.settings,
        keys: keySettings(key),
        choice: {by: 'key', key: name},
        target: connectionTo(postgres.url(target.name, {user: role, password: 'owner'})),
        allowUnrestricted: false,
      },
      async () => true,
      runtime(),
    );
    expect(result.uncountedTables).toEqual(['public.secret_table']);
    expect(await target.query('SELECT count(*) FROM secret_table')).toBe('10');
  });

  it('is told so after an interruption of ANALYZE, too', async () => {
    const controller = new AbortController();
    const observer: Observer = (event) => {
      if (event.type === 'started' && event.step === 'analyze') controller.abort();
    };
    const result = await restore(
      restoreSettings({target: postgres.url(target.name, {user: role, password: 'owner'}), store, key}),
      async () => true,
      runtime({observer, signal: controller.signal}),
    );
    expect(result.uncountedTables).toEqual(['public.secret_table']);
    expect(result.warnings).toContainEqual(expect.stringContaining('ANALYZE was not run to its end'));
  });

  it('is warned of tables in the target that the backup does not hold', async () => {
    await target.query('CREATE TABLE newer (a int)');
    const {warnings} = await restore(
      {
        store: store.settings,
        keys: keySettings(key),
        choice: {by: 'latest'},
        target: connectionTo(target.url),
        allowUnrestricted: false,
      },
      async () => true,
      runtime(),
    );
    expect(warnings.join()).toContain('tables that are not in the backup, as they were: public.newer');
  });
});

describe('owners and privileges after a restore over a database that is not empty', () => {
  const reader = `reader_${randomBytes(4).toString('hex')}`;
  let place: TestStore;
  let guarded: TestDatabase;

  beforeAll(async () => {
    place = await testStore('directory');
    guarded = await createDatabase(postgres);
    await guarded.query(`CREATE ROLE ${reader}`);
    const roles = {owner: `"${role}"`, other: reader, reader};
    await guarded.query(guardedSql(roles));
    await guarded.query(guardedDatabaseSql(roles));
    await guarded.query('CREATE TABLE public.plain (a int)');
    await backup(backupSettings({database: guarded.url, store: place, key}), runtime());
  });
  afterAll(async () => {
    await guarded.drop();
    await postgresQuery(`DROP ROLE ${reader}`);
    await place.dispose();
  });

  const restoring = (run = runtime(), target = guarded.url) =>
    restore(restoreSettings({target, store: place, key}), async () => true, run);

  it('are as they were when the SQL that is listed is run, and what the backup does not hold keeps its own', async () => {
    await guarded.query(
      `CREATE TABLE public.newer (a int); ALTER TABLE public.newer OWNER TO ${reader}; CREATE PUBLICATION warehouse FOR TABLE plain`,
    );
    const before = await guarded.query(privilegesQuery);
    const {leftOut, warnings} = await restoring();
    expect(warnings.join('\n')).toMatch(
      /^a backup holds no owners: what belongs to \S+ and is restored \(schema guarded/,
    );
    expect(warnings.join('\n')).toContain('a backup holds no grants');
    expect(await guarded.query(privilegesQuery)).not.toBe(before);
    const listed = leftOut.map(({sql}) => sql).join('\n');
    expect(listed).not.toContain('newer');
    expect(listed).toContain('ALTER PUBLICATION warehouse ADD TABLE ONLY public.plain;');
    await guarded.query(listed);
    expect(await guarded.query(privilegesQuery)).toBe(before);
    await guarded.query('DROP PUBLICATION warehouse; DROP TABLE newer');
  });

  it('are listed all the same when the restore is interrupted after its commit', async () => {
    const before = await guarded.query(privilegesQuery);
    const controller = new AbortController();
    const {leftOut, warnings} = await restoring(
      runtime({
        signal: controller.signal,
        observer: (event) => {
          if (event.type === 'started' && event.step === 'analyze') controller.abort(new Error('stop'));
        },
      }),
    );
    expect(warnings.join('\n')).toContain('what became of owners and grants could not be asked for');
    await guarded.query(leftOut.map(({sql}) => sql).join('\n'));
    expect(await guarded.query(privilegesQuery)).toBe(before);
  });
});

describe('a database that lost most of its rows', () => {
  it('is unusual night after night, and old backups are left alone', async () => {
    await source.query('DELETE FROM open_table WHERE id > 1; DELETE FROM secret_table WHERE id > 1');
    for (const night of [1, 2]) {
      const result = await backup(backupSettings({database: source.url, store, key}), runtime());
      expect({night, isSuspicious: result.isSuspicious, pruned: result.pruned}).toEqual({
        night,
        isSuspicious: true,
        pruned: undefined,
      });
      expect(result.warnings.join()).toContain('is it the right one?');
    }
    const backups = await list({store: store.settings, optionalKeys: keySettings(key)}, {});
    expect(backups.every(({state}) => state === 'complete')).toBe(true);
  });
});
