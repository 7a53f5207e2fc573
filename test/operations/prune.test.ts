/** Deleting old backups on real stores: what the policy lets go, nothing else, and honestly. */
import {CreateMultipartUploadCommand, UploadPartCommand} from '@aws-sdk/client-s3';
import {afterAll, afterEach, beforeAll, beforeEach, describe, expect, test} from '@jest/globals';
import type {ProgressEvent} from '../../src/lib/observer.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {list} from '../../src/lib/operations/list.ts';
import {type PruneSettings, prune, pruneError, requirePruned} from '../../src/lib/operations/prune.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import {status} from '../../src/lib/operations/status.ts';
import {cli, storeEnvironment} from '../support/cli.ts';
import type {TestDatabase} from '../support/database.ts';
import {objectClient} from '../support/object-server.ts';
import {createDatabase} from '../support/postgres-server.ts';
import {type FaultyProxy, type ProxiedRequest, startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  collect,
  contentOf,
  failureOf,
  keySettings,
  newKey,
  runtime,
  type StoreKind,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {manifestOf, takenAt} from '../support/tampering.ts';
import {waitUntil} from '../support/wait-until.ts';

const {postgres, objects} = servers();
const key = newKey();
// Objects of a test are written in the days of its run, which are long past by then.
const now = new Date('2126-06-30T12:00:00Z');
const daysAgo = (days: number) => new Date(now.getTime() - days * 86_400_000);

let database: TestDatabase;
/** Backups of these ages in days, newest first: made once, and copied for each test. */
const ages = [1, 5, 20, 29, 31, 40, 100, 400];
let originals: {key: string; body: Buffer; manifest: Buffer}[];
/** Held, and 300 days old. */
let held: (typeof originals)[number];
let place: TestStore;

beforeAll(async () => {
  database = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 10) AS n'});
  const source = await testStore('directory');
  const make = async (age: number, hold: boolean) => {
    const settings = backupSettings({database: database.url, store: source, key}, {prune: false, hold});
    const taken = await backup(settings, runtime({now: () => daysAgo(age)}));
    const manifest = await contentOf(source.store, `${taken.key}.metadata.json`);
    return {key: taken.key, body: await contentOf(source.store, taken.key), manifest};
  };
  originals = await Promise.all(ages.map((age) => make(age, false)));
  held = await make(300, true);
  await source.dispose();
});
afterAll(() => database.drop());

async function fill(kind: StoreKind): Promise<void> {
  place = await testStore(kind);
  for (const each of [...originals, held]) {
    await place.store.create(each.key, each.body);
    await place.store.create(`${each.key}.metadata.json`, each.manifest);
  }
}

function pruning(changes: Partial<PruneSettings> = {}, run: Partial<Runtime> = {}) {
  const settings = {
    store: place.settings,
    optionalKeys: keySettings(key),
    retention: {keepDays: 30, keepLast: 2},
    dryRun: false,
    ...changes,
  };
  return prune(settings, runtime({now: () => now, ...run}));
}

const keyOfAge = (age: number) => originals[ages.indexOf(age)]?.key ?? '';
const objectsOf = (keys: string[]) => keys.flatMap((each) => [each, `${each}.metadata.json`]).sort();

describe.each<StoreKind>(['directory', 's3'])('in a store of kind %s', (kind) => {
  beforeEach(() => fill(kind));
  afterEach(() => place.dispose());

  test('a dry run says what would go, and changes nothing', async () => {
    const before = await place.keys();
    const result = await pruning({dryRun: true});
    expect(result.deleted).toEqual([400, 100, 40, 31].map(keyOfAge));
    expect(result.dryRun).toBe(true);
    expect(await place.keys()).toEqual(before);
  });

  test('what is older than the days goes; what is held stays; what is newest stays', async () => {
    const result = await pruning();
    expect(result).toMatchObject({locked: [], failed: [], deleted: [400, 100, 40, 31].map(keyOfAge)});
    expect(await place.keys()).toEqual(objectsOf([...[1, 5, 20, 29].map(keyOfAge), held.key]));
    const why = result.decisions.map(({backup: {key: each}, action, because}) => [each, action, because]);
    expect(why).toContainEqual([held.key, 'keep', 'it is held']);
    expect(why).toContainEqual([keyOfAge(1), 'keep', expect.stringContaining('newest 2')]);
    expect(why).toContainEqual([keyOfAge(29), 'keep', expect.stringContaining('30 days')]);
    expect(why).toContainEqual([keyOfAge(31), 'delete', expect.stringContaining('older than 30 days')]);
    // Again: there is nothing left to do.
    expect((await pruning()).deleted).toEqual([]);
    requirePruned(result);
  });

  test('the newest that can be restored stay, however old: what is broken is not counted among them', async () => {
    await place.store.delete(`${keyOfAge(20)}.metadata.json`);
    await place.store.replace(`${keyOfAge(5)}.metadata.json`, Buffer.from('broken'));
    const result = await pruning({retention: {keepDays: 0, keepLast: 3}});
    const kept = [1, 5, 29, 31].map(keyOfAge);
    expect(await place.keys()).toEqual(objectsOf([...kept, held.key]));
    expect(result.deleted).toEqual([400, 100, 40, 20].map(keyOfAge));
  });

  test('the result of a verification goes when its backup is gone; before that it counts for nothing', async () => {
    const [gone, kept] = [keyOfAge(5), keyOfAge(1)];
    for (const each of [gone, kept]) await place.store.create(`${each}.verification.json`, Buffer.from('{}'));
    for (const each of objectsOf([gone])) await place.store.delete(each);
    const looked = {store: place.settings, optionalKeys: keySettings(key)};
    expect((await list(looked, runtime())).map((each) => each.key)).not.toContain(gone);
    const policy = {maxAgeMs: 1e12, maxUnverifiedMs: 1e12, retentionDays: 1};
    const {findings} = await status({...looked, policy, formatAge: String}, runtime());
    expect(findings.find(({id}) => id === 'incomplete')).toMatchObject({isGood: true, value: 0});
    const dry = await pruning({dryRun: true});
    expect(dry.strayVerifications).toEqual([`${gone}.verification.json`]);
    expect(await place.keys()).toContain(`${gone}.verification.json`);
    const result = await pruning();
    expect(result.strayVerifications).toEqual(dry.strayVerifications);
    expect(result.decisions.map(({backup: each}) => each.key)).not.toContain(gone);
    const left = await place.keys();
    expect(left).not.toContain(`${gone}.verification.json`);
    expect(left).toContain(`${kept}.verification.json`);
  });

  test('one without a manifest, whatever its name says, stays for a day after it was written', async () => {
    const bodyOnly = keyOfAge(40);
    await place.store.delete(`${bodyOnly}.metadata.json`);
    const soon = new Date(Date.now() + 3_600_000);
    // Its name is older than 30 days by then, too.
    const old = bodyOnly.replaceAll('2126', '2006');
    await place.store.create(old, await contentOf(place.store, bodyOnly));
    const {decisions, deleted} = await pruning({}, {now: () => soon});
    expect(deleted).toEqual([]);
    expect(decisions.find(({backup: {key: each}}) => each === old)).toMatchObject({because: 'it may be under way'});
    const next = await pruning({}, {now: () => new Date(Date.now() + 25 * 3_600_000)});
    expect(next.deleted).toEqual([old]);
  });

  test('what is not a backup of this program is not touched', async () => {
    const foreign = [
      'database-backups/readme.txt',
      'database-backups/2020-01-01T00-00-00-000Z/other.sql',
      'database-backups/2020-01-01T00-00-00-000Z/backup-2020-01-02T00-00-00-000Z.sql.gz.encrypted',
      'elsewhere/backup-2020-01-01T00-00-00-000Z.sql.gz.encrypted',
    ];
    for (const each of foreign) await place.store.create(each, Buffer.from('x'));
    await pruning({retention: {keepDays: 0, keepLast: 1}});
    expect(await place.keys()).toEqual([...objectsOf([keyOfAge(1), held.key]), ...foreign].sort());
  });

  test('an interruption leaves the newer ones', async () => {
    const controller = new AbortController();
    const observer: Runtime['observer'] = (event) => {
      if (event.type === 'started' && event.step === 'delete') controller.abort();
    };
    expect(await failureOf(pruning({}, {observer, signal: controller.signal}))).toMatchObject({code: 'INTERRUPTED'});
    expect(await place.keys()).toHaveLength(2 * (ages.length + 1));
  });
});

test('one whose manifest comes after the listing is not deleted', async () => {
  await fill('s3');
  const late = keyOfAge(40);
  const manifest = await contentOf(place.store, `${late}.metadata.json`);
  await place.store.delete(`${late}.metadata.json`);
  const isListing = ({method, url}: ProxiedRequest) => method === 'GET' && url.includes('list-type=2');
  let listed = false;
  const proxy = await startProxy(objects, (request) => {
    if (isListing(request)) listed = true;
    else if (listed && request.method === 'GET' && request.url.includes(late)) {
      return {before: () => place.store.replace(`${late}.metadata.json`, manifest)};
    }
    return undefined;
  });
  const result = await pruning({store: s3Settings(proxy, place.settings.backupsBucket)});
  await proxy.stop();
  expect(proxy.faulted.length).toBeGreaterThan(0);
  expect(result.deleted).toEqual([400, 100, 31].map(keyOfAge));
  expect(result.decisions.find(({backup: {key: each}}) => each === late)).toMatchObject({
    action: 'keep',
    because: 'it was published in the meantime',
  });
  expect(await place.keys()).toEqual(objectsOf([...[1, 5, 20, 29, 40].map(keyOfAge), held.key]));
  await place.dispose();
});

describe('unfinished uploads', () => {
  beforeEach(async () => {
    place = await testStore('s3');
  });
  afterEach(() => place.dispose());

  test('of this program are aborted when they are over a day old; others are not', async () => {
    const client = objectClient(objects);
    const foreign = 'database-backups/some-other-file';
    for (const Key of [keyOfAge(1), keyOfAge(5), foreign]) {
      await client.send(new CreateMultipartUploadCommand({Bucket: place.settings.backupsBucket, Key}));
    }
    client.destroy();
    const later = (hours: number) => ({now: () => new Date(Date.now() + hours * 3_600_000)});
    expect((await pruning({}, later(23))).abortedUploads).toEqual([]);
    expect((await place.unfinished()).sort()).toEqual([keyOfAge(1), keyOfAge(5), foreign].sort());
    const dry = await pruning({dryRun: true}, later(48));
    expect(dry.abortedUploads.sort()).toEqual([keyOfAge(1), keyOfAge(5)].sort());
    expect(await place.unfinished()).toHaveLength(3);
    const done = await pruning({}, later(48));
    expect(done.abortedUploads.sort()).toEqual([keyOfAge(1), keyOfAge(5)].sort());
    expect(await place.unfinished()).toEqual([foreign]);
  });
});

test('an upload that was begun over a day ago goes on while parts come', async () => {
  place = await testStore('s3');
  const upload = {Bucket: place.settings.backupsBucket, Key: keyOfAge(1)};
  const client = objectClient(objects);
  const {UploadId} = await client.send(new CreateMultipartUploadCommand(upload));
  const [begun] = await collect(place.store.unfinishedUploads(''));
  const beginning = begun?.startedAt.getTime() ?? 0;
  // Times of a listing are whole seconds on some servers.
  await waitUntil(async () => Date.now() > beginning + 3000, {what: 'the clock to go on'});
  await client.send(new UploadPartCommand({...upload, UploadId, PartNumber: 1, Body: Buffer.from('x')}));
  client.destroy();
  const afterDay = (ms: number) => ({now: () => new Date(beginning + 86_400_000 + ms)});
  expect((await pruning({}, afterDay(1500))).abortedUploads).toEqual([]);
  expect(await place.unfinished()).toEqual([keyOfAge(1)]);
  expect((await pruning({}, afterDay(3_600_000))).abortedUploads).toEqual([keyOfAge(1)]);
  expect(await place.unfinished()).toEqual([]);
  await place.dispose();
});

describe('twenty that are old', () => {
  const days = Array.from({length: 20}, (_, index) => 100 + index);
  let old: string[];
  beforeEach(async () => {
    await fill('s3');
    const [newest] = originals;
    if (!newest) throw new Error('There is no backup.');
    const manifest = await manifestOf(place.store, newest.key, key);
    const copies = days.map((age) => takenAt(daysAgo(age + 0.5), manifest, key));
    old = copies.map((copy) => copy.key);
    await Promise.all(
      copies.flatMap((copy) => [
        place.store.create(copy.key, newest.body),
        place.store.create(`${copy.key}.metadata.json`, copy.manifest),
      ]),
    );
  });
  afterEach(() => place.dispose());

  const isDelete = ({method}: ProxiedRequest) => method === 'DELETE';
  const objectOf = ({url}: ProxiedRequest) => decodeURIComponent(new URL(url, 'http://host').pathname);

  /** A proxy that holds every delete back until there are eight of them, and then does something first. */
  function gather(then: (proxy: FaultyProxy) => Promise<void> = async () => undefined): Promise<FaultyProxy> {
    const eight = Promise.withResolvers<void>();
    let waiting = 0;
    const proxy = startProxy(objects, (request) =>
      isDelete(request)
        ? {
            before: () => {
              waiting += 1;
              if (waiting === 8) proxy.then(then).then(eight.resolve, eight.reject);
              return eight.promise;
            },
          }
        : undefined,
    );
    return proxy;
  }

  test('go eight at a time, of each its manifest before the rest', async () => {
    let atOnce: ProxiedRequest[] = [];
    const proxy = await gather(async ({requests}) => {
      // While something else is asked and answered, no ninth comes.
      await place.keys();
      atOnce = requests.filter(isDelete);
    });
    const result = await pruning({store: s3Settings(proxy, place.settings.backupsBucket)});
    await proxy.stop();
    expect(atOnce).toHaveLength(8);
    expect(atOnce.every((request) => objectOf(request).endsWith('.metadata.json'))).toBe(true);
    expect(result.deleted).toEqual([keyOfAge(400), ...old.toReversed(), ...[100, 40, 31].map(keyOfAge)]);
    const gone = proxy.requests.filter(isDelete).map(objectOf);
    for (const each of old) {
      const body = gone.findIndex((name) => name.endsWith(each));
      expect(gone.slice(0, body).some((name) => name.endsWith(`${each}.metadata.json`))).toBe(true);
    }
    expect(await place.keys()).toEqual(objectsOf([...[1, 5, 20, 29].map(keyOfAge), held.key]));
  });

  test('an interruption ends the eight that have begun, and begins no other', async () => {
    const controller = new AbortController();
    const before = await place.keys();
    const proxy = await gather(async () => controller.abort());
    const store = s3Settings(proxy, place.settings.backupsBucket);
    expect(await failureOf(pruning({store}, {signal: controller.signal}))).toMatchObject({code: 'INTERRUPTED'});
    await proxy.stop();
    const oldest = objectsOf([keyOfAge(400), ...old.slice(-7)]);
    expect(await place.keys()).toEqual(before.filter((each) => !oldest.includes(each)));
  });

  test('every one that could not be deleted is named', async () => {
    const proxy = await startProxy(objects, (request) =>
      isDelete(request) && /2126-0[23]/.test(request.url) ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
    );
    const result = await pruning({store: s3Settings(proxy, place.settings.backupsBucket)});
    await proxy.stop();
    const refused = [...old.toReversed(), keyOfAge(100)].filter((each) => /\/2126-0[23]/.test(each));
    expect(refused.length).toBeGreaterThan(9);
    expect(result.failed.map((each) => each.key)).toEqual(refused);
  });
});

describe('deletes that the store refuses', () => {
  beforeEach(() => fill('s3'));
  afterEach(() => place.dispose());

  test.each([
    ['AccessDenied', 'failed'],
    ['ObjectLockedByBucketPolicy', 'locked'],
  ] as const)('%s: the others go, and it is said which did not', async (code, kind) => {
    const stubborn = keyOfAge(100);
    const proxy = await startProxy(objects, ({method, url}) =>
      method === 'DELETE' && url.includes(stubborn) ? {answer: {status: 403, code}} : undefined,
    );
    const result = await pruning({store: s3Settings(proxy, place.settings.backupsBucket)});
    expect(proxy.faulted.length).toBeGreaterThan(0);
    await proxy.stop();
    expect(result.deleted).toEqual([400, 40, 31].map(keyOfAge));
    expect(kind === 'locked' ? result.locked : result.failed.map((each) => each.key)).toEqual([stubborn]);
    expect(await place.keys()).toEqual(objectsOf([...[1, 5, 20, 29, 100].map(keyOfAge), held.key]));
    const failure = await failureOf(Promise.resolve().then(() => requirePruned(result)));
    expect(failure).toMatchObject({code: 'PRUNE_INCOMPLETE', exitCode: 4});
    expect(failure.reason).toContain(stubborn);
    expect(failure.hint).toContain(kind === 'locked' ? 'bucket lock' : 'token');
  });

  test('after a backup: the backup is complete, and the failed delete is in its result', async () => {
    const proxy = await startProxy(objects, ({method}) =>
      method === 'DELETE' ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
    );
    const settings = backupSettings(
      {database: database.url, store: place, key},
      {store: s3Settings(proxy, place.settings.backupsBucket), retention: {keepDays: 30, keepLast: 2}},
    );
    const taken = await backup(settings, runtime({now: () => now}));
    await proxy.stop();
    expect(taken.pruned?.failed.map((each) => each.key)).toEqual([400, 100, 40, 31].map(keyOfAge));
    expect(await place.keys()).toContain(`${taken.key}.metadata.json`);
  });

  const isListingOfUploads = ({method, url}: ProxiedRequest) => method === 'GET' && /[?&]uploads/.test(url);

  test('where unfinished uploads may not be listed, what was deleted and what was not is told all the same', async () => {
    const stubborn = keyOfAge(100);
    const proxy = await startProxy(objects, (request) =>
      isListingOfUploads(request) || (request.method === 'DELETE' && request.url.includes(stubborn))
        ? {answer: {status: 403, code: 'AccessDenied'}}
        : undefined,
    );
    const events: ProgressEvent[] = [];
    const observer: Runtime['observer'] = (event) => events.push(event);
    const result = await pruning({store: s3Settings(proxy, place.settings.backupsBucket)}, {observer});
    await proxy.stop();
    expect(result.deleted).toEqual([400, 40, 31].map(keyOfAge));
    expect(result.failed.map((each) => each.key)).toEqual([stubborn, 'database-backups/']);
    expect(result.failed[1]?.reason).toMatch(/listing unfinished uploads .*AccessDenied/);
    expect(pruneError(result).message).toBe('1 of the old backups could not be deleted');
    expect(events.filter(({type}) => type === 'finished' || type === 'failed')).toEqual([
      {type: 'finished', step: 'catalog', note: '9 backups'},
      {type: 'failed', step: 'delete', note: '3 deleted, 6 kept, 1 failed'},
      {type: 'failed', step: 'uploads', note: '0 aborted, 1 failed'},
    ]);
  });

  test('after a backup, where unfinished uploads may not be listed: exit 4, with the key of the backup and what was deleted', async () => {
    const recent = await testStore('s3');
    for (const age of [40, 35]) {
      const then = new Date(Date.now() - age * 86_400_000);
      await backup(backupSettings({database: database.url, store: recent, key}), runtime({now: () => then}));
    }
    const proxy = await startProxy(objects, (request) =>
      isListingOfUploads(request) ? {answer: {status: 403, code: 'AccessDenied'}} : undefined,
    );
    const environment = {
      ...storeEnvironment(s3Settings(proxy, recent.settings.backupsBucket)),
      DATABASE_URL: database.url,
      PHI_ENCRYPTION_KEY: key,
    };
    const {exitCode, stdout, stderr} = await cli(['backup', '--keep-days', '1', '--keep-last', '1'], environment);
    await proxy.stop();
    expect(exitCode).toBe(4);
    expect(stdout).toMatch(/Pruned: +2 old backups deleted/);
    expect(stderr).toMatch(/Warning: Unfinished uploads could not be aborted: database-backups\/: .*AccessDenied/);
    expect(await recent.keys()).toHaveLength(2);
    await recent.dispose();
  });

  test('after a backup whose catalog could not be read: the warning says why', async () => {
    const name = originals[0]?.key ?? '';
    const proxy = await startProxy(objects, ({method, url}) =>
      method === 'GET' && url.includes(`${name}.metadata.json`)
        ? {answer: {status: 403, code: 'AccessDenied'}}
        : undefined,
    );
    const store = s3Settings(proxy, place.settings.backupsBucket);
    const taken = await backup(backupSettings({database: database.url, store: place, key}, {store}), runtime());
    await proxy.stop();
    expect(taken.pruned).toBeUndefined();
    expect(taken.warnings.join()).toMatch(/old backups could not be looked at: .*AccessDenied/);
  });
});
