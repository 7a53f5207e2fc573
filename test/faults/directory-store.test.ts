/** System calls that fail under a `file://` store, by strace's fault injection: what no disk of this machine does when asked to. */
import {mkdir, readdir} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, afterEach, beforeAll, beforeEach, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {list} from '../../src/lib/operations/list.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import {program, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {ensurePrograms} from '../support/packages.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  contentOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';

const area = 'A disk that fails';
const key = newKey();
let database: TestDatabase;
let place: TestStore;

beforeAll(async () => {
  await ensurePrograms(['strace']);
  database = await createDatabase(servers().postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS n'});
}, 120_000);
afterAll(() => database.drop());

beforeEach(async () => {
  place = await testStore('directory');
});
afterEach(() => place.dispose());

/** Runs a command; the system calls fail as strace is told to. */
async function runWith(faults: readonly string[], args: readonly string[]) {
  const {exitCode, stdout, stderr} = await execa(
    'strace',
    ['-f', '-qq', '-o', '/dev/null', ...faults, process.execPath, program, ...args],
    {
      cwd: '/',
      env: {
        ...storeEnvironment(place.settings),
        DATABASE_URL: database.url,
        PHI_ENCRYPTION_KEY: key,
        // System calls are counted by thread.
        UV_THREADPOOL_SIZE: '1',
        PATH: process.env.PATH ?? '',
        HOME: '/nonexistent',
      },
      extendEnv: false,
      reject: false,
      stdin: 'ignore',
      timeout: 60_000,
    },
  );
  return {exitCode, output: `${stdout}\n${stderr}`};
}

/** What a file system without hard links answers. */
const withoutLinks = (code: string) => ['-e', 'trace=?link,linkat', '-e', `inject=?link,linkat:error=${code}`];

test.each(['EPERM', 'EOPNOTSUPP', 'ENOSYS'])(
  'without hard links (%s) a backup is stored all the same',
  async (code) => {
    const {exitCode, output} = await runWith(withoutLinks(code), ['backup']);
    expect({exitCode, output}).toMatchObject({exitCode: 0, output: expect.stringContaining('Backup complete')});
    const [backupKey = '', manifest] = await place.keys();
    expect(manifest).toBe(`${backupKey}.metadata.json`);
    expect(await place.unfinished()).toEqual([]);
    const verified = await verify(verifySettings({scratch: servers().postgres.adminUrl, store: place, key}), runtime());
    expect(verified.isProved).toBe(true);
    recordTrial({area, what: `file:// store, no hard links (${code})`, outcome: 'the backup is complete'});
  },
);

test('without hard links exactly one of several wins that create an object at once, and it is whole', async () => {
  const script = `
    import {DirectoryStore} from ${JSON.stringify(path.resolve(import.meta.dirname, '../../src/lib/upload/directory-store.ts'))};
    const store = new DirectoryStore(${JSON.stringify(place.folder)});
    const bodies = Array.from({length: 8}, (_, index) => Buffer.alloc(100_000, index + 1));
    const creations = await Promise.allSettled(bodies.map((body) => store.create('x', body)));
    console.log(JSON.stringify(creations.map(({reason}) => reason?.code ?? 'created')));`;
  const trace = ['-f', '-qq', '-o', '/dev/null', ...withoutLinks('EPERM')];
  const {stdout} = await execa('strace', [...trace, process.execPath, '--input-type=module', '-e', script]);
  const outcomes: string[] = JSON.parse(stdout);
  const winner = outcomes.indexOf('created');
  expect(outcomes.toSorted()).toEqual([...Array(7).fill('OBJECT_EXISTS'), 'created']);
  expect(await contentOf(place.store, 'x')).toEqual(Buffer.alloc(100_000, winner + 1));
  expect((await filesOf()).map(({name}) => name)).toEqual(['x']);
});

test('an empty object, as a crash may leave it where there are no hard links, is no backup', async () => {
  const backupKey = 'database-backups/2026-01-01T00-00-00-000Z/backup-2026-01-01T00-00-00-000Z.sql.gz.encrypted';
  const stateOf = async () =>
    (await list({store: place.settings, optionalKeys: keySettings(key)}, {})).map(({state}) => state);
  await place.store.create(backupKey, Buffer.alloc(0));
  expect(await stateOf()).toEqual(['incomplete']);
  await place.store.create(`${backupKey}.metadata.json`, Buffer.alloc(0));
  expect(await stateOf()).toEqual(['damaged']);
});

const filesOf = async () =>
  (await readdir(place.folder, {recursive: true, withFileTypes: true})).filter((entry) => entry.isFile());

test('the folder cannot be synced when the object has its name: the backup fails, and leaves nothing', async () => {
  await mkdir(place.folder);
  // The files lie in deeper folders.
  const folder = path.join(place.folder, 'database-backups');
  await mkdir(folder);
  const faults = ['-P', folder, '-e', 'trace=fsync', '-e', 'inject=fsync:error=EIO'];
  const {exitCode, output} = await runWith(faults, ['backup']);
  expect(output).toContain('EIO');
  expect(exitCode).toBe(4);
  expect((await filesOf()).map(({name}) => name)).toEqual([]);
  recordTrial({
    area,
    what: 'file:// store, the sync of a folder',
    outcome: 'STORAGE_FAILED (exit code 4); no file left',
  });
});

test('the name that the object was written under cannot be removed: the backup is complete, and the next prune removes it', async () => {
  // The first of each thread is let through: that of pg_dump's pipe, and that of the object with the data.
  const faults = ['-e', 'trace=unlink', '-e', 'inject=unlink:error=EPERM:when=2+'];
  const {exitCode, output} = await runWith(faults, ['backup']);
  expect({exitCode, output}).toMatchObject({exitCode: 0, output: expect.stringContaining('Backup complete')});
  const [manifest, backupKey] = (await place.keys()).toReversed();
  expect(manifest).toBe(`${backupKey}.metadata.json`);
  expect(await place.unfinished()).toEqual([manifest]);
  for await (const upload of place.store.unfinishedUploads('')) await place.store.abortUpload(upload);
  expect(await place.unfinished()).toEqual([]);
  expect(await place.keys()).toEqual([backupKey, manifest]);
  recordTrial({area, what: 'file:// store, the removal of a partial file', outcome: 'the backup is complete'});
});
