/**
 * Every command, and failures, with recognisable secrets in every variable and everything debugged: none of them is in any
 * output, file, command line or object, and nobody is connected to but the configured endpoints.
 */
import {randomBytes} from 'node:crypto';
import {mkdir, readdir, readFile, stat, writeFile} from 'node:fs/promises';
import {createServer, type Server} from 'node:http';
import type {AddressInfo} from 'node:net';
import path from 'node:path';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {openStores} from '../../src/lib/upload/open-store.ts';
import {allCommandLines, program, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {createBucket} from '../support/object-server.ts';
import {ensurePrograms} from '../support/packages.ts';
import {runSql} from '../support/postgres-server.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {contentOf, newKey, s3Settings, type TestStore, testStore} from '../support/settings.ts';
import {OwnFolders} from './interrupted.ts';

const {postgres, objects} = servers();
const area = 'Secrets';
const role = `loma_${randomBytes(4).toString('hex')}`;
const secrets = {
  'the password of DATABASE_URL': `pw@:/${randomBytes(9).toString('hex')}`,
  PHI_ENCRYPTION_KEY: newKey(),
  PHI_ENCRYPTION_KEYS_PREVIOUS: newKey(),
  CLOUDFLARE_R2_SECRET_ACCESS_KEY: objects.secretAccessKey,
  'the path of LOMA_BACKUP_PING_URL': randomBytes(12).toString('hex'),
  LOMA_BACKUP_RECOVERY_PASSPHRASE: randomBytes(12).toString('hex'),
};
/** As they stand, percent-encoded, and as the bytes that the keys stand for. */
const forms = Object.values(secrets).flatMap((secret) => [
  Buffer.from(secret),
  Buffer.from(encodeURIComponent(secret)),
  Buffer.from(Buffer.from(secret).toString('base64')),
  ...(/^[0-9a-f]{64}$/.test(secret)
    ? [Buffer.from(secret, 'hex'), Buffer.from(Buffer.from(secret, 'hex').toString('base64'))]
    : []),
]);

let database: TestDatabase;
let target: TestDatabase;
let place: TestStore;
let filesBucket: string;
let monitor: Server;
let folders: OwnFolders;
let environment: Record<string, string>;
let outputs = '';
let commandLines = '';
const connections = new Set<string>();

beforeAll(async () => {
  await ensurePrograms(['strace']);
  await runSql(
    postgres.adminUrl,
    `CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${secrets['the password of DATABASE_URL']}'`,
  );
  database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 20000) AS n'});
  target = await createDatabase(postgres);
  place = await testStore('s3');
  filesBucket = await createBucket(objects);
  monitor = createServer((request, answer) => {
    request.on('data', (chunk) => (outputs += String(chunk)));
    request.on('end', () => answer.end('OK'));
  });
  await new Promise<void>((resolve) => monitor.listen(0, '127.0.0.1', resolve));
  folders = await OwnFolders.create();
  await mkdir(path.join(folders.cwd, 'uploads'));
  await writeFile(path.join(folders.cwd, 'uploads/scan.pdf'), randomBytes(5000));
  environment = {
    ...storeEnvironment(place.settings),
    CLOUDFLARE_R2_BUCKET_FILES: filesBucket,
    DATABASE_URL: url(database.name),
    TEST_DATABASE_URL: url('postgres'),
    PHI_ENCRYPTION_KEY: secrets.PHI_ENCRYPTION_KEY,
    PHI_ENCRYPTION_KEYS_PREVIOUS: secrets.PHI_ENCRYPTION_KEYS_PREVIOUS,
    LOMA_BACKUP_RECOVERY_PASSPHRASE: secrets.LOMA_BACKUP_RECOVERY_PASSPHRASE,
    LOMA_BACKUP_PING_URL: `http://127.0.0.1:${(monitor.address() as AddressInfo).port}/${secrets['the path of LOMA_BACKUP_PING_URL']}`,
    DEBUG: '*',
    NODE_DEBUG: 'http',
    PATH: process.env.PATH ?? '',
    ...folders.environment,
  };
}, 120_000);
afterAll(async () => {
  await Promise.all([database.drop(), target.drop(), place.dispose(), folders.remove()]);
  monitor.close();
  await runSql(postgres.adminUrl, `DROP ROLE ${role}`);
});

function url(name: string, password = secrets['the password of DATABASE_URL']): string {
  return postgres.url(name, {user: role, password});
}

/** Runs a command under strace, and looks at all command lines as long as it runs. */
async function run(args: readonly string[], expected: number, changes: Record<string, string> = {}): Promise<void> {
  const trace = path.join(folders.root, 'trace');
  const running = execa(
    'strace',
    [
      '-f',
      '-qq',
      '--seccomp-bpf',
      '-e',
      'trace=connect,sendto,sendmsg',
      '-e',
      'signal=none',
      '-o',
      trace,
      process.execPath,
      program,
      ...args,
    ],
    {cwd: folders.cwd, env: {...environment, ...changes}, extendEnv: false, reject: false, stdin: 'ignore'},
  );
  let isRunning = true;
  const ended = running.finally(() => (isRunning = false));
  while (isRunning) commandLines += await allCommandLines();
  const {exitCode, stdout, stderr} = await ended;
  outputs += `${stdout}\n${stderr}\n`;
  if (exitCode !== expected)
    throw new Error(`${args.join(' ')}: exit code ${exitCode}, not ${expected}\n${stdout}\n${stderr}`);
  for (const line of (await readFile(trace, 'latin1')).split('\n')) {
    const inet = /sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")/.exec(line);
    if (inet) connections.add(`${inet[2] ?? inet[3]}:${inet[1]}`);
  }
  await writeFile(trace, '');
}

function expectNone(bytes: Buffer, where: string): void {
  for (const form of forms) {
    if (bytes.includes(form)) throw new Error(`${form.toString('latin1').slice(0, 4)}… is in ${where}`);
  }
}

test('are nowhere, and nobody else is connected to', async () => {
  await run(['backup'], 0);
  await run(['backup', '--json'], 0);
  await run(['list'], 0);
  // Nothing is proved yet.
  await run(['status', '--json'], 6);
  await run(['verify', '--report', 'report.html'], 0);
  await run(['status', '--prometheus', 'backup.prom'], 0);
  await run(['restore', '--latest', '--yes'], 0, {DATABASE_URL: url(target.name)});
  await run(['restore', '--latest', '--output', 'dump.sql'], 0);
  await run(['prune', '--keep-last', '1', '--keep-days', '0'], 0);
  await run(['keys', 'show'], 0);
  await run(['keys', 'rotate', '--dry-run'], 0);
  await run(['files', 'migrate', 'uploads'], 0);
  await run(['files', 'list'], 0);
  await run(['files', 'verify'], 0);
  await run(['files', 'restore', '--to', 'restored'], 0);
  // Failures, whose messages quote what they were given.
  await run(['backup'], 3, {DATABASE_URL: url('no_such_database')});
  await run(['backup'], 3, {DATABASE_URL: url(database.name).replace(`:${postgres.port}/`, ':1/')});
  await run(['backup'], 2, {
    DATABASE_URL: `mysql://${role}:${encodeURIComponent(secrets['the password of DATABASE_URL'])}@h/d`,
  });
  await run(['backup'], 2, {PHI_ENCRYPTION_KEY: `${secrets.PHI_ENCRYPTION_KEY}0`});
  await run(['backup'], 4, {CLOUDFLARE_R2_BUCKET_BACKUPS: 'no-such-bucket'});
  await run(['backup'], 4, {CLOUDFLARE_R2_ACCESS_KEY_ID: 'nobody'});
  await run(['list'], 4, {CLOUDFLARE_R2_ENDPOINT: 'http://127.0.0.1:1'});
  await run(['restore', 'no-such-key'], 4, {DATABASE_URL: url(target.name)});
  await run(['restore', '--latest', '--output', 'dump.sql'], 7);

  expectNone(Buffer.from(outputs), 'the output, or the report to the monitor');
  expectNone(Buffer.from(commandLines), 'a command line');
  expect(commandLines).toContain('pg_dump');
  await expectNoneInFiles();
  await expectNoneInObjects();
  const allowed = [postgres.port, new URL(objects.endpoint).port, (monitor.address() as AddressInfo).port, 1];
  expect([...connections].filter((each) => !allowed.some((port) => each === `127.0.0.1:${port}`))).toEqual([]);
  expect(connections.size).toBeGreaterThanOrEqual(3);
  for (const [what, outcome] of [
    [
      '24 runs of every command and of failures, DEBUG=*: the output and the report to the monitor',
      'no secret, in any form',
    ],
    ['command lines of all processes, all the time', 'no secret of a variable'],
    ['files that were written', 'no secret; readable by their owner only'],
    ['stored objects and their metadata', 'no secret, in any form'],
    ['network connections (strace)', 'to PostgreSQL, the store and the monitor only'],
  ] as const) {
    recordTrial({area, what, outcome});
  }
}, 600_000);

async function expectNoneInFiles(): Promise<void> {
  const entries = await readdir(folders.root, {recursive: true, withFileTypes: true});
  for (const entry of entries.filter((each) => each.isFile())) {
    const file = path.join(entry.parentPath, entry.name);
    expectNone(await readFile(file), file);
  }
  for (const name of ['report.html', 'dump.sql']) {
    expect({name, mode: (await stat(path.join(folders.cwd, name))).mode & 0o777}).toEqual({name, mode: 0o600});
  }
}

async function expectNoneInObjects(): Promise<void> {
  using stores = await openStores({...s3Settings(objects, place.settings.backupsBucket), filesBucket});
  let count = 0;
  for (const store of [stores.backups, stores.files]) {
    for await (const {key} of store.list('')) {
      const head = await store.head(key);
      expectNone(Buffer.concat([Buffer.from(JSON.stringify([key, head])), await contentOf(store, key)]), key);
      count += 1;
    }
  }
  expect(count).toBeGreaterThanOrEqual(3);
}
