/**
 * What somebody may write into the bucket who has only the bucket, and what somebody who has the key, too: names that lead
 * elsewhere, that a terminal would obey, that collide, and objects that are none. The real program, on a real S3 server.
 */
import {randomBytes} from 'node:crypto';
import {mkdir, readdir, readFile, symlink, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {encryptionKey} from '../../src/lib/encrypt/keys.ts';
import {sealWhole} from '../../src/lib/encrypt/seal-whole.ts';
import {objectKeyOf} from '../../src/lib/files/file-names.ts';
import {migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {Secret} from '../../src/lib/secret.ts';
import {type CliEnvironment, cli, storeEnvironment} from '../support/cli.ts';
import {type FilesPlace, filesPlace, tree} from '../support/files-place.ts';
import {runtime} from '../support/settings.ts';

/** Content of a planted file. */
const planted = 'planted';

const refused = [
  '../escaped',
  'uploads/../../escaped',
  'uploads/sub/../../../escaped',
  '/etc/escaped',
  'uploads//double',
  'uploads/./dot',
  'uploads/trailing/',
  `uploads/${'x'.repeat(300)}`,
  // A directory on the way is a link; a file stands where a directory would have to.
  'uploads/link/escaped',
  'uploads/good/below',
];
const harmless = [
  'uploads/back\\..\\slash',
  'C:\\windows\\escaped',
  'uploads/\u001b[31mred\u001b]0;title\u0007',
  'uploads/new\nline\r',
  'uploads/\u009b31m',
  'uploads/Case',
  'uploads/case',
  'uploads/..\u2024',
  '~/home',
];

let place: FilesPlace;
let environment: CliEnvironment;

beforeAll(async () => {
  place = await filesPlace('s3');
  environment = {
    ...storeEnvironment(place.settings),
    CLOUDFLARE_R2_BUCKET_FILES: place.settings.backupsBucket,
    PHI_ENCRYPTION_KEY: place.key,
  };
  await place.write({good: 'good'});
  await migrateFiles(place.migrate(), runtime());
  // Well sealed, so that nothing but the name is wrong.
  const key = encryptionKey(new Secret(place.key));
  for (const name of [...refused, ...harmless]) {
    const objectKey = objectKeyOf(name);
    const sealed = sealWhole(Buffer.from(planted), key, {objectKey, compression: 'none', content: 'file'});
    await place.store.replace(objectKey, sealed);
  }
  // None of ours, and nothing sealed.
  await place.store.replace(objectKeyOf('uploads/junk'), randomBytes(1000));
  await place.store.replace(objectKeyOf('uploads/nothing'), Buffer.alloc(0));
  await place.store.replace(objectKeyOf('../junk'), randomBytes(100));
  await place.store.replace(objectKeyOf(`uploads/${'0'.repeat(64)}`), Buffer.from([2, 4, 0x78, 0, 0]));
  await place.store.replace('migrated/uploads/no file.txt', Buffer.from('x'));
});
afterAll(() => place.dispose());

/** What a terminal would obey: everything but line feeds, and tabs. */
function expectPrintable(text: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(text.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g) ?? []).toEqual([]);
}

test('a restore writes nothing outside its directory, and brings back every file that it can', async () => {
  const to = path.join(place.home, 'restored');
  const outside = path.join(place.home, 'outside');
  await mkdir(outside);
  await mkdir(path.join(to, 'uploads'), {recursive: true});
  await symlink('../../outside', path.join(to, 'uploads/link'));
  await writeFile(path.join(place.home, 'escaped'), 'mine');

  // One after another: of a file and a file below its name, the first to be written wins.
  const inOrder = ['--concurrency', '1'];
  const result = await cli(['files', 'restore', '--to', to, '--overwrite', '--json', ...inOrder], environment);
  expect(result.exitCode).toBe(1);
  expectPrintable(result.output);
  const {files} = JSON.parse(result.stdout) as {files: {name: string; action: string; isUnchecked: boolean}[]};
  const actionOf = new Map(files.map(({name, action}) => [name, action]));
  expect(
    Object.fromEntries([...refused, ...harmless, 'uploads/good'].map((name) => [name, actionOf.get(name)])),
  ).toEqual({
    ...Object.fromEntries(refused.map((name) => [name, 'failed'])),
    ...Object.fromEntries(harmless.map((name) => [name, 'restored'])),
    'uploads/good': 'restored',
  });
  for (const name of ['uploads/junk', 'uploads/nothing', '../junk', `uploads/${'0'.repeat(64)}`]) {
    expect(actionOf.get(name)).toBe('failed');
  }
  expect([...(await tree(to)).keys()].sort()).toEqual([...harmless, 'uploads/good'].sort());
  expect(await readdir(outside)).toEqual([]);
  expect((await readdir(place.home)).sort()).toEqual(['escaped', 'outside', 'restored', 'uploads']);
  expect(await readFile(path.join(place.home, 'escaped'), 'utf8')).toBe('mine');
  for (const name of harmless) expect((await readFile(path.join(to, name))).toString()).toBe(planted);

  const text = await cli(['files', 'restore', '--to', to], environment);
  expect(text.exitCode).toBe(1);
  expectPrintable(text.output);
  expect(text.stdout).toContain('\\x1b[31mred');
});

test('verify goes through all of them, and fails for the junk', async () => {
  const result = await cli(['files', 'verify'], environment);
  expect(result.exitCode).toBe(6);
  expectPrintable(result.output);
  expect(result.stdout).toContain(
    `1 with the digest that was stored, ${refused.length + harmless.length} without one, 4 failed`,
  );
});

test.each([[[]], [['--long']], [['uploads/']]])('list %j shows every name, and obeys none', async (args) => {
  const result = await cli(['files', 'list', ...args], environment);
  expect(result.exitCode).toBe(0);
  expectPrintable(result.output);
  expect(result.stdout).toContain('\\x1b[31mred\\x1b]0;title\\x07');
  expect(result.stdout).toContain('uploads/good');
  expect(result.stdout).not.toContain('no file.txt');
});
