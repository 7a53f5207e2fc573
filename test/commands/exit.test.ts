/** How the process ends when a command failed: by itself, never by `process.exit`, which may wait forever (src/main.ts). */

import {mkdtemp, readdir, readlink, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {type CliEnvironment, cli, program, startCli, storeEnvironment} from '../support/cli.ts';
import type {TestDatabase} from '../support/database.ts';
import {createDatabase} from '../support/postgres-server.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, type TestStore, testStore} from '../support/settings.ts';
import {waitUntil} from '../support/wait-until.ts';

const said = 'process.exit was called';
const module = `const exit = process.exit; process.exit = (code) => {process.stderr.write(${JSON.stringify(said)}); exit(code)}`;
/** Nothing else changes: the process ends as it would, and tells how. */
const telling = {NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(module)}`};

const {postgres, objects} = servers();
let database: TestDatabase;
let place: TestStore;
let environment: CliEnvironment;
beforeAll(async () => {
  database = await createDatabase(postgres, {
    sql: `CREATE TABLE filler AS SELECT n, md5('a' || n) || md5('b' || n) AS text FROM generate_series(1, 100000) n`,
  });
  place = await testStore('s3');
  environment = {
    ...telling,
    DATABASE_URL: database.url,
    PHI_ENCRYPTION_KEY: newKey(),
    ...storeEnvironment(place.settings),
  };
});
afterAll(async () => {
  await database.drop();
  await place.dispose();
});

test.each<[string, string[], Record<string, string>, number]>([
  ['an unknown flag', ['backup', '--unknown'], {}, 2],
  ['no settings', ['backup'], {PHI_ENCRYPTION_KEY: ''}, 2],
  ['no such backup', ['restore', '--latest', '--yes'], {}, 4],
  ['a bucket that is not there', ['backup'], {CLOUDFLARE_R2_BUCKET_BACKUPS: 'none'}, 4],
  ['a database that is not there', ['backup'], {DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none'}, 3],
  ['a store that answers nobody', ['list'], {CLOUDFLARE_R2_ENDPOINT: 'http://127.0.0.1:1'}, 4],
  ['a status that is bad', ['status'], {}, 6],
])('%s', async (_, args, variables, exitCode) => {
  const result = await cli(args, {...environment, ...variables});
  expect(result.output).not.toContain(said);
  expect(result.exitCode).toBe(exitCode);
});

test('SIGTERM in the middle of an upload', async () => {
  const child = startCli(['backup'], environment);
  let stderr = '';
  child.stderr?.on('data', (text) => (stderr += text));
  await waitUntil(() => stderr.includes('Dump'), {what: 'the dump to begin', everyMs: 2});
  child.kill('SIGTERM');
  const {exitCode} = await child;
  expect(stderr).not.toContain(said);
  expect(exitCode).toBe(143);
});

test('SIGTERM while a secret is awaited from a pipe that nobody writes', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-pipe-'));
  const pipe = path.join(folder, 'pipe');
  await execa('mkfifo', [pipe]);
  const child = startCli(['list'], {...environment, PHI_ENCRYPTION_KEY: '', PHI_ENCRYPTION_KEY_FILE: pipe});
  const isOpen = async () => {
    const files = await readdir(`/proc/${child.pid}/fd`);
    const targets = await Promise.all(files.map((fd) => readlink(`/proc/${child.pid}/fd/${fd}`).catch(() => '')));
    return targets.includes(pipe);
  };
  await waitUntil(isOpen, {what: 'the pipe to be opened', everyMs: 5});
  child.kill('SIGTERM');
  const {exitCode, stderr} = await child;
  await rm(folder, {recursive: true});
  expect(stderr).toContain('Code: INTERRUPTED');
  expect(exitCode).toBe(143);
});

describe('stdout on a full disk', () => {
  const toFullDisk = (args: string, variables: Record<string, string> = {}, what = '>') => {
    const env = {PATH: process.env.PATH ?? '', ...environment, ...variables};
    const script = `"$0" "$1" ${args} ${what}/dev/full`;
    const options = {env, extendEnv: false, reject: false, stdin: 'ignore'} as const;
    return execa('bash', ['-c', script, process.execPath, program], options);
  };

  test.each(['list', 'keys show', 'keys generate', 'completion bash', '--help', 'backup --help', '--version'])(
    '%s fails, and says why',
    async (args) => {
      const {exitCode, stderr} = await toFullDisk(args);
      expect(stderr).toMatch(
        /Error: The output could not be written\n {2}ENOSPC.*\nWhat to do: .*\nCode: OUTPUT_FAILED$/,
      );
      expect(exitCode).toBe(1);
    },
  );

  test.each(['backup', 'backup --json'])('%s says on stderr that it is complete, and its key', async (args) => {
    const {exitCode, stderr} = await toFullDisk(args);
    const {stdout} = await cli(['list', '--json'], environment);
    expect(stderr).toContain(`Backup key:  ${JSON.parse(stdout).backups[0].key}`);
    expect(stderr).toMatch(/Code: OUTPUT_FAILED$/);
    expect(exitCode).toBe(1);
  });

  test('a new key does not go to stderr in its place', async () => {
    const {stderr} = await toFullDisk('keys generate');
    expect(stderr).not.toMatch(/[0-9a-f]{64}/);
  });

  test.each([
    ['status --max-age 0s', {}, 6, 'ALARM'],
    ['list --json', {CLOUDFLARE_R2_BUCKET_BACKUPS: 'none'}, 4, 'Code: STORAGE_FAILED'],
    ['no-such-command --json', {}, 2, 'There is no command'],
  ])('%s keeps its exit code, and what it had to say', async (args, variables, exitCode, words) => {
    const result = await toFullDisk(args, variables);
    expect(result.stderr).toContain(words);
    expect(result.stderr).toMatch(/Code: OUTPUT_FAILED$/);
    expect(result.exitCode).toBe(exitCode);
  });

  test('restore --output - says it once', async () => {
    await cli(['backup'], environment);
    const {exitCode, stderr} = await toFullDisk('restore --latest --output -');
    expect(stderr.split('Code: OUTPUT_FAILED')).toHaveLength(2);
    expect(exitCode).toBe(1);
  });

  test('progress that nobody can read stops no backup', async () => {
    const {exitCode, stdout} = await toFullDisk('backup', {}, '2>');
    expect(exitCode).toBe(0);
    expect(stdout).toContain('Backup complete');
  });
});

/** Something keeps the process for a moment after it has printed its result. */
const lingering = `const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = (...args) => {setTimeout(() => undefined, 500); return write(...args)}`;

test.each<[string, string[], Record<string, string>, number]>([
  ['a backup', ['backup'], {}, 0],
  ['a backup with --json', ['backup', '--json'], {}, 0],
  ['a status that is bad', ['status', '--max-age', '0s'], {}, 6],
  ['an error with --json', ['list', '--json'], {CLOUDFLARE_R2_BUCKET_BACKUPS: 'none'}, 4],
])('signals after the result of %s was printed', async (_, args, variables, exitCode) => {
  const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(lingering)}`;
  const child = startCli(args, {...environment, ...variables, NODE_OPTIONS});
  child.stdout?.once('data', () => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGTERM'] as const) child.kill(signal);
  });
  const {stdout, signal, ...ended} = await child;
  expect(stdout).not.toBe('');
  expect({exitCode: ended.exitCode, signal}).toEqual({exitCode, signal: undefined});
});

test('one Ctrl-C that comes twice, as by way of npm: what was under way is undone', async () => {
  const child = startCli(['backup'], environment);
  let stderr = '';
  child.stderr?.on('data', (text) => (stderr += text));
  await waitUntil(() => stderr.includes('Dump'), {what: 'the dump to begin', everyMs: 2});
  child.kill('SIGINT');
  await delay(5);
  child.kill('SIGINT');
  expect(await child).toMatchObject({exitCode: 130});
  expect(stderr).toContain('what was under way has been undone');
});

test('a reader that takes its time gets all of the result', async () => {
  const many = await testStore('directory');
  for (let day = 1; day <= 600; day += 1) {
    const time = new Date(Date.UTC(2020, 0, day)).toISOString().replaceAll(/[:.]/g, '-');
    await many.store.create(`database-backups/${time}/backup-${time}.sql.gz.encrypted`, Buffer.from('x'));
  }
  const script = `"$0" "$1" list --json | { sleep 4; cat; }; exit "\${PIPESTATUS[0]}"`;
  const env = {PATH: process.env.PATH ?? '', ...storeEnvironment(many.settings)};
  const options = {env, extendEnv: false, reject: false} as const;
  const {exitCode, stdout} = await execa('bash', ['-c', script, process.execPath, program], options);
  expect(exitCode).toBe(0);
  expect(stdout.length).toBeGreaterThan(100_000);
  expect(() => JSON.parse(stdout)).not.toThrow();
  await many.dispose();
});

test('a second Ctrl-C, while the store does not answer to what undoes the first', async () => {
  const proxy = await startProxy(objects, ({method}) => (method === 'DELETE' ? {hold: true} : undefined));
  const large = await createDatabase(postgres, {
    sql: `CREATE TABLE filler AS SELECT n, md5('a' || n) || md5('b' || n) AS text FROM generate_series(1, 400000) n`,
  });
  const settings = {DATABASE_URL: large.url, CLOUDFLARE_R2_ENDPOINT: proxy.endpoint};
  const child = startCli(['backup'], {...environment, ...settings});
  let stderr = '';
  child.stderr?.on('data', (text) => (stderr += text));
  const stored = () => proxy.requests.some(({method, url}) => method === 'PUT' && url.includes('partNumber'));
  await waitUntil(stored, {what: 'a part to be on its way', everyMs: 2});
  child.kill('SIGINT');
  await waitUntil(() => proxy.faulted.length > 0, {what: 'the upload to be aborted', everyMs: 2});
  await delay(500);
  child.kill('SIGINT');
  expect(await child).toMatchObject({signal: 'SIGINT'});
  expect(stderr).not.toContain(said);
  await proxy.stop();
  await large.drop();
});

describe('at the question before a restore', () => {
  test.each<[string, string | NodeJS.Signals, number, string]>([
    ['Ctrl-C', '\u0003', 130, 'INTERRUPTED'],
    ['Ctrl-D', '\u0004', 7, 'REFUSED'],
    ['another name', 'other\r', 7, 'REFUSED'],
    ['SIGTERM', 'SIGTERM', 143, 'INTERRUPTED'],
  ])('%s', async (_, answer, expected, code) => {
    await cli(['backup'], environment);
    // script (bsdutils) gives the program a terminal; the shell says the program's pid.
    const command = `sh -c 'echo "pid $$ "; exec "$0" "$@"' '${process.execPath}' '${program}' restore --latest`;
    const env = {PATH: process.env.PATH ?? '', TERM: 'xterm', ...environment};
    const child = execa('script', ['-qec', command, '/dev/null'], {env, extendEnv: false, reject: false});
    let shown = '';
    child.stdout.on('data', (text) => (shown += text));
    await waitUntil(() => shown.includes('Type the name of the database'), {what: 'the question'});
    if (answer.startsWith('SIG')) process.kill(Number(/pid (\d+)/.exec(shown)?.[1]), answer);
    else child.stdin.write(answer);
    const {exitCode} = await child;
    expect(shown).toContain(`Code: ${code}`);
    expect(exitCode).toBe(expected);
    expect(await database.query('SELECT count(*) FROM filler')).toBe('100000');
  });
});

test.each(['--help', 'files --help', 'completion bash'])(
  '%s, of which somebody reads the first line only',
  async (args) => {
    const script = `"$0" "$1" ${args} | head -1; exit "\${PIPESTATUS[0]}"`;
    const {exitCode, stderr} = await execa('bash', ['-c', script, process.execPath, program], {reject: false});
    expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''});
  },
);

test('restore --output -, of which somebody reads the first line only', async () => {
  await cli(['backup'], environment);
  const env = {PATH: process.env.PATH ?? '', ...environment};
  const script = `"$0" "$1" restore --latest --output - | head -1; exit "\${PIPESTATUS[0]}"`;
  const options = {env, extendEnv: false, reject: false, stdin: 'ignore'} as const;
  const {exitCode, stderr} = await execa('bash', ['-c', script, process.execPath, program], options);
  expect(stderr).toContain('the program that read it went away before the end (EPIPE)');
  expect(stderr).not.toContain('removed');
  expect(exitCode).toBe(1);
});

test('a call of process.exit would be seen', async () => {
  const {stderr} = await execa(process.execPath, ['--eval', 'process.exit()'], {env: telling});
  expect(stderr).toContain(said);
});
