/**
 * Every request of a backup meets every fault, once and for ever. The backup succeeds and can be restored, or it fails with
 * the right exit code and leaves nothing; and the next one succeeds.
 */
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {type BackupResult, backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import type {TestDatabase} from '../support/database.ts';
import {contentsOf, runningClients} from '../support/dumps.ts';
import {createDatabase} from '../support/postgres-server.ts';
import {type ProxiedRequest, startProxy} from '../support/proxy.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  newKey,
  restoreSettings,
  runtime,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {sample} from '../support/size.ts';
import {faultsFor, isOnlySlow, purposeOf, type RequestFault} from './requests.ts';
import {contentsOfStored} from './stored.ts';

import {tryAll} from './try-all.ts';

const {postgres, objects} = servers();
const key = newKey();
const area = `Faults of the store during a backup (${objects.kind})`;
/** Would delete everything else. */
const greedy = {keepDays: 0, keepLast: 1};

let source: TestDatabase;
let contents: Awaited<ReturnType<typeof contentsOf>>;
/** A backup of the same database from before it grew: small, and to be pruned by the next one. */
let older: Map<string, Buffer>;
/** What a backup asks of the store when nothing goes wrong. */
let purposes: string[];
/** Purposes of which a backup was restored. */
const restored = new Set<string>();

beforeAll(async () => {
  source = await createDatabase(postgres, {sql: 'CREATE TABLE filler (n bigint, text text)'});
  const place = await testStore('directory');
  const old = runtime({now: () => new Date('2020-01-01T00:00:00Z')});
  await backup(backupSettings({database: source.url, store: place, key}, {prune: false}), old);
  older = new Map();
  for (const each of await place.keys()) older.set(each, await contentOf(place.store, each));
  await place.dispose();
  // 19 MB of a plain dump, 9 MB compressed: two parts.
  await source.query(`INSERT INTO filler SELECT n, md5('a' || n) || md5('b' || n) || md5('c' || n) || md5('d' || n)
    FROM generate_series(1, 140000) n`);
  contents = await contentsOf(source.url);
}, 120_000);
afterAll(() => source.drop());

interface Trial {
  purpose: string;
  fault: RequestFault;
  isLasting: boolean;
}

/** A backup through a proxy that applies the fault; the store holds the older backup before. */
async function run(faultOf: (request: ProxiedRequest) => RequestFault['fault'] | undefined) {
  const place = await testStore('s3');
  for (const [name, body] of older) await place.store.replace(name, body);
  const proxy = await startProxy(objects, faultOf);
  const store = {...place, settings: s3Settings(proxy, place.settings.backupsBucket)};
  const settings = backupSettings({database: source.url, store, key}, {retention: greedy, compression: 'zstd'});
  const outcome = await backup(settings, runtime()).catch((error: unknown) => error as Error);
  await proxy.stop();
  return {place, proxy, outcome};
}

/** Every byte is read and compared; restored too when that was not yet done for a fault of such a request. */
async function expectRestorable(place: TestStore, result: BackupResult, purpose: string): Promise<void> {
  expect(await place.keys()).toEqual(expect.arrayContaining([result.key, `${result.key}.metadata.json`]));
  expect(await contentsOfStored(place, result.key, key)).toEqual(contents);
  if (restored.has(purpose)) return;
  restored.add(purpose);
  const target = await createDatabase(postgres);
  const settings = restoreSettings({target: target.url, store: place, key}, {choice: {by: 'key', key: result.key}});
  await restore(settings, async () => false, runtime());
  expect(await contentsOf(target.url)).toEqual(contents);
  await target.drop();
}

async function expectNothingLeft(place: TestStore, failure: Error): Promise<void> {
  expect(failure).toBeInstanceOf(BackupError);
  expect(failure).toMatchObject({exitCode: 4, reason: expect.any(String), hint: expect.any(String)});
  expect(await place.keys()).toEqual([...older.keys()]);
  expect(await place.unfinished()).toEqual([]);
}

async function expectNextToSucceed(place: TestStore): Promise<void> {
  const later = runtime({now: () => new Date(Date.now() + 1000)});
  const settings = backupSettings({database: postgres.url('template1'), store: place, key}, {prune: false});
  const next = await backup(settings, later);
  expect(await place.keys()).toEqual(expect.arrayContaining([next.key, `${next.key}.metadata.json`]));
}

/** The purposes of the requests in the order in which they are first met. */
async function learnPurposes(): Promise<string[]> {
  const {place, proxy, outcome} = await run(() => undefined);
  if (outcome instanceof Error) throw outcome;
  await place.dispose();
  return [...new Set(proxy.requests.map(purposeOf))];
}

test('every request of a backup, with every fault', async () => {
  purposes = await learnPurposes();
  expect(purposes).toEqual(
    expect.arrayContaining([
      'list objects',
      'look at the object',
      'create the multipart upload',
      'part 1',
      'part 2',
      'complete the upload',
      'write the manifest',
      'read the manifest',
      'delete the manifest',
      'delete the object',
      'list uploads',
    ]),
  );
  const all: Trial[] = purposes.flatMap((purpose) =>
    faultsFor(purpose).flatMap((fault) => [false, true].map((isLasting) => ({purpose, fault, isLasting}))),
  );
  await tryAll(sample(all, 4), tryBackup);
}, 3_600_000);

async function tryBackup({purpose, fault, isLasting}: Trial): Promise<void> {
  const name = `${purpose}: ${fault.name}, ${isLasting ? 'every time' : 'once'}`;
  let met = 0;
  const {place, outcome} = await run((request) => {
    if (purposeOf(request) !== purpose || (met > 0 && !isLasting)) return undefined;
    met += 1;
    return fault.fault;
  });
  try {
    expect(met).toBeGreaterThan(0);
    expect(await runningClients()).toEqual([]);
    if (fault.isTransient && (!isLasting || isOnlySlow(fault))) {
      expect(outcome).not.toBeInstanceOf(Error);
    }
    if (outcome instanceof Error) await expectNothingLeft(place, outcome);
    else await expectRestorable(place, outcome, purpose);
    await expectNextToSucceed(place);
    recordTrial({area, what: name, outcome: describeOutcome(outcome)});
  } catch (error) {
    throw new Error(`${name}\n${describeOutcome(outcome)}`, {cause: error});
  } finally {
    await place.dispose();
  }
}

function describeOutcome(outcome: BackupResult | Error): string {
  if (outcome instanceof BackupError)
    return `failed with ${outcome.code} (exit code ${outcome.exitCode}), nothing left`;
  if (outcome instanceof Error) return `failed with ${String(outcome)}`;
  const unpruned = outcome.pruned?.failed.length ?? 0;
  const notes = [
    ...(unpruned > 0 ? ['what could not be pruned is said (exit code 4)'] : []),
    ...(outcome.pruned === undefined ? ['the older one was kept, with a warning'] : []),
  ];
  return ['succeeded, equal to the source', ...notes].join('; ');
}
