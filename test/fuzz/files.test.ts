/** The objects of files, their metadata and the index of hidden names, damaged: what was stored is read, or an error of ours. */
import {createCipheriv, randomBytes} from 'node:crypto';
import {readdir, readFile, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {keyring} from '../../src/lib/encrypt/keys.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {objectKeyOf} from '../../src/lib/files/file-names.ts';
import {readFiles} from '../../src/lib/operations/files-list.ts';
import {migrateFiles} from '../../src/lib/operations/files-migrate.ts';
import {describeFile, type FilesKeyring, filesKeyring, readContent} from '../../src/lib/operations/files-objects.ts';
import {Secret} from '../../src/lib/secret.ts';
import {noise} from '../lib/feed.ts';
import {type FilesPlace, filesPlace} from '../support/files-place.ts';
import {Random} from '../support/random.ts';
import {recordTrial} from '../support/reliability.ts';
import {runtime} from '../support/settings.ts';
import {bySize, seed} from '../support/size.ts';
import {damaged, damagedJson} from './mutations.ts';

let place: FilesPlace;
let keys: FilesKeyring;
/** What lies in the bucket, with the metadata beside the objects, by path. */
const originals = new Map<string, Buffer>();
/** What the files hold and are called, by key. */
const stored = new Map<string, {name: string; content: Buffer}>();

beforeAll(async () => {
  place = await filesPlace('directory');
  keys = filesKeyring(keyring(new Secret(place.key)));
  const contents = {'empty.txt': Buffer.alloc(0), 'a/x-ray.png': noise(3000, 1), 'a/long.pdf': noise((1 << 20) + 5, 2)};
  await place.write(contents);
  await migrateFiles(place.migrate({exclude: ['a/**']}), runtime());
  await migrateFiles(place.migrate({hideNames: true, exclude: ['*.txt']}), runtime());
  await putLegacy('uploads/older.txt', 'of the older procedure');
  for (const entry of await readdir(place.folder, {recursive: true, withFileTypes: true})) {
    const file = path.join(entry.parentPath, entry.name);
    if (entry.isFile()) originals.set(file, await readFile(file));
  }
  const {files, index} = await readFiles(place.store, undefined, keys, runtime());
  expect(files).toHaveLength(4);
  expect(index.size).toBe(2);
  for (const {key, name} of files) stored.set(key, {name, content: (await read(key)).released});
  const inDirectory = Object.entries(contents).map(([name, content]) => ({name: `uploads/${name}`, content}));
  expect([...stored.values()]).toEqual(expect.arrayContaining(inDirectory));
});
afterAll(() => place.dispose());

/** IV, ciphertext, tag: without metadata. */
async function putLegacy(name: string, text: string): Promise<void> {
  const iv = randomBytes(16);
  const cipher = createCipheriv('aes-256-gcm', Buffer.from(place.key, 'hex'), iv);
  const sealed = Buffer.concat([iv, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
  await place.store.create(objectKeyOf(name), sealed);
}

/** What a restore writes of an object, by what name, and how that ends. */
async function read(key: string): Promise<{name: string | undefined; released: Buffer; error: unknown}> {
  const chunks: Buffer[] = [];
  let name: string | undefined;
  try {
    const {index} = await readFiles(place.store, undefined, keys, runtime());
    const object = await describeFile(place.store, key, keys.all, index);
    if (!object) throw new Error(`There is no object ${key}.`);
    name = object.name;
    await readContent(place.store, object, keys, undefined, (chunk) => void chunks.push(chunk));
    return {name, released: Buffer.concat(chunks), error: undefined};
  } catch (error) {
    return {name, released: Buffer.concat(chunks), error};
  }
}

async function expectNothingFalse(): Promise<string[]> {
  const outcomes: string[] = [];
  for (const [key, {name, content}] of stored) {
    const {name: found, released, error} = await read(key);
    // Of an object whose hidden name is lost, it is the one in its key.
    expect([name, key.replace(/^migrated\//, '').replace(/\.encrypted$/, '')]).toContain(found);
    expect(content.subarray(0, released.length).equals(released)).toBe(true);
    if (error === undefined) expect(released.length).toBe(content.length);
    else
      expect({isOurs: error instanceof BackupError, error}).toMatchObject({isOurs: true, error: {kind: 'integrity'}});
    outcomes.push(error === undefined ? 'whole' : (error as BackupError).code);
  }
  return outcomes;
}

describe('the files of a bucket', () => {
  it('damaged in any way are read as they were stored, or refused', async () => {
    const random = new Random(seed);
    const paths = [...originals.keys()];
    const all = [...originals.values()];
    const seen = new Set<string>();
    const cases = bySize({short: 60, full: 3000});
    for (let count = 0; count < cases; count += 1) {
      const file = paths[random.below(paths.length)] ?? '';
      const original = originals.get(file) ?? Buffer.alloc(0);
      const isJson = original[0] === '{'.charCodeAt(0);
      const body = isJson && random.below(2) === 0 ? damagedJson(original, random) : damaged(original, random, all);
      await writeFile(file, body);
      try {
        for (const outcome of await expectNothingFalse()) seen.add(outcome);
      } catch (error) {
        throw new Error(`case ${count} of seed ${seed}: ${file}`, {cause: error});
      }
      await writeFile(file, original);
    }
    expect([...seen]).toEqual(expect.arrayContaining(['DECRYPTION_FAILED', 'whole']));
    recordTrial({
      area: 'Hostile input: files',
      what: `${cases} damages to objects of files, their metadata and the index of names`,
      outcome: 'as stored, or refused',
    });
  }, 1_800_000);

  it('exchanged with one another are refused, but for those of the older procedure, whose names nothing binds', async () => {
    const paths = [...originals.keys()].filter((file) => !file.includes('older'));
    for (const file of paths) {
      for (const other of paths) {
        await writeFile(file, originals.get(other) ?? Buffer.alloc(0));
        await expectNothingFalse();
      }
      await writeFile(file, originals.get(file) ?? Buffer.alloc(0));
    }
  });
});
