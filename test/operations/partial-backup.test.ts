/** Backups without the rows of some tables: what they are taken for, and what is said of them. */
import {afterEach, beforeEach, describe, expect, it} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {list} from '../../src/lib/operations/list.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {restoreSwap} from '../../src/lib/operations/restore-swap.ts';
import {status} from '../../src/lib/operations/status.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {overwriteText} from '../../src/ui/confirm.ts';
import {listTable} from '../../src/ui/summary.ts';
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
const sql = `
  CREATE TABLE patients (id int PRIMARY KEY); INSERT INTO patients VALUES (1), (2);
  CREATE TABLE appointments (id int); INSERT INTO appointments SELECT generate_series(1, 30);
  CREATE TABLE "Audit log" (id int, patient int REFERENCES patients); INSERT INTO "Audit log" VALUES (1, 1);
  CREATE TABLE events (at date, id int) PARTITION BY RANGE (at);
  CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  INSERT INTO events VALUES ('2026-02-03', 1);`;
let store: TestStore;
let source: TestDatabase;
let target: TestDatabase;

beforeEach(async () => {
  store = await testStore('directory');
  source = await createDatabase(postgres, {sql});
  target = await createDatabase(postgres, {sql: `${sql} CREATE TABLE "of somebody else" ()`});
});
afterEach(async () => {
  await source.drop();
  await target.drop();
  await store.dispose();
});

const yes = async () => true;
const take = (excludeTableData: string[], changes = {}) =>
  backup(backupSettings({database: source.url, store, key}, {excludeTableData, ...changes}), runtime());
const settings = (changes = {}) => restoreSettings({target: target.url, store, key}, changes);

describe('a restore of a backup without the rows of some tables', () => {
  it('does not say of tables that it made again, empty, that they are as they were', async () => {
    await take(['appointments', '"Audit log"', 'events*']);
    const {warnings} = await restore(settings(), yes, runtime());
    expect(await target.query('SELECT count(*) FROM appointments')).toBe('0');
    expect(warnings.filter((text) => text.includes('as they were'))).toEqual([
      'the target also holds tables that are not in the backup, as they were: public."of somebody else"',
    ]);
  });

  it('claims nothing of the kind of a database that is swapped in', async () => {
    await take(['appointments', 'events*']);
    const {warnings, swap} = await restoreSwap(settings(), yes, runtime());
    await postgresDrop(swap.oldDatabase);
    expect(warnings.join()).not.toContain('as they were');
  });

  it('takes it as the newest one, and says what it lacks and which full one there is', async () => {
    const {key: full} = await take([]);
    const {key: partial} = await take(['appointments', 'events*']);
    const lacking = `the backup ${partial} was taken without the rows of: appointments, events* (--exclude-table-data)`;
    const latest = await restore(settings(), yes, runtime());
    expect(latest.key).toBe(partial);
    expect(latest.warnings).toContain(`${lacking}; the newest full backup is ${full}`);
    const named = await restore(settings({choice: {by: 'key', key: partial}}), yes, runtime());
    expect(named.warnings).toContain(lacking);
    const other = await restore(settings({choice: {by: 'key', key: full}}), yes, runtime());
    expect(other.warnings.join()).not.toContain('without the rows');
  });

  it('names no full one of another key or database, nor one that was taken before a restore', async () => {
    await take([], {keys: keySettings(newKey())});
    await take([], {label: 'pre-restore'});
    await backup(backupSettings({database: target.url, store, key}), runtime());
    const {key: partial} = await take(['appointments']);
    const {warnings} = await restore(settings(), yes, runtime());
    expect(warnings).toContain(
      `the backup ${partial} was taken without the rows of: appointments (--exclude-table-data)`,
    );
  });
});

it('is said by list, status, verify and the question before a restore', async () => {
  const {key: partial} = await take(['appointments', 'events*']);
  const lacking = 'without the rows of: appointments, events*';
  const lookUp = {store: store.settings, optionalKeys: keySettings(key)};
  const backups = await list(lookUp, runtime());
  const [listed] = backups;
  expect(listed?.excludedTableData).toEqual(['appointments', 'events*']);
  expect(listTable(backups, 500)).toContain(lacking);
  const policy = {maxAgeMs: 1e9, maxUnverifiedMs: 1e9, retentionDays: 30};
  const {findings} = await status({...lookUp, policy, formatAge: () => 'now'}, runtime());
  expect(findings[0]).toMatchObject({id: 'newest', isGood: true, text: expect.stringContaining(`now, ${lacking}`)});
  const {warnings, isProved} = await verify(verifySettings({scratch: postgres.adminUrl, store, key}), runtime());
  expect(isProved).toBe(true);
  expect(warnings).toContain(`the backup ${partial} was taken ${lacking} (--exclude-table-data)`);
  let question = '';
  const show = async (...[facts, taken, overwritten]: Parameters<Parameters<typeof restore>[1]>) => {
    question = overwriteText(facts, taken, overwritten, new Date());
    return true;
  };
  await restore(settings(), show, runtime());
  expect(question).toContain(`Rows:      ${lacking}`);
});

describe('a backup warns of foreign keys that stop its restore', () => {
  const brokenBy = async (...patterns: string[]) =>
    (await take(patterns)).warnings.filter((text) => text.includes('Foreign keys')).join();

  it('when rows are kept that may refer to rows that are left out', async () => {
    const warning = await brokenBy('patients');
    expect(warning).toContain('Foreign keys: Audit log_patient_fkey of public."Audit log" refers to public.patients. ');
    await expect(restore(settings(), yes, runtime())).rejects.toMatchObject({code: 'RESTORE_FAILED'});
  });

  it('and not when the rows of both are left out, of the referring one, or of neither', async () => {
    expect(await brokenBy('patients', '"Audit log"')).toBe('');
    expect(await brokenBy('"Audit log"')).toBe('');
    expect(await brokenBy('appointments')).toBe('');
    await source.query('DELETE FROM "Audit log"');
    expect(await brokenBy('patients')).toBe('');
  });

  it('and not of one that is not checked, neither here nor by a restore', async () => {
    await source.query(`ALTER TABLE "Audit log" DROP CONSTRAINT "Audit log_patient_fkey",
      ADD CONSTRAINT unchecked FOREIGN KEY (patient) REFERENCES patients NOT VALID`);
    await target.query('DROP TABLE "Audit log"');
    expect(await brokenBy('patients')).toBe('');
    await restore(settings(), yes, runtime());
  });

  it('of partitioned tables, by the rows of their partitions', async () => {
    await source.query(`
      ALTER TABLE events ADD PRIMARY KEY (at, id);
      CREATE TABLE notes (at date, id int, FOREIGN KEY (at, id) REFERENCES events) PARTITION BY HASH (id);
      CREATE TABLE notes_0 PARTITION OF notes FOR VALUES WITH (MODULUS 1, REMAINDER 0);
      INSERT INTO notes VALUES ('2026-02-03', 1)`);
    expect(await brokenBy('events*')).toContain('notes_at_id_fkey of public.notes refers to public.events');
    expect(await brokenBy('notes*')).toBe('');
    expect(await brokenBy('notes*', 'events*')).toBe('');
  });

  it('of partitions whose rows are dumped with their table', async () => {
    await source.query(`
      CREATE TYPE kind AS ENUM ('visit', 'call');
      CREATE TABLE kinds (kind kind PRIMARY KEY) PARTITION BY HASH (kind);
      CREATE TABLE kinds_0 PARTITION OF kinds FOR VALUES WITH (MODULUS 1, REMAINDER 0);
      INSERT INTO kinds VALUES ('visit'), ('call');
      CREATE TABLE calls (kind kind REFERENCES kinds); INSERT INTO calls VALUES ('call')`);
    expect(await brokenBy('appointments')).toBe('');
    expect(await brokenBy('kinds*')).toContain('calls_kind_fkey of public.calls refers to public.kinds');
  });
});

async function postgresDrop(name: string): Promise<void> {
  await source.query(`DROP DATABASE "${name}" WITH (FORCE)`);
}
