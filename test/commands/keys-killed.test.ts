/** `keys rotate --reseal-legacy` as a process that is killed at each of its writes, and run again. */
import {Writable} from 'node:stream';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {manifestKey} from '../../src/lib/catalog/key-names.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {extract} from '../../src/lib/operations/extract.ts';
import {rotateKeys} from '../../src/lib/operations/keys-rotate.ts';
import {list} from '../../src/lib/operations/list.ts';
import {startCli, storeEnvironment} from '../support/cli.ts';
import {createDatabase} from '../support/database.ts';
import {startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  keySettings,
  newKey,
  runtime,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {legacyBackup, legacyManifest} from '../support/tampering.ts';

const [oldKey, key] = [newKey(), newKey()];
const legacyTime = new Date('2025-11-04T15:30:00.000Z');
/** A sealed backup, and one of the older form, under the old key. */
let original: TestStore;
let dump: string;

beforeAll(async () => {
  original = await testStore('directory');
  const database = await createDatabase(servers().postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 500)'});
  const taken = await backup(backupSettings({database: database.url, store: original, key: oldKey}), runtime());
  await database.drop();
  dump = await plain(original, taken.key, [oldKey]);
  const legacy = legacyBackup(dump, oldKey, legacyTime);
  await original.store.create(legacy.key, legacy.body);
  await original.store.create(manifestKey(legacy.key), legacyManifest(legacyTime, 'clinic', legacy.body.length));
});
afterAll(() => original.dispose());

const keysOf = ([current = '', ...previous]: readonly string[]) => keySettings(current, ...previous);

async function plain(place: TestStore, name: string, keys: readonly string[]): Promise<string> {
  const chunks: Buffer[] = [];
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  const choice = {by: 'key', key: name} as const;
  await extract({store: place.settings, keys: keysOf(keys), choice, output}, runtime());
  return String(Buffer.concat(chunks));
}

/** Times of the backups that these keys restore, newest first; each holds the dump that it should. */
async function restorable(place: TestStore, keys: readonly string[]): Promise<string[]> {
  const backups = await list({store: place.settings, optionalKeys: keysOf(keys)}, runtime());
  const whole = backups.filter(({state}) => state === 'complete' || state === 'legacy');
  for (const each of whole) expect((await plain(place, each.key, keys)) === dump).toBe(true);
  return [...new Set(whole.map(({startedAt}) => startedAt.toISOString()))];
}

// The first writes of the run: the rotated manifest, then what belongs to the object that is sealed anew.
test.each([1, 2, 3, 4, 5])('killed at write %i, it leaves every backup openable, and goes on', async (nth) => {
  const place = await testStore('s3');
  for (const name of await original.keys()) await place.store.create(name, await contentOf(original.store, name));
  const before = await restorable(place, [key, oldKey]);
  expect(before).toHaveLength(2);
  let writes = 0;
  let kill = () => {};
  const proxy = await startProxy(servers().objects, ({method}) => {
    if (['GET', 'HEAD'].includes(method)) return undefined;
    writes += 1;
    if (writes < nth) return undefined;
    kill();
    return {hold: true};
  });
  const rotation = startCli(['keys', 'rotate', '--reseal-legacy'], {
    ...storeEnvironment(s3Settings(proxy, place.settings.backupsBucket)),
    PHI_ENCRYPTION_KEY: key,
    PHI_ENCRYPTION_KEYS_PREVIOUS: oldKey,
  });
  kill = () => void rotation.kill('SIGKILL');
  expect(await rotation).toMatchObject({signal: 'SIGKILL'});
  await proxy.stop();
  expect(proxy.faulted.length).toBeGreaterThan(0);

  expect(await restorable(place, [key, oldKey])).toEqual(before);
  const settings = {
    store: {...place.settings, filesBucket: place.settings.backupsBucket},
    keys: keysOf([key, oldKey]),
    dryRun: false,
    resealLegacy: true,
    files: false,
  };
  expect((await rotateKeys(settings, runtime())).keepPreviousBecause).toEqual([]);
  expect(await restorable(place, [key])).toEqual(before);
  const backups = await list({store: place.settings, optionalKeys: keysOf([key])}, runtime());
  expect(backups.map(({state, seal}) => `${state} ${seal}`)).toEqual(['complete verified', 'complete verified']);
  await place.dispose();
});
