/** Two programs at once in one bucket. */
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {isRestorable} from '../../src/lib/catalog/backups.ts';
import {readingKeys} from '../../src/lib/encrypt/keys.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {readCatalog} from '../../src/lib/operations/catalog.ts';
import {prune} from '../../src/lib/operations/prune.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {contentsOf} from '../support/dumps.ts';
import {startProxy} from '../support/proxy.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  failureOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type StoreKind,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {contentsOfStored} from './stored.ts';
import {Targets} from './targets.ts';

const {postgres, objects} = servers();
const key = newKey();
const area = 'Two programs at once';

let place: TestStore;
let targets: Targets;
beforeAll(async () => {
  place = await testStore('directory');
  targets = await Targets.create(postgres, place, key);
}, 120_000);
afterAll(async () => {
  await targets.drop();
  await place.dispose();
});

async function complete(store: TestStore): Promise<string[]> {
  const backups = await readCatalog(store.store, readingKeys(keySettings(key), undefined));
  return backups.filter(isRestorable).map((each) => each.key);
}

test.each<StoreKind>(['directory', 's3'])('two backups into a store of kind %s are both good', async (kind) => {
  const own = await testStore(kind);
  const settings = backupSettings({database: targets.source.url, store: own, key});
  const start = Date.now();
  const taken = await Promise.all([0, 1].map((ms) => backup(settings, runtime({now: () => new Date(start + ms)}))));
  expect((await complete(own)).toSorted()).toEqual(taken.map((each) => each.key).toSorted());
  for (const each of taken) expect(await contentsOfStored(own, each.key, key)).toEqual(targets.contents.new);
  await own.dispose();
  const where = kind === 's3' ? objects.kind : 'file://';
  recordTrial({
    area,
    what: `two backups, a millisecond apart (${where})`,
    outcome: 'both complete and equal to the source',
  });
});

test('two backups of the same millisecond into a directory: what is called good is good', async () => {
  const own = await testStore('directory');
  const now = new Date();
  const settings = backupSettings({database: targets.source.url, store: own, key});
  const outcomes = await Promise.allSettled([0, 1].map(() => backup(settings, runtime({now: () => now}))));
  const good = outcomes.filter(({status}) => status === 'fulfilled');
  expect(good.length).toBeLessThanOrEqual(1);
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
  }
  const listed = await complete(own);
  expect(listed).toHaveLength(good.length);
  for (const each of listed) expect(await contentsOfStored(own, each, key)).toEqual(targets.contents.new);
  await own.dispose();
  recordTrial({
    area,
    what: 'two backups of the same millisecond (file://)',
    outcome: 'at most one complete, and it is good; the other fails with OBJECT_EXISTS (exit code 4)',
  });
});

test('a backup that is overtaken by another of the same millisecond in a bucket leaves that one alone', async () => {
  const own = await testStore('s3');
  const now = new Date();
  const settings = backupSettings({database: targets.source.url, store: own, key});
  const take = (store: TestStore) => backup({...settings, store: store.settings}, runtime({now: () => now}));
  let looks = 0;
  let other: Awaited<ReturnType<typeof backup>> | undefined;
  const proxy = await startProxy(objects, ({method}) => {
    if (method !== 'HEAD') return undefined;
    looks += 1;
    // The first look is before the upload; the second before its object is made.
    const overtake = async () => {
      other = await take(own);
    };
    return looks === 2 ? {before: overtake} : undefined;
  });
  const overtaken = take({...own, settings: s3Settings(proxy, own.settings.backupsBucket)});
  expect(await failureOf(overtaken)).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
  expect(await complete(own)).toEqual([other?.key]);
  expect(await contentsOfStored(own, other?.key ?? '', key)).toEqual(targets.contents.new);
  expect(await own.unfinished()).toEqual([]);
  await proxy.stop();
  await own.dispose();
  recordTrial({
    area,
    what: `a backup that is overtaken by another of the same millisecond (${objects.kind})`,
    outcome: 'fails with OBJECT_EXISTS (exit code 4); the other is complete and equal to the source',
  });
});

test('a prune of the backup that a restore is reading: the target is the old one or the new one', async () => {
  for (const moment of ['at the first bytes', 'in the middle']) {
    const own = await testStore('directory');
    const long = runtime({now: () => new Date('2020-01-01T00:00:00Z')});
    const old = await backup(backupSettings({database: targets.source.url, store: own, key}, {prune: false}), long);
    await backup(backupSettings({database: targets.source.url, store: own, key}, {prune: false}), runtime());
    const target = await targets.next();
    let pruning: Promise<unknown> | undefined;
    const observer: Parameters<typeof runtime>[0] = {
      observer(event) {
        if (pruning || event.type !== 'progress' || event.step !== 'download') return;
        if (moment === 'in the middle' && event.bytes < old.sizeBytes / 2) return;
        pruning = prune(
          {store: own.settings, optionalKeys: keySettings(key), retention: {keepDays: 1, keepLast: 1}, dryRun: false},
          runtime(),
        );
      },
    };
    const settings = restoreSettings({target: target.url, store: own, key}, {choice: {by: 'key', key: old.key}});
    const outcome = await restore(settings, async () => true, runtime(observer)).catch(
      (error: unknown) => error as Error,
    );
    expect(await pruning).toMatchObject({deleted: [old.key]});
    const said = await targets.expectOneOrTheOther(target, outcome, 4);
    expect(await contentsOf(target.url)).toBeDefined();
    recordTrial({area, what: `a prune of the backup that a restore reads, ${moment} (file://)`, outcome: said});
    await target.drop();
    await own.dispose();
  }
});
