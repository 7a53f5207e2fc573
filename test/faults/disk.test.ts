/** A full disk under a `file://` store and under `--output`: a small tmpfs, which only root can mount. */
import {execFileSync} from 'node:child_process';
import {mkdir, mkdtemp, readdir, rm, statfs, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {backup} from '../../src/lib/operations/backup.ts';
import {extract} from '../../src/lib/operations/extract.ts';
import {clinicSql} from '../support/clinic.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {contentsOfStored} from './stored.ts';

const {postgres} = servers();
const key = newKey();
const area = 'A full disk';
const mib = 1 << 20;

/** Whether this user may mount: containers forbid it at times. */
function canMount(): boolean {
  const folder = execFileSync('mktemp', ['-d'], {encoding: 'utf8'}).trim();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], {stdio: 'ignore'});
    execFileSync('umount', [folder]);
    return true;
  } catch {
    return false;
  } finally {
    execFileSync('rmdir', [folder]);
  }
}
// The reason for a skip: a disk can be made full in no other way without harm to this machine.
const onSmallDisk = canMount() ? test : test.skip;

let clinic: TestDatabase;
let small: TestDatabase;
let whole: TestStore;
let backupKey: string;
let bodyBytes: number;
let manifestBytes: number;
beforeAll(async () => {
  [clinic, small] = await Promise.all([
    createDatabase(postgres, {sql: clinicSql({patients: 1500})}),
    createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 100) AS n'}),
  ]);
  whole = await testStore('directory');
  backupKey = (await backup(backupSettings({database: clinic.url, store: whole, key}), runtime())).key;
  bodyBytes = (await contentOf(whole.store, backupKey)).length;
  manifestBytes = (await contentOf(whole.store, `${backupKey}.metadata.json`)).length;
}, 120_000);
afterAll(async () => {
  await Promise.all([clinic.drop(), small.drop()]);
  await whole.dispose();
});

/** A disk of its own of so many bytes. */
async function withDisk(bytes: number, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=700`, 'tmpfs', folder]);
  try {
    await work(folder);
  } finally {
    execFileSync('umount', [folder]);
    await rm(folder, {recursive: true});
  }
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, {recursive: true, withFileTypes: true});
  return entries.filter((entry) => entry.isFile()).map(({name}) => name);
}

async function expectFull(folder: string): Promise<void> {
  const settings = {kind: 'directory', path: folder, backupsBucket: 'backups', filesBucket: 'files'} as const;
  const store = {...whole, settings};
  const failure = await failureOf(
    backup(backupSettings({database: clinic.url, store, key}, {prune: false}), runtime()),
  );
  expect(failure).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4, hint: expect.stringContaining('disk is full')});
  expect((await filesIn(folder)).filter((name) => name !== 'filler')).toEqual([]);
}

onSmallDisk('that is mounted read-only under a file:// store', async () => {
  await withDisk(mib, async (folder) => {
    execFileSync('mount', ['-o', 'remount,ro', folder]);
    const settings = {kind: 'directory', path: folder, backupsBucket: 'backups', filesBucket: 'files'} as const;
    const failure = await failureOf(
      backup(backupSettings({database: small.url, store: {...whole, settings}, key}), runtime()),
    );
    expect(failure).toMatchObject({
      code: 'STORAGE_FAILED',
      reason: expect.stringContaining('EROFS'),
      hint: expect.stringContaining('mounted read-only'),
    });
  });
  recordTrial({
    area,
    what: 'file:// store on a disk that is mounted read-only',
    outcome: 'STORAGE_FAILED that says so',
  });
});

onSmallDisk('under a file:// store, in the middle of the dump', async () => {
  await withDisk(mib, async (folder) => {
    await expectFull(folder);
    const settings = {kind: 'directory', path: folder, backupsBucket: 'backups', filesBucket: 'files'} as const;
    const next = await backup(backupSettings({database: small.url, store: {...whole, settings}, key}), runtime());
    expect(next.rows).toBe(100);
  });
  recordTrial({
    area,
    what: 'file:// store, in the middle of the dump',
    outcome: 'STORAGE_FAILED (exit code 4) that says so; no file left; a smaller backup succeeds',
  });
});

onSmallDisk('under a file:// store, when the manifest is written', async () => {
  // As much room as the object needs, in pages, and less than the manifest needs.
  await withDisk(bodyBytes + 8 * mib, async (folder) => {
    await mkdir(path.join(folder, 'backups'));
    const {bavail, bsize} = await statfs(folder);
    const wanted = (Math.ceil(bodyBytes / 4096) + Math.floor((manifestBytes - 1) / 4096)) * 4096;
    await writeFile(path.join(folder, 'filler'), Buffer.alloc(bavail * bsize - wanted));
    await expectFull(folder);
  });
  recordTrial({
    area,
    what: 'file:// store, at the manifest',
    outcome: 'STORAGE_FAILED (exit code 4) that says so; no file left',
  });
});

onSmallDisk('under --output', async () => {
  await withDisk(mib, async (folder) => {
    const settings = {
      store: whole.settings,
      keys: keySettings(key),
      choice: {by: 'latest'} as const,
      output: path.join(folder, 'dump.sql'),
    };
    expect(await failureOf(extract(settings, runtime()))).toMatchObject({
      code: 'OUTPUT_FAILED',
      exitCode: 1,
      reason: expect.stringContaining('ENOSPC'),
    });
    expect(await filesIn(folder)).toEqual([]);
  });
  expect((await contentsOfStored(whole, backupKey, key)).tables.length).toBeGreaterThan(0);
  recordTrial({
    area,
    what: 'restore --output',
    outcome: 'OUTPUT_FAILED (exit code 1); no file left; the backup is untouched',
  });
});
