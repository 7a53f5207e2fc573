/** A bucket with backups of years: what it takes to list them, to look at their health, and to delete the old ones. */
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import pMap from 'p-map';
import {backup} from '../../src/lib/operations/backup.ts';
import {type CliEnvironment, startCli, storeEnvironment} from '../support/cli.ts';
import {createDatabase} from '../support/database.ts';
import {canSample, sampleProcess} from '../support/process-samples.ts';
import {type FaultyProxy, type ProxiedRequest, startProxy} from '../support/proxy.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  newKey,
  runtime,
  s3Settings,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {bySize} from '../support/size.ts';
import {manifestOf, takenAt} from '../support/tampering.ts';

const {postgres, objects} = servers();
const count = bySize({short: 200, full: 10_000});
/** Four a day, of which those of 30 days are kept. */
const keptCount = 4 * 30;
const tables = 100;
/**
 * A manifest of 100 tables is 25 KB: if all of them stayed in memory, these would take 250 MB as they are read, and more as objects.
 * The program alone takes 60 MB.
 */
const mostMemoryBytes = bySize({short: 120e6, full: 250e6});
const timeoutMs = 3_600_000;

let place: TestStore;
let proxy: FaultyProxy;
let environment: CliEnvironment;
/** Newest first. */
let backups: string[];
beforeAll(async () => {
  place = await testStore('s3');
  proxy = await startProxy(objects);
  const key = newKey();
  environment = {...storeEnvironment(s3Settings(proxy, place.settings.backupsBucket)), PHI_ENCRYPTION_KEY: key};
  const database = await createDatabase(postgres, {
    sql: Array.from({length: tables}, (_, index) => `CREATE TABLE table_of_the_clinic_${index} (id int);`).join('\n'),
  });
  const source = await testStore('directory');
  const taken = await backup(backupSettings({database: database.url, store: source, key}), runtime());
  const manifest = await manifestOf(source.store, taken.key, key);
  const body = await contentOf(source.store, taken.key);
  await source.dispose();
  await database.drop();
  const now = Date.now();
  const copies = Array.from({length: count}, (_, index) => {
    // Half an interval away from the end of the days.
    const startedAt = new Date(now - (index + 0.5) * 6 * 3_600_000);
    return () => takenAt(startedAt, manifest, key);
  });
  backups = await pMap(
    copies,
    async (make) => {
      const copy = make();
      await place.store.replace(copy.key, body);
      await place.store.replace(`${copy.key}.metadata.json`, copy.manifest);
      return copy.key;
    },
    {concurrency: 16},
  );
}, timeoutMs);
afterAll(async () => {
  await proxy.stop();
  await pMap(await place.keys(), (key) => place.store.delete(key), {concurrency: 16});
  await place.dispose();
}, timeoutMs);

/** Runs a command, and says what it took. */
async function measured(args: readonly string[], exitCode: number) {
  const before = proxy.requests.length;
  const started = performance.now();
  const child = startCli(args, environment, {timeout: timeoutMs});
  const samples = await sampleProcess(child.pid ?? 0);
  const result = await child;
  expect(result).toMatchObject({exitCode});
  const seconds = Math.round((performance.now() - started) / 1000);
  const memoryBytes = Math.max(...samples.map((sample) => sample.memoryBytes));
  const requests = proxy.requests.slice(before);
  expect(memoryBytes).toBeLessThan(mostMemoryBytes);
  recordTrial({
    area: 'Load: many backups',
    what: `${args[0]} in a bucket of ${count} backups of ${tables} tables`,
    outcome: `${requests.length} requests, ${seconds} s, at most ${Math.round(memoryBytes / 1e6)} MB of memory`,
  });
  return {stdout: String(result.stdout), requests};
}

/** One request for each manifest, and one for each page of 1,000 of the listing; two more find unfinished uploads, or nothing. */
function expectFewReads(requests: readonly ProxiedRequest[]): void {
  const reads = requests.filter(({method}) => method !== 'DELETE');
  expect(reads.length).toBeLessThanOrEqual(count + Math.ceil((2 * count) / 1000) + 2);
}

// The reason for a skip: elsewhere nobody tells how much memory a process has.
(canSample ? describe : describe.skip)(`a bucket of ${count} backups`, () => {
  it(
    'is listed',
    async () => {
      const {stdout, requests} = await measured(['list'], 0);
      const times = backups.map((key) => key.slice(17, 27));
      expect(stdout.match(/\d{4}-\d\d-\d\d(?= \d\d:\d\d)/g)).toEqual(times);
      expectFewReads(requests);
    },
    timeoutMs,
  );

  it(
    'says how it is',
    async () => {
      // None of them was ever verified.
      const {stdout, requests} = await measured(['status', '--json'], 6);
      expect(JSON.parse(stdout)).toMatchObject({backups: count, newestKey: backups[0]});
      expectFewReads(requests);
    },
    timeoutMs,
  );

  it(
    'is pruned',
    async () => {
      const {stdout, requests} = await measured(['prune', '--keep-days', '30', '--json'], 0);
      const {deleted} = JSON.parse(stdout) as {deleted: string[]};
      expect(deleted).toEqual(backups.slice(keptCount).toReversed());
      expectFewReads(requests);
      expect(requests.filter(({method}) => method === 'DELETE')).toHaveLength(2 * (count - keptCount));
      const kept = backups.slice(0, keptCount).flatMap((key) => [key, `${key}.metadata.json`]);
      expect(await place.keys()).toEqual(kept.toSorted());
    },
    timeoutMs,
  );
});
