/** `files` as a process: exit codes, JSON, and Ctrl-C. */
import {spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {readdir} from 'node:fs/promises';
import path from 'node:path';
import {afterEach, beforeEach, expect, test} from '@jest/globals';
import {type FilesPlace, filesPlace} from '../support/files-place.ts';
import {waitUntil} from '../support/wait-until.ts';

const script = path.join(import.meta.dirname, '../../bin/run.js');

let place: FilesPlace;
beforeEach(async () => {
  place = await filesPlace('directory');
});
afterEach(() => place.dispose());

function start(args: readonly string[]) {
  const child = spawn(process.execPath, [script, 'files', ...args], {
    env: {
      PATH: process.env.PATH,
      LOMA_BACKUP_STORE: `file://${path.dirname(place.folder)}`,
      CLOUDFLARE_R2_BUCKET_FILES: path.basename(place.folder),
      PHI_ENCRYPTION_KEY: place.key,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => (stdout += text));
  child.stderr.on('data', (text) => (stderr += text));
  const ended = new Promise<{code: number | null; stdout: string; stderr: string}>((resolve) =>
    child.once('close', (code) => resolve({code, stdout, stderr})),
  );
  return {child, ended};
}

const run = (...args: string[]) => start(args).ended;

test('migrate, list, verify and restore end with honest exit codes, and print one document with --json', async () => {
  await place.write({'a b.txt': 'content', other: 'other'});
  const migrated = await run('migrate', place.uploads, '--json');
  expect(migrated.code).toBe(0);
  expect(JSON.parse(migrated.stdout)).toMatchObject({uploaded: 2, failed: 0});
  expect((await run('list')).stdout).toContain('uploads/a b.txt');
  expect((await run('verify')).code).toBe(0);
  const restored = await run('restore', '--to', path.join(place.home, 'restored'));
  expect(restored.code).toBe(0);
  expect(restored.stdout).toContain('2 files');

  await place.write({other: 'another'});
  const conflict = await run('migrate', place.uploads, '--json');
  expect(conflict.code).toBe(1);
  expect(JSON.parse(conflict.stdout)).toMatchObject({conflicts: 1, unchanged: 1});
  await place.store.replace('migrated/uploads/other.encrypted', Buffer.from('damaged'));
  expect((await run('verify')).code).toBe(6);
  expect((await run('migrate', path.join(place.home, 'none'))).code).toBe(2);
});

test('a prefix that nothing begins with ends with its exit code; / and ./ before a prefix mean nothing', async () => {
  await place.write({'sub/a': '1', b: '2'});
  expect((await run('migrate', place.uploads)).code).toBe(0);
  const to = path.join(place.home, 'restored');
  const restored = await run('restore', 'nomatch', '--to', to);
  expect(restored).toMatchObject({code: 4, stdout: ''});
  expect(restored.stderr).toContain('There are no such files');
  const verified = await run('verify', 'nomatch', '--json');
  expect(verified.code).toBe(6);
  expect(JSON.parse(verified.stdout)).toMatchObject({error: {code: 'FILES_NOT_FOUND', exitCode: 6}});
  expect(await run('list', 'nomatch')).toMatchObject({code: 0, stdout: 'There are no such files.\n'});
  expect(await readdir(place.home)).toEqual(['uploads']);
  expect(await place.keys()).toHaveLength(2);
  for (const prefix of ['/uploads/sub/', './uploads/sub/', '/migrated/uploads/sub/']) {
    expect((await run('list', prefix)).stdout).toContain('1 file,');
    expect((await run('restore', prefix, '--to', to)).code).toBe(0);
    expect((await run('verify', prefix)).stdout).toContain('1 file opened');
  }
  expect(await readdir(path.join(to, 'uploads'))).toEqual(['sub']);
});

test('--dry-run says that files were compared, and of nothing that it was uploaded', async () => {
  await place.write({a: 'x'.repeat(3000), b: 'y'.repeat(2000)});
  const fresh = await run('migrate', place.uploads, '--dry-run');
  expect(fresh.stderr).toMatch(/^\S* ?Compare with the bucket: 2 files would be uploaded, 0 are there already$/m);
  expect(fresh.stdout).toContain('2 files (5.00 kB) would be uploaded');
  expect((await run('migrate', place.uploads, '--include', 'a')).stderr).toContain(
    'Encrypt and upload: 1 files, 3.00 kB',
  );
  const compared = await run('migrate', place.uploads, '--dry-run');
  expect(compared.stderr).toContain('Compare with the bucket: 1 files would be uploaded, 1 are there already, 3.00 kB');
  for (const {stderr} of [fresh, compared]) expect(stderr).not.toContain('Encrypt and upload');
});

test('a file of a hidden name that is gone is named by restore as by verify, and the rest is restored', async () => {
  await place.write({a: '1', b: '2', c: '3'});
  expect((await run('migrate', place.uploads, '--hash-names')).code).toBe(0);
  const [first = ''] = (await place.keys()).filter((key) => key.startsWith('migrated/'));
  await place.store.delete(first);
  const verified = await run('verify');
  expect(verified.code).toBe(6);
  const [, name = ''] =
    /^FAILED +(uploads\/[abc]) +because the index names it; it is gone$/m.exec(verified.stdout) ?? [];
  const restored = await run('restore', '--to', path.join(place.home, 'restored'));
  expect(restored.code).toBe(1);
  expect(restored.stdout).toContain(`${name}  because the index names it; it is gone`);
  expect(restored.stdout).toContain('2 files (2 B) restored');
  expect(restored.stdout).toContain('1 failed');
});

test.each<[NodeJS.Signals, number]>([
  ['SIGINT', 130],
  ['SIGTERM', 143],
])('%s in the middle leaves nothing half-done, and the next run goes on', async (signal, code) => {
  const files = Array.from({length: 12}, (_, index) => [`large ${index}`, randomBytes(12 << 20)]);
  await place.write(Object.fromEntries(files));
  const {child, ended} = start(['migrate', place.uploads, '--concurrency', '2']);
  await waitUntil(async () => (await place.keys()).length > 0, {what: 'the first file to be stored', everyMs: 5});
  child.kill(signal);
  const result = await ended;
  expect(result.code).toBe(code);
  expect(result.stderr).toContain('Run it again');
  expect(await place.unfinished()).toEqual([]);
  expect((await place.keys()).length).toBeLessThan(12);
  expect(await readdir(place.uploads)).toHaveLength(12);
  expect((await run('migrate', place.uploads)).code).toBe(0);
  expect(await place.keys()).toHaveLength(12);
});
