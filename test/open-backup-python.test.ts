/** examples/open_backup.py, which shares no code with the program, opens what the program has stored: docs/FORMAT.md is true. */
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {gunzip, zstdDecompress} from 'node:zlib';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import type {CompressionName} from '../src/lib/config.ts';
import {type BackupResult, backup} from '../src/lib/operations/backup.ts';
import {extract} from '../src/lib/operations/extract.ts';
import {clinicSql} from './support/clinic.ts';
import {createDatabase, type TestDatabase} from './support/database.ts';
import {debianPython, ensurePrograms} from './support/packages.ts';
import {servers} from './support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  keySettings,
  newKey,
  runtime,
  type TestStore,
  testStore,
} from './support/settings.ts';
import {endOfFirstFrame, legacyBackup} from './support/tampering.ts';

const script = path.resolve('examples/open_backup.py');
const key = newKey();

let folder: string;
let place: TestStore;
let clinic: TestDatabase;
beforeAll(async () => {
  await ensurePrograms(['python3-cryptography']);
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-reader-'));
  place = await testStore('directory');
  clinic = await createDatabase(servers().postgres, {sql: clinicSql({patients: 900})});
});
afterAll(async () => {
  await clinic.drop();
  await place.dispose();
  await rm(folder, {recursive: true, force: true});
});

/** Runs the reader as a person would. */
async function read(args: readonly string[], environment: Record<string, string> = {PHI_ENCRYPTION_KEY: key}) {
  const result = await execa(debianPython, ['-I', script, ...args], {
    encoding: 'buffer',
    reject: false,
    env: environment,
  });
  return {
    exitCode: result.exitCode,
    output: Buffer.from(result.stdout as Uint8Array),
    message: Buffer.from(result.stderr as Uint8Array).toString(),
  };
}

async function fileOf(name: string, bytes: Uint8Array): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, bytes);
  return file;
}

/** The plain dump as the program itself writes it. */
async function dumpOf(backupKey: string): Promise<Buffer> {
  const output = path.join(folder, `${path.basename(backupKey)}.sql`);
  await rm(output, {force: true});
  const choice = {by: 'key', key: backupKey} as const;
  await extract({store: place.settings, keys: keySettings(key), choice, output}, runtime());
  const {stdout} = await execa('cat', [output], {encoding: 'buffer', stripFinalNewline: false});
  return Buffer.from(stdout);
}

const decompress = {gzip: promisify(gunzip), zstd: promisify(zstdDecompress)};

interface Stored {
  taken: BackupResult;
  bytes: Buffer;
  /** Files that hold the object and the manifest. */
  object: string;
  manifest: string;
}

async function store(compression: CompressionName): Promise<Stored> {
  const taken = await backup(backupSettings({database: clinic.url, store: place, key}, {compression}), runtime());
  const bytes = await contentOf(place.store, taken.key);
  const object = await fileOf(`${compression}.object`, bytes);
  const manifest = await fileOf(`${compression}.manifest`, await contentOf(place.store, `${taken.key}.metadata.json`));
  return {taken, bytes, object, manifest};
}

describe('the reader in Python', () => {
  let stored: Stored;
  beforeAll(async () => {
    stored = await store('gzip');
  });

  test.each<CompressionName>(['gzip', 'zstd'])(
    'brings the same dump out of several frames as the program does (%s)',
    async (compression) => {
      const {taken, bytes, object, manifest} = compression === 'gzip' ? stored : await store(compression);
      expect(endOfFirstFrame(bytes)).toBeLessThan(bytes.length);
      const {exitCode, output, message} = await read(['--manifest', manifest, taken.key, object]);
      expect([exitCode, message]).toEqual([0, '']);
      expect((await decompress[compression](output)).equals(await dumpOf(taken.key))).toBe(true);
    },
  );

  test('checks a manifest alone, and says so', async () => {
    const {taken, manifest} = stored;
    const {exitCode, output, message} = await read(['--manifest', manifest, taken.key]);
    expect([exitCode, message]).toEqual([0, '']);
    expect(output.toString()).toBe(`The manifest is as it was sealed, with key ${taken.keyFingerprint}.`);
  });

  test.each<[string, string, string, string]>([
    ['a key that is not hex', 'x'.repeat(64), '', 'PHI_ENCRYPTION_KEY must be 64 hex characters'],
    ['a short key', key.slice(1), '', 'PHI_ENCRYPTION_KEY must be 64 hex characters; one has 63'],
    ['a manifest that is not JSON', key, 'not JSON', 'the manifest is not JSON'],
    ['a manifest of something else', key, '{"objects": []}', 'that is no manifest of loma-backup'],
    ['a list', key, '[]', 'that is no manifest of loma-backup'],
  ])('refuses %s in one line', async (_, ownKey, text, words) => {
    const manifest = text ? await fileOf('odd.manifest', Buffer.from(text)) : stored.manifest;
    const {exitCode, message} = await read(['--manifest', manifest, stored.taken.key], {PHI_ENCRYPTION_KEY: ownKey});
    expect(exitCode).toBe(1);
    expect(message).toMatch(/^Refused: .*$/);
    expect(message).toContain(words);
    expect(message).not.toContain(ownKey);
  });

  test('opens with the right one of several keys, and names both sides when none is right', async () => {
    const {taken, object} = stored;
    const several = await read([taken.key, object], {PHI_ENCRYPTION_KEY: `${newKey()},${key}`});
    expect(several.exitCode).toBe(0);
    const wrong = await read([taken.key, object], {PHI_ENCRYPTION_KEY: newKey()});
    expect([wrong.exitCode, wrong.output.length]).toEqual([1, 0]);
    expect(wrong.message).toMatch(new RegExp(`encrypted with key ${taken.keyFingerprint}; you have [0-9a-f]{16}`));
    expect((await read([taken.key, object], {})).message).toContain('set PHI_ENCRYPTION_KEY');
  });

  test('refuses it under another name', async () => {
    const {exitCode, output, message} = await read([stored.taken.key.replaceAll('T', 'U'), stored.object]);
    expect([exitCode, output.length]).toEqual([1, 0]);
    expect(message).toContain(`it was written as ${stored.taken.key}`);
  });

  const damages: [string, (from: Buffer) => Buffer, RegExp][] = [
    ['cut by a byte', (from) => from.subarray(0, -1), /cut off/],
    ['cut after a frame', (from) => from.subarray(0, endOfFirstFrame(from)), /cut off/],
    ['cut in its header', (from) => from.subarray(0, 200), /cut off/],
    ['with a byte after its end', (from) => Buffer.concat([from, Buffer.alloc(1)]), /appended/],
    ['with a bit flipped in its message id', (from) => flipped(from, 10), /commitment does not fit/],
    ['with a bit flipped in its context', (from) => flipped(from, 45), /it was written as|altered|encrypted with/],
    ['with a bit flipped in its header tag', (from) => flipped(from, headerEnd(from) - 1), /the header was altered/],
    ['with a bit flipped in its first frame', (from) => flipped(from, headerEnd(from) + 5000), /frame 1 was altered/],
    ['with its last bit flipped', (from) => flipped(from, from.length - 1), /frame \d+ was altered/],
  ];
  test.each(damages)('refuses it %s', async (_, damage, reason) => {
    const {exitCode, message} = await read([stored.taken.key, await fileOf('damaged', damage(stored.bytes))]);
    expect(exitCode).toBe(1);
    expect(message).toMatch(reason);
  });

  test('checks the seal of the manifest, and that it describes this object', async () => {
    const {taken, manifest} = stored;
    expect(await read(['--manifest', manifest, taken.key])).toMatchObject({exitCode: 0});
    const text = String(await contentOf(place.store, `${taken.key}.metadata.json`));
    const altered = await fileOf('altered', Buffer.from(text.replace('"manual"', '"another"')));
    expect((await read(['--manifest', altered, taken.key])).message).toContain('its seal does not fit');
    expect((await read(['--manifest', manifest, `${taken.key}x`])).message).toContain('belongs to another backup');
    const unknown = await read(['--manifest', manifest, taken.key], {PHI_ENCRYPTION_KEY: newKey()});
    expect([unknown.exitCode, unknown.message]).toEqual([1, expect.stringContaining('no key at hand fits')]);
  });
});

function headerEnd(bytes: Buffer): number {
  return endOfFirstFrame(bytes) - (4 + 12 + (1 << 20) + 16);
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

describe('the reader in Python, with a legacy backup', () => {
  const sql = 'SELECT 1;\n'.repeat(100_000);
  const legacy = legacyBackup(sql, key, new Date('2025-11-04T15:30:00.000Z'));

  test('opens it', async () => {
    const object = await fileOf('legacy', legacy.body);
    const {exitCode, output} = await read(['--legacy', legacy.key, object]);
    expect(exitCode).toBe(0);
    expect(String(await decompress.gzip(output))).toBe(sql);
  });

  test('writes nothing of one that was altered or cut off, or with another key', async () => {
    for (const bytes of [flipped(legacy.body, 100), legacy.body.subarray(0, -1), legacy.body.subarray(0, 20)]) {
      const {exitCode, output} = await read(['--legacy', legacy.key, await fileOf('legacy-altered', bytes)]);
      expect([exitCode, output.length]).toEqual([1, 0]);
    }
    const object = await fileOf('legacy', legacy.body);
    const {exitCode, output} = await read(['--legacy', legacy.key, object], {PHI_ENCRYPTION_KEY: newKey()});
    expect([exitCode, output.length]).toEqual([1, 0]);
  });

  test('is not taken for a sealed one', async () => {
    const {exitCode, message} = await read([legacy.key, await fileOf('legacy', legacy.body)]);
    expect([exitCode, message]).toEqual([1, expect.stringContaining('a legacy one?')]);
  });
});
