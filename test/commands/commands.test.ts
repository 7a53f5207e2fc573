/** The program as its users meet it: a process with arguments, an environment, two streams and an exit code. */
import {randomBytes} from 'node:crypto';
import {existsSync} from 'node:fs';
import {chmod, cp, mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, afterEach, beforeAll, describe, expect, test} from '@jest/globals';
import {execa, execaSync} from 'execa';
import {backup} from '../../src/lib/operations/backup.ts';
import {allCommandLines, cli, program, startCli, storeEnvironment} from '../support/cli.ts';
import type {TestDatabase} from '../support/database.ts';
import {rowDigests} from '../support/dumps.ts';
import {createDatabase, runSql} from '../support/postgres-server.ts';
import {type FaultyProxy, startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  keySettings,
  newKey,
  runtime,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {unprivilegedUser} from '../support/unprivileged-user.ts';
import {waitUntil} from '../support/wait-until.ts';

const {postgres, objects} = servers();
const key = newKey();
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controlCodes = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

let database: TestDatabase;
let place: TestStore;
let environment: Record<string, string>;
beforeAll(async () => {
  database = await createDatabase(postgres, {
    sql: `CREATE TABLE filler AS SELECT n, md5('a' || n) || md5('b' || n) AS text FROM generate_series(1, 100000) n`,
  });
  place = await testStore('s3');
  environment = {DATABASE_URL: database.url, PHI_ENCRYPTION_KEY: key, ...storeEnvironment(place.settings)};
});
afterAll(async () => {
  await database.drop();
  await place.dispose();
});

/** `--json` must give one document, and nothing else on stdout. */
// biome-ignore lint/suspicious/noExplicitAny: whatever it holds is looked at
const json = (stdout: string): any => JSON.parse(stdout);

describe('help', () => {
  test.each(['backup', 'restore', 'list', 'prune'])('%s --help shows every flag and examples', async (command) => {
    const {exitCode, stdout, stderr} = await cli([command, '--help']);
    expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''});
    for (const word of ['USAGE', 'FLAGS', '--json', 'EXAMPLES', 'Exit codes', `loma-backup ${command}`]) {
      expect(stdout).toContain(word);
    }
  });

  test('of the whole program names the commands, and needs no settings', async () => {
    const {exitCode, stdout} = await cli(['--help']);
    expect(exitCode).toBe(0);
    for (const command of ['backup', 'restore', 'list', 'prune']) expect(stdout).toContain(command);
  });
});

test.each([
  [['help'], ['--help']],
  [
    ['help', 'restore'],
    ['restore', '--help'],
  ],
  [
    ['help', 'keys', 'rotate'],
    ['keys', 'rotate', '--help'],
  ],
])('%j is as %j', async (words, flags) => {
  const asked = await cli(words);
  expect(asked).toMatchObject({exitCode: 0, stderr: ''});
  expect(asked.stdout).toBe((await cli(flags)).stdout);
});

test('topics have words of their own, not those of their first command', async () => {
  const {stdout} = await cli(['--help']);
  expect(stdout).toMatch(/^ {2}files +Back up uploaded files/m);
  expect(stdout).toMatch(/^ {2}init +Write what runs backups by itself/m);
  expect(stdout).toMatch(/^ {2}keys +Make encryption keys, show/m);
});

test('oclif.manifest.json is current', async () => {
  const root = path.dirname(path.dirname(program));
  const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-manifest-'));
  // Not the single executable, which lies there too.
  const isModule = (file: string) => !path.basename(file).startsWith('loma-backup');
  // Copied, but for the modules: paths in it are made from real ones.
  for (const name of ['package.json', 'dist'])
    await cp(path.join(root, name), path.join(folder, name), {recursive: true, filter: isModule});
  await execa(process.execPath, [path.join(root, 'node_modules/oclif/bin/run.js'), 'manifest', folder], {cwd: folder});
  const made = JSON.parse(await readFile(path.join(folder, 'oclif.manifest.json'), 'utf8'));
  expect(JSON.parse(await readFile(path.join(root, 'oclif.manifest.json'), 'utf8'))).toEqual(made);
  await rm(folder, {recursive: true});
});

test('a backup needs no temporary directory', async () => {
  const folder = await testStore('directory');
  const settings = {DATABASE_URL: database.url, PHI_ENCRYPTION_KEY: key, ...storeEnvironment(folder.settings)};
  const {exitCode, stdout} = await cli(['backup', '--json'], {...settings, TMPDIR: '/none'});
  await folder.dispose();
  expect(exitCode).toBe(0);
  expect(json(stdout)).toMatchObject({tables: 1, rows: 100_000});
});

describe('usage', () => {
  test.each([
    [['backup', '--no-such-flag']],
    [['backup', 'extra']],
    [['backup', '--compression', 'lzma']],
    [['backup', '--label', 'Jane Doe, born 1980']],
    [['prune', '--keep-last', '0']],
    [['prune', '--keep-days', 'many']],
    [['restore']],
    [['restore', '--latest', '--at', '2025-01-01']],
    [['restore', '--at', 'yesterday']],
    [['restore', '--at', '2025-02-29T12:00']],
    [['restore', '--at', '2025-02-28']],
    [['restore', '--latest', '--output', 'x', '--target', 'postgresql://h/d']],
    [['restore', '--latest', '--output', 'x', '--swap']],
    [['restore', '--list', '--swap']],
    [['no-such-command']],
  ])('%j ends with 2 and says why', async (args) => {
    const {exitCode, stdout, stderr} = await cli(args, environment);
    expect({exitCode, stdout}).toEqual({exitCode: 2, stdout: ''});
    expect(stderr).toMatch(/Error/);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(await place.keys()).toEqual([]);
  });

  test('an error with --json is one document on stdout', async () => {
    for (const args of [
      ['backup', '--no-such-flag', '--json'],
      ['restore', '--json'],
    ]) {
      const {exitCode, stdout} = await cli(args, environment);
      expect(exitCode).toBe(2);
      expect(json(stdout).error).toMatchObject({code: 'USAGE', exitCode: 2});
    }
  });

  test('all settings that are missing are named at once', async () => {
    const {exitCode, stdout, stderr} = await cli(['backup']);
    expect({exitCode, stdout}).toEqual({exitCode: 2, stdout: ''});
    for (const name of [
      'DATABASE_URL',
      'PHI_ENCRYPTION_KEY must be 64 hex characters',
      'R2 is not configured',
      'CLOUDFLARE_R2_ACCOUNT_ID',
      'CLOUDFLARE_R2_ACCESS_KEY_ID',
      'CLOUDFLARE_R2_SECRET_ACCESS_KEY',
    ]) {
      expect(stderr).toContain(name);
    }
    const asJson = await cli(['backup', '--json']);
    expect(asJson.exitCode).toBe(2);
    expect(json(asJson.stdout).error).toMatchObject({code: 'CONFIGURATION_INVALID', exitCode: 2});
  });

  test('all settings that are wrong are named at once', async () => {
    const {exitCode, stderr} = await cli(['backup'], {
      DATABASE_URL: 'mysql://h/d',
      PHI_ENCRYPTION_KEY: key.slice(1),
      PHI_ENCRYPTION_KEYS_PREVIOUS: `${key},${key.slice(0, -1)}z`,
      LOMA_BACKUP_COMPRESSION: 'lzma',
      CLOUDFLARE_R2_ACCOUNT_ID: 'not-one',
      CLOUDFLARE_R2_ACCESS_KEY_ID: 'a',
      CLOUDFLARE_R2_SECRET_ACCESS_KEY_FILE: '/nonexistent/file',
      CLOUDFLARE_R2_BUCKET_BACKUPS: 'Bad_Name',
    });
    expect(exitCode).toBe(2);
    for (const words of [
      /DATABASE_URL must/,
      /PHI_ENCRYPTION_KEY must be 64 hex characters: it has 63/,
      /PHI_ENCRYPTION_KEYS_PREVIOUS .* number 2/,
      /LOMA_BACKUP_COMPRESSION must/,
      /CLOUDFLARE_R2_ACCOUNT_ID must/,
      /CLOUDFLARE_R2_SECRET_ACCESS_KEY_FILE cannot be read/,
      /CLOUDFLARE_R2_BUCKET_BACKUPS is not a bucket name/,
    ]) {
      expect(stderr).toMatch(words);
    }
    expect(stderr).not.toContain(key.slice(1, -1));
  });
});

describe('a backup and its restore', () => {
  let target: TestDatabase;
  beforeAll(async () => {
    target = await createDatabase(postgres);
  });
  afterAll(() => target.drop());
  let taken: {key: string};

  test('backup --json: the result on stdout, progress on stderr, no control codes', async () => {
    const {exitCode, stdout, stderr} = await cli(['backup', '--label', 'scheduled', '--json'], environment);
    expect(exitCode).toBe(0);
    taken = json(stdout);
    expect(taken).toMatchObject({database: database.name, tables: 1, rows: 100_000, label: 'scheduled', warnings: []});
    expect(await place.keys()).toEqual([taken.key, `${taken.key}.metadata.json`]);
    expect(stderr).not.toMatch(controlCodes);
  });

  test('backup for people: the summary on stdout, the stages on stderr', async () => {
    const {exitCode, stdout, stderr} = await cli(['backup', '--compression', 'zstd', '--hold'], environment);
    expect(exitCode).toBe(0);
    for (const word of ['Backup complete', 'Backup key', 'smaller', 'Final size', 'Duration', 'held: never pruned']) {
      expect(stdout).toContain(word);
    }
    for (const word of ['Connect', 'Dump', 'Compress', 'upload', 'manifest']) expect(stderr).toContain(word);
    expect(stdout + stderr).not.toMatch(controlCodes);
  });

  test('list', async () => {
    const people = await cli(['list'], environment);
    expect(people).toMatchObject({exitCode: 0, stderr: ''});
    expect(people.stdout.split('\n')).toHaveLength(3);
    for (const word of [taken.key, 'scheduled', 'held', '100,000']) expect(people.stdout).toContain(word);
    const document = json((await cli(['list', '--json'], environment)).stdout);
    expect(document.backups.map((each: {label: string}) => each.label)).toEqual(['manual', 'scheduled']);
    expect(json((await cli(['restore', '--list', '--json'], environment)).stdout)).toEqual(document);
    const {PHI_ENCRYPTION_KEY: _, DATABASE_URL: __, ...withoutKey} = environment;
    expect(await cli(['list'], withoutKey)).toMatchObject({exitCode: 0});
  });

  test('restore into an empty database', async () => {
    const {exitCode, stdout, stderr} = await cli(
      ['restore', '--latest', '--target', target.url, '--json'],
      environment,
    );
    expect({exitCode, stderr: stderr.match(controlCodes)}).toEqual({exitCode: 0, stderr: null});
    expect(json(stdout)).toMatchObject({tables: 1, rows: 100_000, target: expect.stringContaining(target.name)});
    expect(await rowDigests(target)).toEqual(await rowDigests(database));
  });

  test('restore --at the time that list shows', async () => {
    const shown = json((await cli(['list', '--json'], environment)).stdout).backups[0];
    const [row] = (await cli(['list'], {...environment, TZ: 'Asia/Kolkata'})).stdout.split('\n').slice(1);
    const time = /\d{4}-\d\d-\d\d \d\d:\d\d \S+/.exec(row ?? '')?.[0] ?? '';
    const output = path.join(os.tmpdir(), `loma-test-${randomBytes(4).toString('hex')}.sql`);
    const {exitCode, stdout} = await cli(['restore', '--at', time, '--output', output, '--json'], environment);
    await rm(output, {force: true});
    expect(exitCode).toBe(0);
    expect(json(stdout).key).toBe(shown.key);
  });

  test('restore over data is refused without a terminal and without --yes, and done with it', async () => {
    await target.query('DELETE FROM filler WHERE n > 10');
    const args = ['restore', taken.key, '--target', target.url];
    const refused = await cli(args, environment);
    expect(refused).toMatchObject({exitCode: 7, stdout: ''});
    for (const words of ['Refused', target.name, 'rows', '--yes']) expect(refused.stderr).toContain(words);
    const refusedJson = await cli([...args, '--json'], environment);
    expect(refusedJson.exitCode).toBe(7);
    expect(json(refusedJson.stdout).error).toMatchObject({code: 'REFUSED', exitCode: 7});
    expect(await target.query('SELECT count(*) FROM filler')).toBe('10');
    expect(await cli([...args, '--yes'], environment)).toMatchObject({exitCode: 0});
    expect(await target.query('SELECT count(*) FROM filler')).toBe('100000');
  });

  test('restore --output - writes the SQL and nothing else to stdout', async () => {
    const {exitCode, stdout, stderr} = await cli(['restore', '--latest', '--output', '-'], environment);
    expect(exitCode).toBe(0);
    expect(stdout.startsWith('--\n-- PostgreSQL database dump\n')).toBe(true);
    expect(stdout).toMatch(/-- PostgreSQL database dump complete\n/);
    expect(stdout).toContain('COPY public.filler');
    expect(stderr).toContain('PHI, unencrypted');
    const both = await cli(['restore', '--latest', '--output', '-', '--json'], environment);
    expect(both.exitCode).toBe(2);
  });

  test.each([
    ['a wrong key', {PHI_ENCRYPTION_KEY: newKey()}, 5, 'WRONG_KEY'],
    ['a wrong secret', {CLOUDFLARE_R2_SECRET_ACCESS_KEY: 'wrong-secret'}, 4, 'STORAGE_DENIED'],
    ['no bucket', {CLOUDFLARE_R2_BUCKET_BACKUPS: 'loma-no-such-bucket'}, 4, 'STORAGE_FAILED'],
    ['no S3 server', {CLOUDFLARE_R2_ENDPOINT: 'http://127.0.0.1:9'}, 4, 'STORAGE_FAILED'],
    ['no PostgreSQL', {DATABASE_URL: 'postgresql://u:pw@127.0.0.1:9/db'}, 3, 'POSTGRES_UNREACHABLE'],
  ])('%s', async (_, changes, exitCode, code) => {
    const result = await cli(['restore', taken.key, '--yes'], {...environment, DATABASE_URL: target.url, ...changes});
    expect(result).toMatchObject({exitCode, stdout: ''});
    expect(result.stderr).toContain(`Code: ${code}`);
    expect(result.stderr).toContain('What to do: ');
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });

  test('a directory in which this user may not read or write', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-rights-'));
    const user = await unprivilegedUser();
    const settings = {DATABASE_URL: database.url, PHI_ENCRYPTION_KEY: key, LOMA_BACKUP_STORE: `file://${folder}`};
    const as = async (mode: number, command: string) => {
      await chmod(folder, mode);
      const {exitCode, stderr} = await cli([command], settings, user ? {uid: user.uid, gid: user.gid} : {});
      expect(exitCode).toBe(4);
      return stderr;
    };
    expect(await as(0o555, 'backup')).toMatch(/EACCES: permission denied.*\nWhat to do: May this user write there\?/);
    expect(await as(0, 'list')).toMatch(/EACCES: permission denied.*\nWhat to do: May this user read there\?/);
    expect(await as(0, 'backup')).toMatch(/EACCES: permission denied/);
    await rm(folder, {recursive: true});
  });

  test('the command that makes a missing directory is one that a shell takes', async () => {
    const settings = {...environment, LOMA_BACKUP_STORE: 'file:///nonexistent/my%20backups'};
    const {stderr} = await cli(['backup'], settings);
    expect(stderr).toContain("mkdir -p '/nonexistent/my backups'\n");
  });

  test('an https:// endpoint that does not speak TLS', async () => {
    const endpoint = (environment.CLOUDFLARE_R2_ENDPOINT ?? '').replace('http:', 'https:');
    const {exitCode, stderr} = await cli(['list'], {...environment, CLOUDFLARE_R2_ENDPOINT: endpoint});
    expect(exitCode).toBe(4);
    expect(stderr).toContain('what answers there does not speak TLS');
  });

  test('a disk that is not mounted is not filled, and no step of it is called done', async () => {
    const folder = path.join(os.tmpdir(), `loma-not-mounted-${randomBytes(4).toString('hex')}`);
    const result = await cli(['backup'], {
      DATABASE_URL: database.url,
      PHI_ENCRYPTION_KEY: key,
      LOMA_BACKUP_STORE: `file://${folder}/store`,
    });
    expect(result.exitCode).toBe(4);
    expect(result.stderr).toContain(`there is no ${folder}/store, which is not made by itself`);
    expect(result.stderr).not.toContain('✔ Back up');
    expect(existsSync(folder)).toBe(false);
  });

  test.each([
    ['list', []],
    ['status', []],
    ['prune', []],
    ['restore', ['--latest', '--yes']],
  ])('a disk that is not mounted is not taken by %s for a store without backups', async (command, flags) => {
    const folder = path.join(os.tmpdir(), `loma-not-mounted-${randomBytes(4).toString('hex')}`);
    const result = await cli([command, ...flags], {
      DATABASE_URL: database.url,
      PHI_ENCRYPTION_KEY: key,
      LOMA_BACKUP_STORE: `file://${folder}`,
    });
    expect(result).toMatchObject({exitCode: 4, stdout: ''});
    expect(result.stderr).toContain(`there is no ${folder}, which is not made by itself`);
    expect(existsSync(folder)).toBe(false);
  });

  test('a backup that fails ends with 3, and leaves nothing', async () => {
    const before = await place.keys();
    const role = `loma_${randomBytes(4).toString('hex')}`;
    await runSql(postgres.adminUrl, `CREATE ROLE ${role} LOGIN PASSWORD 'pw'`);
    const url = postgres.url(database.name, {user: role, password: 'pw'});
    const result = await cli(['backup', '--json'], {...environment, DATABASE_URL: url});
    expect(result.exitCode).toBe(3);
    expect(json(result.stdout).error).toMatchObject({code: 'PG_DUMP_FAILED', exitCode: 3, message: 'pg_dump failed'});
    expect(await place.keys()).toEqual(before);
    await runSql(postgres.adminUrl, `DROP ROLE ${role}`);
  });

  test('prune that cannot delete ends with 4, and deletes the others', async () => {
    const own = await testStore('s3');
    const settings = backupSettings({database: database.url, store: own, key}, {prune: false});
    const old = [2020, 2021, 2022].map((year) => runtime({now: () => new Date(`${year}-01-01T00:00:00Z`)}));
    for (const each of old) await backup({...settings, keys: keySettings(key)}, each);
    const proxy = await startProxy(objects, ({method, url}) =>
      method === 'DELETE' && url.includes('2020-01-01') ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
    );
    const where = {...environment, ...storeEnvironment(s3Settings(proxy, own.settings.backupsBucket))};
    const dry = await cli(['prune', '--dry-run', '--keep-days', '1', '--keep-last', '1'], where);
    expect(dry).toMatchObject({exitCode: 0});
    expect(dry.stdout.match(/would delete/g)).toHaveLength(2);
    expect(await own.keys()).toHaveLength(6);
    const result = await cli(['prune', '--keep-days', '1', '--keep-last', '1', '--json'], where);
    expect(result.exitCode).toBe(4);
    expect(json(result.stdout)).toMatchObject({
      deleted: [expect.stringContaining('2021-01-01')],
      failed: [{key: expect.stringContaining('2020-01-01')}],
      error: {code: 'PRUNE_INCOMPLETE', exitCode: 4},
    });
    const again = await cli(['prune', '--keep-days', '1', '--keep-last', '1'], where);
    expect(again.exitCode).toBe(4);
    expect(again.stdout).toContain('not deleted');
    expect(again.stderr).toContain('PRUNE_INCOMPLETE');
    expect((await own.keys()).map((each) => each.slice(17, 21))).toEqual(['2020', '2020', '2022', '2022']);
    await proxy.stop();
    await own.dispose();
  });
});

describe('secrets', () => {
  const password = `pw-${randomBytes(8).toString('hex')}@:/?#`;
  const role = `loma_${randomBytes(4).toString('hex')}`;
  const testPassword = `tp-${randomBytes(8).toString('hex')}`;
  const previous = newKey();
  let own: TestStore;
  let target: TestDatabase;
  let secretive: Record<string, string>;
  beforeAll(async () => {
    await runSql(postgres.adminUrl, `CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${password}'`);
    [own, target] = await Promise.all([testStore('s3'), createDatabase(postgres)]);
    secretive = {
      ...environment,
      ...storeEnvironment(own.settings),
      DATABASE_URL: `postgresql://${role}:${password}@127.0.0.1:${postgres.port}/${database.name}`,
      TEST_DATABASE_URL: `postgresql://someone:${testPassword}@127.0.0.1:${postgres.port}/postgres`,
      PHI_ENCRYPTION_KEYS_PREVIOUS: previous,
      DEBUG: '*',
    };
  });
  afterAll(async () => {
    await Promise.all([own.dispose(), target.drop()]);
    await runSql(postgres.adminUrl, `DROP ROLE ${role}`);
  });

  const secretsOf = (from: Record<string, string>) => [
    password,
    encodeURIComponent(password),
    password.slice(0, 19),
    testPassword,
    key,
    previous,
    from.CLOUDFLARE_R2_SECRET_ACCESS_KEY ?? '',
  ];

  function expectNone(text: string): void {
    for (const secret of secretsOf(secretive)) {
      const at = text.indexOf(secret);
      expect(at < 0 ? '' : text.slice(Math.max(0, at - 200), at)).toBe('');
    }
  }

  /** Looks at all command lines as long as it runs. */
  async function watched(args: string[], from: Record<string, string>) {
    const running = startCli(args, from);
    let isRunning = true;
    let samples = 0;
    let programs = '';
    const ended = running.finally(() => (isRunning = false));
    while (isRunning) {
      const lines = await allCommandLines();
      expectNone(lines);
      if (lines.includes('pg_dump')) programs += 'pg_dump ';
      if (lines.includes('psql')) programs += 'psql ';
      samples += 1;
    }
    const {exitCode, stdout, stderr} = await ended;
    expect(samples).toBeGreaterThan(5);
    return {exitCode, programs, output: `${stdout}\n${stderr}`};
  }

  test('are on no command line and in no output of a backup, a list and a restore, whatever is debugged', async () => {
    const taken = await watched(['backup'], secretive);
    expect(taken.exitCode).toBe(0);
    expect(taken.programs).toContain('pg_dump');
    expectNone(taken.output);
    const listed = await cli(['list'], secretive);
    expect(listed.exitCode).toBe(0);
    expectNone(listed.output);
    const url = `postgresql://${role}:${password}@127.0.0.1:${postgres.port}/${target.name}`;
    const restored = await watched(['restore', '--latest', '--yes'], {...secretive, DATABASE_URL: url});
    expect(restored.exitCode).toBe(0);
    expect(restored.programs).toContain('psql');
    expectNone(restored.output);
  });

  test.each([
    ['PostgreSQL', {DATABASE_URL: `postgresql://nobody:${password}@127.0.0.1:9/db`}, 3],
    ['the password', {DATABASE_URL: `postgresql://nobody:${password}@127.0.0.1:${postgres.port}/db`}, 3],
    ['the URL', {DATABASE_URL: `postgresqi://nobody:${password}@h/db`}, 2],
    ['the store', {CLOUDFLARE_R2_ENDPOINT: 'http://127.0.0.1:9'}, 4],
    ['the account', {CLOUDFLARE_R2_ACCESS_KEY_ID: 'AKIDUNKNOWN'}, 4],
    ['the key', {PHI_ENCRYPTION_KEY: `${key}0`, PHI_ENCRYPTION_KEYS_PREVIOUS: `${previous},${previous}x`}, 2],
  ])('are in no error about %s', async (_, changes, exitCode) => {
    const from = {...secretive, ...changes};
    for (const flags of [[], ['--json']]) {
      const result = await cli(['backup', ...flags], from);
      expect(result.exitCode).toBe(exitCode);
      expectNone(result.output);
    }
  });

  test('can come from files', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-secrets-'));
    const {PHI_ENCRYPTION_KEY = '', DATABASE_URL = '', ...rest} = secretive;
    await writeFile(path.join(folder, 'key'), `${PHI_ENCRYPTION_KEY}\n`);
    await writeFile(path.join(folder, 'url'), `${DATABASE_URL}\n`);
    const files = {PHI_ENCRYPTION_KEY_FILE: path.join(folder, 'key'), DATABASE_URL_FILE: path.join(folder, 'url')};
    const result = await cli(['backup', '--json'], {...rest, ...files});
    expect(result.exitCode).toBe(0);
    expectNone(result.output);
    await rm(folder, {recursive: true});
  });
});

describe('a signal', () => {
  let own: TestStore;
  let proxy: FaultyProxy | undefined;
  afterEach(async () => {
    // One that listens after a failure would keep jest from ending.
    await proxy?.stop();
    await own.dispose();
  });

  const sessions = (where = 'true') =>
    runSql(
      postgres.adminUrl,
      `SELECT count(*) FROM pg_stat_activity WHERE datname = '${database.name}' AND application_name = 'loma-backup' AND ${where}`,
    );

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s while an upload is under way ends a backup with %d, and nothing is left', async (signal, code) => {
    own = await testStore('s3');
    let isHeld = false;
    proxy = await startProxy(objects, ({method, url}) => {
      if (method !== 'PUT' || !url.includes('.encrypted') || isHeld) return undefined;
      isHeld = true;
      // It takes its time: it goes on when the signal has been sent.
      return {before: () => sent.promise};
    });
    const sent = Promise.withResolvers<void>();
    const where = {...environment, ...storeEnvironment(s3Settings(proxy, own.settings.backupsBucket))};
    const running = startCli(['backup'], where);
    await waitUntil(() => isHeld, {what: 'the upload to begin'});
    running.kill(signal);
    sent.resolve();
    const {exitCode, stdout, stderr} = await running;
    expect({exitCode, stdout}).toEqual({exitCode: code, stdout: ''});
    expect(stderr).toContain(signal === 'SIGINT' ? 'Interrupted' : 'Terminated');
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(await own.keys()).toEqual([]);
    expect(await own.unfinished()).toEqual([]);
    expect(await sessions()).toBe('0');
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s while pg_dump waits for a lock ends it with %d', async (signal, code) => {
    own = await testStore('directory');
    const holding = runSql(database.url, 'BEGIN; LOCK TABLE filler IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)');
    const held = holding.catch((error: unknown) => String(error));
    const holder = `FROM pg_stat_activity WHERE datname = '${database.name}' AND wait_event = 'PgSleep'`;
    await waitUntil(async () => (await runSql(postgres.adminUrl, `SELECT count(*) ${holder}`)) === '1', {
      what: 'the lock',
    });
    const running = startCli(['backup', '--json'], {...environment, ...storeEnvironment(own.settings)});
    await waitUntil(async () => (await sessions("wait_event_type = 'Lock'")) === '1', {what: 'pg_dump to wait'});
    running.kill(signal);
    const {exitCode, stdout} = await running;
    expect(exitCode).toBe(code);
    expect(json(String(stdout)).error).toMatchObject({code: 'INTERRUPTED', exitCode: code});
    await waitUntil(async () => (await sessions()) === '0', {what: 'pg_dump to be gone'});
    await runSql(postgres.adminUrl, `SELECT pg_terminate_backend(pid) ${holder}`);
    expect(await held).toContain('terminating connection');
    expect(await own.keys()).toEqual([]);
    expect(await own.unfinished()).toEqual([]);
  });

  test('SIGINT ends a restore, and the target is as it was', async () => {
    own = await testStore('directory');
    await backup(backupSettings({database: database.url, store: own, key}), runtime());
    const target = await createDatabase(postgres, {sql: 'CREATE TABLE filler AS SELECT 1 AS n'});
    const holding = runSql(target.url, 'BEGIN; SELECT count(*) FROM filler; SELECT pg_sleep(300)').catch(
      () => undefined,
    );
    const activity = (where: string) =>
      runSql(postgres.adminUrl, `SELECT count(*) FROM pg_stat_activity WHERE datname = '${target.name}' AND ${where}`);
    await waitUntil(async () => (await activity("wait_event = 'PgSleep'")) === '1', {what: 'the reader'});
    const where = {...environment, ...storeEnvironment(own.settings), DATABASE_URL: target.url};
    const running = startCli(['restore', '--latest', '--yes'], where);
    await waitUntil(async () => (await activity("wait_event_type = 'Lock'")) === '1', {what: 'psql to wait'});
    running.kill('SIGINT');
    expect(await running).toMatchObject({exitCode: 130, stdout: ''});
    // Its backend waits for the lock still, and finds out then that nobody is there any more.
    await runSql(
      postgres.adminUrl,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${target.name}' AND wait_event = 'PgSleep'`,
    );
    await waitUntil(async () => (await activity("application_name = 'loma-backup'")) === '0', {
      what: 'psql to be gone',
    });
    expect(await target.query('SELECT n FROM filler')).toBe('1');
    await holding;
    await target.drop();
  });
});

describe('an old Node.js', () => {
  const old = ['/usr/bin/node', '/usr/local/bin/node'].find((file) => {
    const {stdout, failed} = execaSync(file, ['--version'], {reject: false});
    const [, major = 0, minor = 0] = /^v(\d+)\.(\d+)/.exec(String(stdout))?.map(Number) ?? [];
    return !failed && (major < 22 || (major === 22 && minor < 15));
  });
  const skipped = old ? '' : ' (skipped: there is none older than 22.15 on this machine)';
  (old ? test : test.skip)(`is refused in one line${skipped}`, async () => {
    const result = await execa(old ?? '', [program, 'list'], {reject: false});
    expect(result).toMatchObject({exitCode: 2, stdout: ''});
    expect(result.stderr).toMatch(/^loma-backup needs Node\.js 22\.15 or later; this is .*$/);
  });
});
