/** What is backed up comes back: every kind of database, both codecs, both kinds of store. */
import {randomBytes} from 'node:crypto';
import {PassThrough} from 'node:stream';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import type {CompressionName} from '../../src/lib/config.ts';
import {type BackupResult, backup} from '../../src/lib/operations/backup.ts';
import {extract} from '../../src/lib/operations/extract.ts';
import {list} from '../../src/lib/operations/list.ts';
import {type RestoreResult, restore} from '../../src/lib/operations/restore.ts';
import {clinicSql} from '../support/clinic.ts';
import type {DatabaseOptions, TestDatabase} from '../support/database.ts';
import {contentsOf, rowDigests, runningClients} from '../support/dumps.ts';
import {createDatabase, runSql} from '../support/postgres-server.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type StoreKind,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {manifestOf} from '../support/tampering.ts';

const {postgres} = servers();
const key = newKey();
const yes = async () => true;
const unasked = () => Promise.reject(new Error('nobody was to be asked'));

let place: TestStore;
beforeAll(async () => {
  place = await testStore('directory');
});
afterAll(async () => {
  expect(await runningClients()).toEqual([]);
  await place.dispose();
});

interface RoundTrip {
  source: TestDatabase;
  target: TestDatabase;
  taken: BackupResult;
  restored: RestoreResult;
}

/** Backs a new database up and restores it into another, and holds both against each other and against the manifest. */
async function roundTrip(
  options: DatabaseOptions,
  targetOptions: DatabaseOptions = options.encoding ? {encoding: options.encoding} : {},
): Promise<RoundTrip> {
  const own = await testStore('directory');
  const [source, target] = await Promise.all([
    createDatabase(postgres, options),
    createDatabase(postgres, targetOptions),
  ]);
  const taken = await backup(backupSettings({database: source.url, store: own, key}), runtime());
  const restored = await restore(
    restoreSettings({target: target.url, store: own, key}, {choice: {by: 'key', key: taken.key}}),
    unasked,
    runtime(),
  );
  expect(await rowDigests(target)).toEqual(await rowDigests(source));
  const {contents, encoding} = await manifestOf(own.store, taken.key, key);
  const [before, after] = await Promise.all([contentsOf(source.url, encoding), contentsOf(target.url, encoding)]);
  expect(before).toEqual(contents);
  expect(after).toEqual(contents);
  expect(restored).toMatchObject({key: taken.key, tables: taken.tables, rows: taken.rows, warnings: []});
  await own.dispose();
  return {source, target, taken, restored};
}

async function drop({source, target}: RoundTrip): Promise<void> {
  await Promise.all([source.drop(), target.drop()]);
}

describe('the clinic', () => {
  let clinic: TestDatabase;
  beforeAll(async () => {
    clinic = await createDatabase(postgres, {sql: clinicSql({patients: 300})});
  });
  afterAll(() => clinic.drop());

  const combinations: [StoreKind, CompressionName][] = [
    ['directory', 'gzip'],
    ['directory', 'zstd'],
    ['s3', 'gzip'],
    ['s3', 'zstd'],
  ];
  test.each(combinations)('goes into a store (%s, %s), is listed, and comes back', async (kind, compression) => {
    const own = await testStore(kind);
    const target = await createDatabase(postgres);
    const startedAt = new Date();
    const events: string[] = [];
    const taken = await backup(
      backupSettings({database: clinic.url, store: own, key}, {compression, label: 'pre-migration', hold: true}),
      runtime({
        now: () => startedAt,
        observer: (event) => 'step' in event && events.push(`${event.type} ${event.step}`),
      }),
    );

    const timestamp = startedAt.toISOString().replaceAll(/[:.]/g, '-');
    const suffix = compression === 'gzip' ? 'gz' : 'zst';
    expect(taken.key).toBe(`database-backups/${timestamp}/backup-${timestamp}.sql.${suffix}.encrypted`);
    expect(await own.keys()).toEqual([taken.key, `${taken.key}.metadata.json`]);
    expect(await own.unfinished()).toEqual([]);
    expect(taken).toMatchObject({database: clinic.name, warnings: [], isHeld: true, label: 'pre-migration'});
    expect(taken.rows).toBeGreaterThan(4000);
    expect((await contentOf(own.store, taken.key)).length).toBe(taken.sizeBytes);
    expect(taken.compressedBytes).toBeLessThan(taken.dumpBytes / 2);
    for (const step of ['dump', 'compress', 'upload', 'publish', 'delete', 'uploads']) {
      expect(events).toContain(`finished ${step}`);
    }

    const [listed, ...others] = await list({store: own.settings, optionalKeys: keySettings(key)}, runtime());
    expect(others).toEqual([]);
    expect(listed).toMatchObject({
      key: taken.key,
      startedAt,
      compression,
      state: 'complete',
      seal: 'verified',
      isHeld: true,
      label: 'pre-migration',
      database: clinic.name,
      tables: taken.tables,
      rows: taken.rows,
      sizeBytes: taken.sizeBytes,
    });

    const restored = await restore(restoreSettings({target: target.url, store: own, key}), unasked, runtime());
    expect(restored).toMatchObject({
      key: taken.key,
      recoveryPoint: startedAt,
      tables: taken.tables,
      rows: taken.rows,
      dumpBytes: taken.dumpBytes,
      uncountedTables: [],
      warnings: [],
    });
    expect(await rowDigests(target)).toEqual(await rowDigests(clinic));
    expect(await target.query("SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'public'")).toBe('t');

    const {contents} = await manifestOf(own.store, taken.key, key);
    expect(await contentsOf(clinic.url)).toEqual(contents);
    const copy = await contentsOf(target.url);
    expect(copy.schema).toEqual(contents.schema);
    const figures = ({table, columns, rows, bytes}: (typeof contents.tables)[number]) => ({
      table,
      columns,
      rows,
      bytes,
    });
    // Not the digests: rows that were updated lie in other places in the copy.
    expect(copy.tables.map(figures)).toEqual(contents.tables.map(figures));
    await target.drop();
    await own.dispose();
  });

  test('stores nothing that can be read', async () => {
    const own = await testStore('directory');
    const taken = await backup(backupSettings({database: clinic.url, store: own, key}), runtime());
    const body = await contentOf(own.store, taken.key);
    const manifest = String(await contentOf(own.store, `${taken.key}.metadata.json`));
    for (const text of ['Müller', 'penicillin', 'COPY', 'patients', key]) expect(body.includes(text)).toBe(false);
    expect(body.includes(Buffer.from(key, 'hex'))).toBe(false);
    for (const text of ['Müller', 'penicillin', postgres.password, key, '127.0.0.1', 'postgresql:']) {
      expect(manifest).not.toContain(text);
    }
    // gzip's own mark is at the start of a gzip file that was not encrypted.
    expect(body.subarray(0, 2)).not.toEqual(Buffer.from([0x1f, 0x8b]));
    await own.dispose();
  });

  test('is opened by the published tools alone: the dump in it is valid gzip of what pg_dump writes', async () => {
    const own = await testStore('directory');
    await backup(backupSettings({database: clinic.url, store: own, key}), runtime());
    const output = new PassThrough();
    const chunks: Buffer[] = [];
    output.on('data', (chunk: Buffer) => chunks.push(chunk));
    await extract({store: own.settings, keys: keySettings(key), choice: {by: 'latest'}, output}, runtime());
    const plain = await execa(
      `${postgres.binDirectory}/pg_dump`,
      ['--clean', '--if-exists', '--no-owner', '--no-privileges', '-h', '127.0.0.1', '-p', String(postgres.port)],
      {
        env: {PGUSER: postgres.user, PGPASSWORD: postgres.password, PGDATABASE: clinic.name, PGTZ: 'UTC'},
        stripFinalNewline: false,
      },
    );
    const withoutToken = (text: string) => text.replaceAll(/^\\(un)?restrict \w+$/gm, '');
    expect(withoutToken(String(Buffer.concat(chunks)))).toBe(withoutToken(plain.stdout));
    await own.dispose();
  });

  test('without the rows of a table, when they are to be left out', async () => {
    const own = await testStore('directory');
    const target = await createDatabase(postgres);
    const settings = backupSettings(
      {database: clinic.url, store: own, key},
      {excludeTableData: ['audit_log*', 'billing.*']},
    );
    const taken = await backup(settings, runtime());
    expect((await manifestOf(own.store, taken.key, key)).excludedTableData).toEqual(['audit_log*', 'billing.*']);
    await restore(restoreSettings({target: target.url, store: own, key}), unasked, runtime());
    expect(await target.query('SELECT count(*) FROM audit_log')).toBe('0');
    expect(await target.query('SELECT count(*) FROM billing.invoices')).toBe('0');
    expect(await target.query('SELECT count(*) FROM patients')).toBe('300');
    await target.drop();
    await own.dispose();
  });
});

describe('a database', () => {
  test('with tables of every odd kind', async () => {
    const trip = await roundTrip({
      sql: `
        CREATE SCHEMA "Größe"; CREATE SCHEMA "with ""quotes"" and space"; CREATE SCHEMA "select";
        CREATE TABLE "Größe"."Überschrift" ("Schlüssel" int PRIMARY KEY, "日本" text);
        INSERT INTO "Größe"."Überschrift" VALUES (1, 'ß'), (2, E'tab\\tbreak\\nbackslash\\\\ \\\\.');
        CREATE TABLE "with ""quotes"" and space"."a ""b"" c" ("x ""y"", z" int);
        INSERT INTO "with ""quotes"" and space"."a ""b"" c" SELECT generate_series(1, 5);
        CREATE TABLE "select"."from" ("where" int, "ORDER" int); INSERT INTO "select"."from" VALUES (1, 2);
        CREATE TABLE "line
break" (a int); INSERT INTO "line
break" SELECT generate_series(1, 7);
        CREATE TABLE "COPY x FROM stdin;
\\." ("\\.
" text); INSERT INTO "COPY x FROM stdin;
\\." VALUES (E'\\\\.\\n'), (E'a\\n\\\\.\\nb');
        CREATE TABLE "semi;colon--and'apostrophe$1$" (a text); INSERT INTO "semi;colon--and'apostrophe$1$" VALUES ('x');
        CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
        CREATE TABLE empty_one (a int, b text);
        CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c text DEFAULT 'd');
        INSERT INTO generated (a) SELECT generate_series(1, 10);
        CREATE TABLE only_generated (b int GENERATED ALWAYS AS (1 + 1) STORED); INSERT INTO only_generated DEFAULT VALUES;
        CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
        CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY LIST (v);
        CREATE TABLE parted_2_x PARTITION OF parted_2 DEFAULT;
        INSERT INTO parted SELECT n, 'v' || n FROM generate_series(0, 19) n;
        CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
        INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3), (4, 5);
        CREATE TABLE "UPPER" (a bytea, b jsonb, c float8, d money, e interval, f timestamptz, g numeric[]);
        INSERT INTO "UPPER" VALUES ('\\x00ff5c0a', '{"a": [1, "\\u00fc"]}', 'NaN', 12.5, '1 mon 2 days', 'infinity', '{1.5,NULL}');
        SELECT lo_from_bytea(0, '\\x0001020a5c2e0a'::bytea), lo_from_bytea(0, ''::bytea);
      `,
    });
    expect(trip.taken.rows).toBe(55);
    await drop(trip);
  });

  test.each(['UTF8', 'SQL_ASCII'])(
    'gets planner statistics of every table, partition and view of rows (%s)',
    async (encoding) => {
      const one = (name: string) => `CREATE TABLE ${name} AS SELECT n AS a, n % 7 AS b FROM generate_series(1, 100) n;`;
      const {source, target} = await roundTrip({
        encoding,
        sql: `
        ${Array.from({length: 9}, (_, index) => one(`t${index}`)).join('\n')}
        ${one('"an ""odd"" näme; --"')}
        CREATE MATERIALIZED VIEW kept AS SELECT * FROM t1;
        CREATE TABLE years (a int, b int) PARTITION BY LIST (b);
        CREATE TABLE year_1 PARTITION OF years FOR VALUES IN (1);
        CREATE TABLE year_2 PARTITION OF years FOR VALUES IN (2) PARTITION BY RANGE (a);
        CREATE TABLE year_2_low PARTITION OF year_2 FOR VALUES FROM (0) TO (50);
        CREATE TABLE year_2_high PARTITION OF year_2 FOR VALUES FROM (50) TO (1000);
        INSERT INTO years SELECT n, n % 2 + 1 FROM generate_series(1, 200) n WHERE n < 1000;
        ANALYZE;`,
      });
      const known = `SELECT string_agg(s::text, ', ')
      FROM (SELECT tablename, attname, inherited FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2, 3) AS s`;
      expect(await target.query(known)).toBe(await source.query(known));
      expect(await target.query(known)).toContain('(year_2,a,t)');
      await source.drop();
      await target.drop();
    },
  );

  test('gets them also with a role that may have one session at a time', async () => {
    const role = `loma_${randomBytes(4).toString('hex')}`;
    const own = await testStore('directory');
    const [source, target] = await Promise.all([
      createDatabase(postgres, {sql: 'CREATE TABLE a AS SELECT generate_series(1, 100) AS n'}),
      createDatabase(postgres),
    ]);
    await runSql(
      postgres.adminUrl,
      `CREATE ROLE ${role} LOGIN PASSWORD 'pw' CONNECTION LIMIT 1; ALTER DATABASE "${target.name}" OWNER TO ${role}`,
    );
    await target.query(`ALTER SCHEMA public OWNER TO ${role}`);
    await backup(backupSettings({database: source.url, store: own, key}), runtime());
    const url = postgres.url(target.name, {user: role, password: 'pw'});
    const {warnings} = await restore(restoreSettings({target: url, store: own, key}), unasked, runtime());
    expect(warnings).toEqual([]);
    expect(await target.query(`SELECT count(*) FROM pg_stats WHERE tablename = 'a'`)).toBe('1');
    await target.drop();
    await source.drop();
    await runSql(postgres.adminUrl, `DROP ROLE ${role}`);
    await own.dispose();
  });

  test('without tables, but with a function: warned of, and nothing pruned', async () => {
    const own = await testStore('directory');
    const [full, bare] = await Promise.all([
      createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT 1 AS n'}),
      createDatabase(postgres, {sql: 'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$SELECT 1$$'}),
    ]);
    const old = await backup(
      backupSettings({database: full.url, store: own, key}),
      runtime({now: () => new Date('2020-01-01T00:00:00Z')}),
    );
    const policy = {retention: {keepDays: 1, keepLast: 1}};
    for (const database of [bare, await createDatabase(postgres)]) {
      const taken = await backup(backupSettings({database: database.url, store: own, key}, policy), runtime());
      expect(taken.warnings.join()).toMatch(/holds no tables: is it the right one/);
      expect(taken.pruned).toBeUndefined();
      expect(taken.tables).toBe(0);
      const target = await createDatabase(postgres);
      const choice = {by: 'key', key: taken.key} as const;
      const settings = restoreSettings({target: target.url, store: own, key}, {choice});
      expect(await restore(settings, unasked, runtime())).toMatchObject({tables: 0, rows: 0});
      expect(await contentsOf(target.url)).toEqual(await contentsOf(database.url));
      await target.drop();
      await database.drop();
    }
    expect(await own.keys()).toContain(old.key);
    // The right one prunes.
    const good = await backup(backupSettings({database: full.url, store: own, key}, policy), runtime());
    expect(good.pruned?.deleted).toContain(old.key);
    expect(await own.keys()).not.toContain(old.key);
    await full.drop();
    await own.dispose();
  });

  // Collations of the ICU for a whole database, and their versions, are there since 15.
  (postgres.major >= 15 ? test : test.skip)('that pg_dump warns of is good, and the warning is told', async () => {
    const own = await testStore('directory');
    const database = await createDatabase(postgres, {icuLocale: 'en', sql: 'CREATE TABLE t AS SELECT 1 AS n'});
    await database.query(`UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()`);
    const told: string[] = [];
    const settings = backupSettings({database: database.url, store: own, key});
    const {warnings, rows} = await backup(
      settings,
      runtime({observer: (event) => event.type === 'warning' && void told.push(event.message)}),
    );
    expect({warnings, rows}).toEqual({
      warnings: [`pg_dump: database "${database.name}" has a collation version mismatch`],
      rows: 1,
    });
    expect(told).toEqual(warnings);
    await database.drop();
    await own.dispose();
  });

  test('that lost most of its rows is warned of, and nothing is pruned', async () => {
    const own = await testStore('directory');
    const database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 100) AS n'});
    const settings = backupSettings({database: database.url, store: own, key}, {retention: {keepDays: 1, keepLast: 1}});
    const old = await backup(settings, runtime({now: () => new Date('2020-01-01T00:00:00Z')}));
    await database.query('DELETE FROM t WHERE n > 10');
    const taken = await backup(settings, runtime());
    expect(taken.warnings.join()).toMatch(new RegExp(`held 100 in an earlier backup \\(${old.key}\\)`));
    expect(taken.pruned).toBeUndefined();
    expect(await own.keys()).toContain(old.key);
    await database.drop();
    await own.dispose();
  });

  test.each([
    ['LATIN1', "'Grüße aus Köln'"],
    ['SQL_ASCII', "'Grüße aus Köln'"],
    ['EUC_JP', "'日本語'"],
  ])('in the encoding %s, with a name that is not ASCII', async (encoding, text) => {
    const name = encoding === 'EUC_JP' ? '患者' : 'Größe';
    const trip = await roundTrip({
      encoding,
      sql: `CREATE TABLE "${name}" ("${name}" text); INSERT INTO "${name}" VALUES (${text}), ('a'), (NULL);`,
    });
    expect(await trip.target.query(`SELECT count(*) FROM "${name}" WHERE "${name}" = ${text}`)).toBe('1');
    // A LATIN1 database often has to go to a new server, which has UTF8 alone.
    if (encoding !== 'SQL_ASCII') {
      const modern = await createDatabase(postgres);
      const own = await testStore('directory');
      await backup(backupSettings({database: trip.source.url, store: own, key}), runtime());
      const settings = restoreSettings({target: modern.url, store: own, key});
      await restore(settings, unasked, runtime());
      expect(await modern.query(`SELECT count(*) FROM "${name}" WHERE "${name}" = ${text}`)).toBe('1');
      await modern.drop();
      await own.dispose();
    }
    await drop(trip);
  });

  test('in SQL_ASCII, with bytes that are no UTF-8', async () => {
    const trip = await roundTrip({
      encoding: 'SQL_ASCII',
      sql: `CREATE TABLE t (a text); INSERT INTO t VALUES (convert_from('\\xe4f6fc'::bytea, 'SQL_ASCII')), ('ascii');`,
    });
    expect(await trip.target.query("SELECT count(*) FROM t WHERE a::bytea = '\\xe4f6fc'")).toBe('1');
    await drop(trip);
  });

  test('with row-level security: all rows for a superuser, and no silent gap for others', async () => {
    const trip = await roundTrip({
      sql: `CREATE TABLE secret (owner text, v int); INSERT INTO secret SELECT 'other', generate_series(1, 5);
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON secret USING (owner = current_user);`,
    });
    expect(await trip.target.query('SELECT count(*) FROM secret')).toBe('5');
    await drop(trip);
  });

  test('with settings of its own, which change how values are written', async () => {
    const sql = `CREATE TABLE t (a timestamptz, b bytea, c money, d interval, e float8);
      INSERT INTO t VALUES ('2024-07-01 12:00:00+00', '\\x00ff', 1234.5, '1 day 02:03:04', 0.1);
      DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database());
        EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
        EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database());
        EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database());
        EXECUTE format('ALTER DATABASE %I SET search_path = ''nowhere''', current_database());
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = off', current_database());
      END $$;`;
    await drop(await roundTrip({sql}));
  });
});

describe('the connection URL', () => {
  let database: TestDatabase;
  const role = `odd ${randomBytes(3).toString('hex')}`;
  const password = 'p@:/?#%ss "w\'ord\\$ü';
  beforeAll(async () => {
    database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 3) AS n'});
    const literal = password.replaceAll("'", "''");
    await runSql(postgres.adminUrl, `CREATE ROLE "${role}" LOGIN SUPERUSER PASSWORD '${literal}'`);
  });
  afterAll(async () => {
    await database.drop();
    await runSql(postgres.adminUrl, `DROP ROLE "${role}"`);
  });

  const address = () => `127.0.0.1:${postgres.port}/${database.name}`;
  test.each([
    ['percent-encoded', () => `postgresql://${encodeURIComponent(role)}:${encodeURIComponent(password)}@${address()}`],
    ['raw', () => `postgresql://${encodeURIComponent(role)}:${password}@${address()}`],
    ['raw, with parameters', () => `postgres://${encodeURIComponent(role)}:${password}@${address()}?sslmode=prefer`],
  ])('takes a password with @:/?#%% in it, %s', async (_, url) => {
    const taken = await backup(backupSettings({database: url(), store: place, key}), runtime());
    expect(taken).toMatchObject({database: database.name, rows: 3});
  });

  test('takes the parameters that ORMs write, drops them, and says so', async () => {
    const params = {
      schema: 'public',
      pgbouncer: 'true',
      connection_limit: '1',
      sslmode: 'prefer',
      application_name: 'x y',
    };
    const url = postgres.url(database.name, {params});
    const taken = await backup(backupSettings({database: url, store: place, key}), runtime());
    expect(taken.rows).toBe(3);
    const said = taken.warnings.join('\n');
    for (const name of ['schema', 'connection_limit', 'pooler']) expect(said).toContain(name);
    expect(said).not.toContain('sslmode');
  });

  test('never shows its password in an error', async () => {
    const url = `postgresql://nobody:${password}@${address()}`;
    const failure = await failureOf(backup(backupSettings({database: url, store: place, key}), runtime()));
    expect(failure).toMatchObject({code: 'POSTGRES_UNREACHABLE', exitCode: 3});
    expect([failure.message, failure.reason, failure.hint].join()).not.toContain('ss "w');
  });
});

describe('several backups', () => {
  let own: TestStore;
  let database: TestDatabase;
  let target: TestDatabase;
  const keys: string[] = [];
  const times = ['2026-01-01T00:00:00.000Z', '2026-02-01T12:30:00.500Z', '2026-03-01T00:00:00.000Z'];
  beforeAll(async () => {
    own = await testStore('directory');
    target = await createDatabase(postgres);
    database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT 0 AS generation'});
    for (const [index, time] of times.entries()) {
      await database.query(`UPDATE t SET generation = ${index + 1}`);
      const settings = backupSettings({database: database.url, store: own, key}, {prune: false});
      keys.push((await backup(settings, runtime({now: () => new Date(time)}))).key);
    }
  });
  afterAll(async () => {
    await Promise.all([database.drop(), target.drop()]);
    await own.dispose();
  });

  const restored = async (choice: Parameters<typeof restore>[0]['choice'], store = own) => {
    const settings = restoreSettings({target: target.url, store, key}, {choice});
    await restore(settings, yes, runtime());
    return Number(await target.query('SELECT generation FROM t'));
  };

  test('are listed newest first', async () => {
    const listed = await list({store: own.settings, optionalKeys: undefined}, runtime());
    expect(listed.map((each) => each.key)).toEqual(keys.toReversed());
    expect(listed.map((each) => each.seal)).toEqual(['unchecked', 'unchecked', 'unchecked']);
  });

  test.each([
    ['2026-01-01T00:00:00.000Z', 1],
    ['2026-02-01T12:30:00.499Z', 1],
    ['2026-02-01T12:30:00.500Z', 2],
    ['2026-02-28T23:59:59.999Z', 2],
    ['2030-01-01T00:00:00.000Z', 3],
  ])('at %s it was number %d', async (time, generation) => {
    expect(await restored({by: 'time', at: new Date(time)})).toBe(generation);
  });

  test('can be named by key or by timestamp', async () => {
    expect(await restored({by: 'key', key: keys[1] ?? ''})).toBe(2);
    expect(await restored({by: 'key', key: '2026-02-01T12-30-00-500Z'})).toBe(2);
  });

  test('one that is not there is not found', async () => {
    for (const choice of [
      {by: 'key', key: 'database-backups/x'},
      {by: 'key', key: '2026-02-01T12-30-00-501Z'},
      {by: 'time', at: new Date('2025-12-31T23:59:59.999Z')},
    ] as const) {
      expect(await failureOf(restored(choice))).toMatchObject({
        code: 'BACKUP_NOT_FOUND',
        exitCode: 4,
        message: 'Backup not found in R2',
      });
    }
    const empty = await testStore('directory');
    expect(await failureOf(restored({by: 'latest'}, empty))).toMatchObject({code: 'BACKUP_NOT_FOUND'});
    await empty.dispose();
  });

  test('the latest skips those that are not finished or damaged', async () => {
    const [, second = '', third = ''] = keys;
    const manifest = `${third}.metadata.json`;
    const saved = await contentOf(own.store, manifest);
    for (const [name, change] of [
      ['incomplete', () => own.store.delete(manifest)],
      ['damaged', () => own.store.replace(manifest, Buffer.from('{'))],
      ['damaged', () => own.store.replace(manifest, Buffer.from(String(saved).replace('"manual"', '"altered"')))],
    ] as const) {
      await change();
      expect(await restored({by: 'latest'})).toBe(2);
      const [newest] = await list({store: own.settings, optionalKeys: keySettings(key)}, runtime());
      expect(newest).toMatchObject({key: third, state: name});
    }
    const body = await contentOf(own.store, third);
    await own.store.replace(manifest, saved);
    await own.store.delete(third);
    expect(await restored({by: 'latest'})).toBe(2);
    await own.store.replace(third, body);
    expect(await restored({by: 'latest'})).toBe(3);
    expect(second).toBe(keys[1]);
  });

  test('two that begin in the same millisecond: one is made, and it is good', async () => {
    const both = await testStore('directory');
    const settings = backupSettings({database: database.url, store: both, key});
    const now = new Date();
    const outcomes = await Promise.allSettled([
      backup(settings, runtime({now: () => now})),
      backup(settings, runtime({now: () => now})),
    ]);
    expect(outcomes.map(({status}) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    expect(failed?.reason).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
    expect(await restored({by: 'latest'}, both)).toBe(3);
    await both.dispose();
  });

  test('one is restored over the other, when that was confirmed', async () => {
    const target = await createDatabase(postgres, {
      sql: 'CREATE TABLE t AS SELECT 99 AS generation; CREATE TABLE newer ()',
    });
    const settings = restoreSettings({target: target.url, store: own, key});
    const asked: string[] = [];
    await restore(
      {...settings, choice: {by: 'latest'}},
      async (facts, chosen) => asked.push(`${facts.database} ${facts.tables} ${chosen.key}`) > 0,
      runtime(),
    );
    expect(asked).toEqual([`${target.name} 2 ${keys[2]}`]);
    expect(await target.query('SELECT generation FROM t')).toBe('3');
    expect(await target.query('SELECT count(*) FROM newer')).toBe('0');
    await restore({...settings, choice: {by: 'key', key: keys[0] ?? ''}}, yes, runtime());
    expect(await target.query('SELECT generation FROM t')).toBe('1');
    await target.drop();
  });
});
