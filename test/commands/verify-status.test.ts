import {mkdtemp, readFile, rm, stat, writeFile} from 'node:fs/promises';
import {createServer, type Server} from 'node:http';
import type {AddressInfo} from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {cli, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, type TestStore, testStore} from '../support/settings.ts';

const {postgres} = servers();
const key = newKey();
let database: TestDatabase;
let store: TestStore;
let folder: string;
let environment: Record<string, string>;
let monitor: Server;
const calls: string[] = [];

beforeAll(async () => {
  database = await createDatabase(postgres, {sql: 'CREATE TABLE patients AS SELECT generate_series(1, 100) AS id'});
  store = await testStore('directory');
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-verify-'));
  monitor = createServer(async (request, response) => {
    calls.push(`${request.url} ${(await request.toArray()).join('')}`);
    response.end();
  });
  await new Promise<void>((resolve) => monitor.listen(0, '127.0.0.1', resolve));
  environment = {
    DATABASE_URL: database.url,
    TEST_DATABASE_URL: postgres.adminUrl,
    PHI_ENCRYPTION_KEY: key,
    LOMA_BACKUP_PING_URL: `http://127.0.0.1:${(monitor.address() as AddressInfo).port}/uuid`,
    ...storeEnvironment(store.settings),
  };
});
afterAll(async () => {
  await new Promise((resolve) => monitor.close(resolve));
  await database.drop();
  await store.dispose();
  await rm(folder, {recursive: true, force: true});
});

describe('before there is a backup', () => {
  it('status exits with 6, and says one thing a line', async () => {
    const {exitCode, stdout} = await cli(['status'], environment);
    expect(exitCode).toBe(6);
    expect(stdout.trim().split('\n')[0]).toBe('ALARM  there is no complete backup');
    expect(calls.at(-1)).toMatch(/^\/uuid\/fail ALARM {2}there is no complete backup/);
  });

  it('verify exits with 6 and names the step that failed', async () => {
    const {exitCode, stdout} = await cli(['verify', '--json'], environment);
    expect(exitCode).toBe(6);
    const result = JSON.parse(stdout);
    expect(
      result.steps.filter(({status}: {status: string}) => status === 'failed').map(({id}: {id: string}) => id),
    ).toEqual(['catalog', 'integrity']);
  });
});

describe('after a backup', () => {
  it('backup reports to the monitor, without secrets', async () => {
    const {exitCode} = await cli(['backup', '--label', 'scheduled'], environment);
    expect(exitCode).toBe(0);
    expect(calls.at(-1)).toMatch(/^\/uuid Backup complete\n/);
    const password = decodeURIComponent(new URL(database.url).password);
    expect(calls.join('\n')).not.toContain(password);
  });

  it('a failed backup reports to the monitor too, and keeps its exit code', async () => {
    const {exitCode} = await cli(['backup'], {...environment, DATABASE_URL: postgres.url('no_such_database')});
    expect(exitCode).toBe(3);
    expect(calls.at(-1)).toMatch(/^\/uuid\/fail Error: Cannot connect to PostgreSQL/);
  });

  it.each<[string, string[], Record<string, string>, number, RegExp]>([
    ['a setting that is missing', ['backup'], {PHI_ENCRYPTION_KEY: ''}, 2, /Error: PHI_ENCRYPTION_KEY must be/],
    ['a label that is none', ['backup', '--label', ''], {}, 2, /Error: --label must be/],
    ['a flag that is unknown', ['backup', '--unknown'], {}, 2, /Error: Nonexistent flag/],
    ['a report file that is there', ['verify', '--report', '/etc/hostname'], {}, 7, /Error: Refused: the report file/],
    ['a length of time that is none', ['status', '--max-age', 'x'], {}, 2, /Error: --max-age must be/],
  ])('%s is reported, once', async (_, args, variables, expected, words) => {
    const before = calls.length;
    const {exitCode} = await cli(args, {...environment, ...variables});
    expect(exitCode).toBe(expected);
    expect(calls.slice(before)).toHaveLength(1);
    expect(calls.at(-1)).toMatch(words);
    expect(calls.at(-1)).toMatch(/^\/uuid\/fail /);
  });

  it('of a command line with --ping, too; a URL that is none is told with the rest', async () => {
    const {LOMA_BACKUP_PING_URL: url = '', PHI_ENCRYPTION_KEY: _, ...rest} = environment;
    const before = calls.length;
    expect(await cli(['backup', '--ping', url], rest)).toMatchObject({exitCode: 2});
    expect(calls.slice(before)).toEqual([expect.stringMatching(/^\/uuid\/fail Error: PHI_ENCRYPTION_KEY/)]);
    const {exitCode, stderr} = await cli(['backup', '--ping', 'foo'], rest);
    expect(exitCode).toBe(2);
    expect(stderr).toContain('--ping must look like');
    expect(calls).toHaveLength(before + 1);
  });

  it('a monitor that cannot be reached is a warning, and the backup is as good', async () => {
    const {exitCode, stderr} = await cli(['backup', '--ping', 'http://127.0.0.1:1/secret-uuid'], environment);
    expect(exitCode).toBe(0);
    expect(stderr).toContain('Warning: --ping: the monitor cannot be reached');
    expect(stderr).not.toContain('secret-uuid');
  });

  it('verify proves it, prints each step, and writes a report that only its owner reads', async () => {
    const report = path.join(folder, 'report.html');
    const {exitCode, stdout} = await cli(['verify', '--report', report], environment);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('Backup proved');
    expect(stdout).toMatch(/passed {3}Restore and proof .* 1 tables, 100 rows, every digest equal/);
    expect(stdout).toMatch(/Total 7, passed 6, failed 0, skipped 1, in .*, recovery time /);
    expect(await readFile(report, 'utf8')).toContain('<strong>Proved.</strong>');
    expect((await stat(report)).mode & 0o777).toBe(0o600);
  });

  it('status is content, list shows the proof, and the Prometheus file says so', async () => {
    const file = path.join(folder, 'loma.prom');
    const {exitCode, stdout} = await cli(['status', '--json', '--prometheus', file], environment);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({isHealthy: true, backups: 2});
    expect(await readFile(file, 'utf8')).toContain('loma_backup_healthy 1\n');
    expect((await cli(['list'], environment)).stdout).toContain('proved just now');
  });

  it('status says of a proof that no configured key can check that there is one', async () => {
    const {exitCode, stdout} = await cli(['status'], {...environment, PHI_ENCRYPTION_KEY: newKey()});
    expect(exitCode).toBe(6);
    expect(stdout).toMatch(/^ALARM {2}no proof counts: .*no configured key can check its seal/m);
    expect(stdout).not.toContain('ever proved');
  });

  it('status holds the age to --max-age', async () => {
    const {exitCode, stdout} = await cli(['status', '--max-age', '0s'], environment);
    expect(exitCode).toBe(6);
    expect(stdout).toMatch(/^ALARM {2}the newest complete backup is from /);
    expect((await cli(['status', '--max-age', '1 fortnight'], environment)).exitCode).toBe(2);
  });

  it('verify --target tries it on another server, and refuses --scratch beside it', async () => {
    const {TEST_DATABASE_URL: _, ...without} = environment;
    expect((await cli(['verify'], without)).stdout).toContain('the backup was not restored');
    const target = await cli(['verify', '--latest', '--target', postgres.adminUrl], without);
    expect(target.stdout).toContain('Backup proved');
    expect((await cli(['verify', '--scratch', 'local', '--target', postgres.adminUrl], without)).exitCode).toBe(2);
  });

  it('status and list say it when a backup that was proved turns out to be bad, also after another one was proved', async () => {
    const [older = '', newer = ''] = (await store.keys()).filter((name) => name.endsWith('.encrypted'));
    const file = path.join(store.folder, newer);
    const body = await readFile(file);
    body[100] = (body[100] ?? 0) ^ 1;
    await writeFile(file, body);
    expect((await cli(['verify', newer], environment)).exitCode).toBe(6);
    expect((await cli(['list'], environment)).stdout).toContain('verification FAILED just now');
    expect((await cli(['verify', older], environment)).stdout).toContain('Backup proved');
    const {exitCode, stdout} = await cli(['status'], environment);
    expect(exitCode).toBe(6);
    expect(stdout).toContain(`ALARM  the last verification of ${newer}, just now, FAILED`);
  });
});
