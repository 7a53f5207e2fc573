/** dist/loma-backup, as somebody meets it on a machine without Node.js: another directory, an environment that is empty. */
import {createHash} from 'node:crypto';
import {copyFile, mkdtemp, readFile, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {type CliEnvironment, storeEnvironment} from './support/cli.ts';
import type {TestDatabase} from './support/database.ts';
import {rowDigests} from './support/dumps.ts';
import {createDatabase} from './support/postgres-server.ts';
import {servers} from './support/sandbox.ts';
import {newKey, type TestStore, testStore} from './support/settings.ts';

const {postgres} = servers();
/** `npm test` builds it before it runs the tests; by hand: `npm run build:binary`. */
const built = path.resolve(import.meta.dirname, '../dist/loma-backup');

let folder: string;
let database: TestDatabase;
let empty: TestDatabase;
let place: TestStore;
let environment: CliEnvironment;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-binary-'));
  await copyFile(built, path.join(folder, 'program'));
  database = await createDatabase(postgres, {
    sql: `CREATE TABLE visit AS SELECT n, md5(n::text) AS note FROM generate_series(1, 20000) n`,
  });
  empty = await createDatabase(postgres);
  place = await testStore('s3');
  environment = {
    ...storeEnvironment(place.settings),
    CLOUDFLARE_R2_BUCKET_FILES: place.settings.backupsBucket,
    PHI_ENCRYPTION_KEY: newKey(),
    DATABASE_URL: database.url,
  };
});
afterAll(async () => {
  await Promise.all([database.drop(), empty.drop(), place.dispose()]);
  await rm(folder, {recursive: true});
});

function program(args: readonly string[], variables: CliEnvironment = {}) {
  const options = {
    cwd: folder,
    env: variables,
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
    timeout: 60_000,
  } as const;
  return execa(path.join(folder, 'program'), args, options);
}

test('it backs up, proves and restores without Node.js and without PATH', async () => {
  const backup = await program(['backup', '--json'], environment);
  expect(backup).toMatchObject({exitCode: 0});
  const {key} = JSON.parse(backup.stdout);

  const list = await program(['list'], environment);
  expect(list).toMatchObject({exitCode: 0, stdout: expect.stringContaining(key)});

  const verify = await program(['verify'], {...environment, TEST_DATABASE_URL: postgres.url()});
  expect(verify).toMatchObject({exitCode: 0, stdout: expect.stringContaining('Backup proved')});

  const restore = await program(['restore', key], {...environment, DATABASE_URL: empty.url});
  expect(restore).toMatchObject({exitCode: 0, stdout: expect.stringContaining('Restore complete')});
  expect(await rowDigests(empty)).toEqual(await rowDigests(database));
}, 180_000);

test('it has every command, topics, a version, and says what was meant', async () => {
  const manifest = JSON.parse(await readFile(path.resolve(import.meta.dirname, '../oclif.manifest.json'), 'utf8'));
  const ids = Object.keys(manifest.commands);
  expect(ids.length).toBeGreaterThan(10);
  // A command that cannot be loaded says so when its arguments are parsed.
  for (const id of ids) {
    const {exitCode, stderr} = await program([...id.split(':'), '--no-such-flag']);
    expect({id, exitCode, stderr}).toMatchObject({exitCode: 2, stderr: expect.stringContaining('Nonexistent flag')});
  }
  expect(await program(['files', '--help'])).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining('files migrate'),
  });
  expect(await program(['--version'])).toMatchObject({
    stdout: expect.stringMatching(/^loma-backup\/\d+\.\d+\.\d+ /),
    stderr: '',
  });
  expect(await program(['bakcup'])).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('`loma-backup backup`'),
  });
}, 120_000);

test('its digest, and what it is made of under which licences, lie beside it', async () => {
  const [sha256, name] = (await readFile(`${built}.sha256`, 'utf8')).trim().split('  ');
  expect(name).toBe('loma-backup');
  expect(sha256).toBe(
    createHash('sha256')
      .update(await readFile(built))
      .digest('hex'),
  );
  const bill = JSON.parse(await readFile(`${built}.cdx.json`, 'utf8'));
  expect(bill).toMatchObject({bomFormat: 'CycloneDX', metadata: {component: {name: 'loma-backup'}}});
  const names: string[] = bill.components.map(({name: component}: {name: string}) => component);
  expect(names).toEqual(
    expect.arrayContaining(['node', '@aws-sdk/client-s3', '@aws-crypto/encrypt-node', '@oclif/core']),
  );
  expect(names.filter((component) => ['jest', 'esbuild', '@swc/core', 'oclif'].includes(component))).toEqual([]);
  const licenses = await readFile(`${built}.licenses.txt`, 'utf8');
  expect(names.filter((component) => component !== 'node' && !licenses.includes(`\n${component} `))).toEqual([]);
  expect(licenses).toContain('Copyright Node.js contributors');
});
