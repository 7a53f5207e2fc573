/** System calls that fail under a `file://` store, by strace's fault injection: what no disk of this machine does when asked to. */
import {mkdir, readdir} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, afterEach, beforeAll, beforeEach, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {program, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {ensurePrograms} from '../support/packages.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, type TestStore, testStore} from '../support/settings.ts';

const area = 'A disk that fails';
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
        PHI_ENCRYPTION_KEY: newKey(),
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
