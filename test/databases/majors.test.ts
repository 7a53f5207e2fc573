/** Servers of every major that is in use, with the client that is installed here: what it can dump must come back. */
import {afterAll, describe, expect, it} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {createDatabase} from '../support/database.ts';
import {type FetchedPostgres, fetchPostgres} from '../support/postgres-majors.ts';
import {type PostgresServer, startPostgres} from '../support/postgres-server.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, failureOf, newKey, restoreSettings, runtime, testStore} from '../support/settings.ts';
import {bySize} from '../support/size.ts';
import {roundTrip} from './round-trip.ts';

const {postgres} = servers();
const client = postgres.major;
const running: {server: PostgresServer; fetched: FetchedPostgres}[] = [];

afterAll(async () => {
  for (const {server, fetched} of running) {
    await server.stop('immediate');
    await fetched.remove();
  }
});

/** What all majors have. */
const sql = `
  CREATE TABLE patients (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, born date, tags text[], extra jsonb);
  INSERT INTO patients (name, born, tags, extra) SELECT 'Patient ' || i, '1900-01-01'::date + i, ARRAY['a', i::text],
    jsonb_build_object('i', i) FROM generate_series(1, 3000) i;
  CREATE TABLE visits (id int, at timestamptz, amount numeric(10, 2) DEFAULT 1.5, twice numeric GENERATED ALWAYS AS (amount * 2) STORED)
    PARTITION BY RANGE (at);
  CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
  CREATE TABLE visits_new PARTITION OF visits DEFAULT;
  INSERT INTO visits (id, at, amount) SELECT i, '2019-12-01'::timestamptz + i * interval '1 hour', i FROM generate_series(1, 2000) i;
  CREATE VIEW old_patients AS SELECT id, name FROM patients WHERE born < '1902-01-01' ORDER BY name;
  CREATE MATERIALIZED VIEW by_year AS SELECT extract(year FROM born) AS year, count(*) FROM patients GROUP BY 1;
  CREATE FUNCTION age_of(p patients) RETURNS interval LANGUAGE sql STABLE AS $$ SELECT age(p.born) $$;
  CREATE TYPE mood AS ENUM ('ok', 'not'); CREATE TABLE moods (mood mood, during int4range, EXCLUDE USING gist (during WITH &&));
  INSERT INTO moods SELECT 'ok', int4range(i, i + 1) FROM generate_series(1, 50) i;
  SELECT lo_from_bytea(0, '\\x0a5c2e0a');`;

/** Undefined where the registry is not reached: a machine without it says so, and tries the others. */
async function serverOf(major: number): Promise<PostgresServer | undefined> {
  const fetched = await fetchPostgres(major);
  if (!fetched) return undefined;
  const server = await startPostgres({programs: fetched.programs});
  running.push({server, fetched});
  return server;
}

const older = [13, 14].filter((major) => major < client);
const newer = [16, 17, 18].filter((major) => major > client);

describe('a server that is older than the client', () => {
  it.each(bySize({short: older.slice(-1), full: older}))(
    '(PostgreSQL %i) is backed up, proved on its own major and on another, and restored into both',
    async (major) => {
      const server = await serverOf(major);
      if (!server) return console.warn(`PostgreSQL ${major} cannot be fetched here: not tried.`);
      const source = await createDatabase(server, {sql});
      await roundTrip(source, await createDatabase(server), server.adminUrl);
      recordTrial({area: 'Server majors', what: `PostgreSQL ${major}, client ${client}`, outcome: 'all digests equal'});
      const across = await roundTrip(source, await createDatabase(postgres), postgres.adminUrl);
      const note = across.verified.steps.find(({id}) => id === 'restore')?.note ?? '';
      expect(note).toContain('the schema text');
      recordTrial({
        area: 'Server majors',
        what: `PostgreSQL ${major} restored into ${client}, and proved there`,
        outcome: 'every row equal, every object there',
      });
    },
    300_000,
  );

  it.each(bySize({short: older.slice(-1), full: older}))(
    '(PostgreSQL %i) as the target of a newer backup is restored into, or refuses and stays as it was',
    async (major) => {
      const server = running.find((one) => one.fetched.programs.major === major)?.server;
      if (!server) return console.warn(`PostgreSQL ${major} cannot be fetched here: not tried.`);
      const store = await testStore('directory');
      const key = newKey();
      const source = await createDatabase(postgres, {
        sql: `${sql} CREATE TABLE newer (a numeric(3, -2)); INSERT INTO newer VALUES (12300);
          CREATE VIEW invoking WITH (security_invoker) AS SELECT 1;`,
      });
      await backup(backupSettings({database: source.url, store, key}), runtime());
      const target = await createDatabase(server, {sql: 'CREATE TABLE old (a int); INSERT INTO old VALUES (1)'});
      const settings = restoreSettings({target: target.url, store, key});
      const restoreWith = (allowUnfit: boolean) =>
        failureOf(restore({...settings, allowUnfit}, async () => true, runtime()));
      expect(await restoreWith(false)).toMatchObject({code: 'REFUSED', exitCode: 7});
      expect(await restoreWith(true)).toMatchObject({exitCode: 3});
      expect(await target.query('SELECT a FROM old')).toBe('1');
      expect(await target.query("SELECT count(*) FROM pg_class WHERE relname IN ('newer', 'patients')")).toBe('0');
      recordTrial({
        area: 'Server majors',
        what: `a backup of ${client} restored into PostgreSQL ${major}, which does not know all of it`,
        outcome: 'refused (exit 3), the target as it was',
      });
      await store.dispose();
    },
    300_000,
  );
});

describe('a server that is newer than the client', () => {
  it.each(bySize({short: newer.slice(0, 1), full: newer}))(
    '(PostgreSQL %i) is refused with the version that is missing, and nothing is stored',
    async (major) => {
      const server = await serverOf(major);
      if (!server) return console.warn(`PostgreSQL ${major} cannot be fetched here: not tried.`);
      const store = await testStore('directory');
      const source = await createDatabase(server, {sql});
      const error = await failureOf(backup(backupSettings({database: source.url, store, key: newKey()}), runtime()));
      expect(error).toMatchObject({code: 'POSTGRES_TOOLS_MISSING', exitCode: 3});
      expect(`${error.message} ${error.reason} ${error.hint}`).toContain(String(major));
      expect(await store.keys()).toEqual([]);
      await store.dispose();
      recordTrial({
        area: 'Server majors',
        what: `PostgreSQL ${major}, client ${client}`,
        outcome: 'refused: the client is too old (exit 3), nothing stored',
      });
    },
    300_000,
  );
});
