/** SIGINT, SIGTERM and SIGKILL at random moments of backup, restore, prune and verify, as processes. */
import {chmod, readdir} from 'node:fs/promises';
import path from 'node:path';
import {isDeepStrictEqual} from 'node:util';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {isRestorable} from '../../src/lib/catalog/backups.ts';
import {readingKeys} from '../../src/lib/encrypt/keys.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {readCatalog} from '../../src/lib/operations/catalog.ts';
import {prune} from '../../src/lib/operations/prune.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {type CliEnvironment, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {contentsOf} from '../support/dumps.ts';
import {runSql} from '../support/postgres-server.ts';
import {Random} from '../support/random.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {
  backupSettings,
  contentOf,
  keySettings,
  newKey,
  restoreSettings,
  runtime,
  type StoreKind,
  type TestStore,
  testStore,
} from '../support/settings.ts';
import {bySize, seed} from '../support/size.ts';
import {waitUntil} from '../support/wait-until.ts';
import {
  type Ending,
  expectFittingEnd,
  OwnFolders,
  runAndSignal,
  type Signal,
  signals,
  untilNoProcessNames,
} from './interrupted.ts';
import {contentsOfStored} from './stored.ts';
import {Targets} from './targets.ts';
import {tryAll} from './try-all.ts';

const {postgres, objects} = servers();
const key = newKey();
const area = 'Processes ended at random moments';
const moments = bySize({short: 1, full: 20});
const day = 86_400_000;

let targets: Targets;
/** Backups of the last days, oldest first: what they are stored as. */
let history: {key: string; objects: Map<string, Buffer>}[];
let home: TestStore;

beforeAll(async () => {
  home = await testStore('directory');
  targets = await Targets.create(postgres, home, key);
  const tiny = await createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT generate_series(1, 100) AS n'});
  const place = await testStore('directory');
  history = [];
  for (const age of [60, 50, 40, 35]) {
    const old = runtime({now: () => new Date(Date.now() - age * day)});
    const taken = await backup(backupSettings({database: tiny.url, store: place, key}, {prune: false}), old);
    const stored = new Map<string, Buffer>();
    for (const each of [taken.key, `${taken.key}.metadata.json`]) stored.set(each, await contentOf(place.store, each));
    history.push({key: taken.key, objects: stored});
  }
  await place.dispose();
  await tiny.drop();
}, 180_000);
afterAll(async () => {
  await targets.drop();
  await home.dispose();
});

async function storeWithHistory(kind: StoreKind): Promise<TestStore> {
  const place = await testStore(kind);
  for (const {objects: stored} of history) for (const [name, body] of stored) await place.store.replace(name, body);
  return place;
}

const environmentOf = (place: TestStore): CliEnvironment => ({
  ...storeEnvironment(place.settings),
  PHI_ENCRYPTION_KEY: key,
  DATABASE_URL: targets.source.url,
});

interface Moment {
  signal: Signal;
  afterMs: number;
  /** Decides what else is random about the trial. */
  random: Random;
}

/** Signals in turn, at moments spread over the time that the command takes when nobody disturbs it. */
function momentsOf(name: string, durationMs: number): Moment[] {
  const salt = [...name].reduce((sum, character) => sum * 31 + character.charCodeAt(0), 7) >>> 0;
  const random = new Random(seed ^ salt);
  // The first quarter is Node.js and the reading of settings.
  const first = random.below(signals.length);
  return Array.from({length: moments}, (_, index) => ({
    signal: signals[(first + index) % signals.length] as Signal,
    afterMs: Math.round(durationMs * (0.25 + 0.8 * random.next())),
    random,
  }));
}

function describeEnding({exitCode, signal}: Ending): string {
  if (signal) return `ended by ${signal}`;
  return exitCode === 0 ? 'it was done before' : `exit code ${exitCode}`;
}

/** Runs a command undisturbed, to learn how long it takes, then at every moment. */
async function disturb(
  name: string,
  undisturbed: () => Promise<number>,
  tryOne: (moment: Moment) => Promise<{ending: Ending; outcome: string}>,
): Promise<void> {
  await tryAll(momentsOf(name, await undisturbed()), async (moment) => {
    const when = `${name}, ${moment.signal} after ${moment.afterMs} ms (LOMA_TEST_SEED=${seed})`;
    try {
      const {ending, outcome} = await tryOne(moment);
      recordTrial({area, what: `${name}: ${moment.signal}`, outcome: `${describeEnding(ending)}; ${outcome}`});
    } catch (error) {
      throw new Error(when, {cause: error});
    }
  });
}

/** No child, no session on the server, no file. */
async function expectNothingOnThisMachine(folders: OwnFolders, database: string): Promise<void> {
  await untilNoProcessNames(database, folders.root);
  const sessions = `SELECT count(*) FROM pg_stat_activity WHERE datname = '${database}'`;
  await waitUntil(async () => (await runSql(postgres.adminUrl, sessions)) === '0', {what: 'sessions to end'});
  expect(await folders.files()).toEqual([]);
}

async function withFolders<T>(work: (folders: OwnFolders) => Promise<T>): Promise<T> {
  const folders = await OwnFolders.create();
  try {
    return await work(folders);
  } finally {
    await folders.remove();
  }
}

/** Every backup that counts as complete, newest first, each read to its end. */
async function expectCompleteOnesGood(place: TestStore): Promise<string[]> {
  const backups = await readCatalog(place.store, readingKeys(keySettings(key), undefined));
  const complete = backups.filter(isRestorable).map((each) => each.key);
  for (const each of complete) await contentsOfStored(place, each, key);
  return complete;
}

describe('a backup', () => {
  const args = ['backup', '--keep-days', '45', '--keep-last', '1', '--compression', 'zstd'];

  test.each<StoreKind>(['s3', 'directory'])(
    'into a store of kind %s',
    async (kind) => {
      const name = `backup (${kind === 's3' ? objects.kind : 'file://'})`;
      await disturb(
        name,
        () => undisturbed(kind),
        (moment) => tryBackup(kind, moment),
      );
    },
    3_600_000,
  );

  async function undisturbed(kind: StoreKind): Promise<number> {
    const place = await storeWithHistory(kind);
    const ending = await withFolders((folders) => runAndSignal(args, environmentOf(place), folders));
    expect(ending).toMatchObject({exitCode: 0});
    await place.dispose();
    return ending.durationMs;
  }

  async function tryBackup(kind: StoreKind, moment: Moment) {
    const place = await storeWithHistory(kind);
    const before = await place.keys();
    try {
      return await withFolders(async (folders) => {
        const ending = await runAndSignal(args, environmentOf(place), folders, moment);
        expectFittingEnd(ending, moment.signal);
        await expectNothingOnThisMachine(folders, targets.source.name);
        const complete = await expectCompleteOnesGood(place);
        const added = complete.filter((each) => !before.includes(each));
        const isAsked = ending.exitCode !== undefined;
        if (isAsked && added.length === 0) {
          // It had the time to clean up.
          expect(await place.keys()).toEqual(before);
          expect(await place.unfinished()).toEqual([]);
        }
        if (ending.exitCode === 0) expect(added).toHaveLength(1);
        if (isAsked && added.length === 1 && ending.exitCode !== 0) {
          expect(ending.stderr).toContain('the backup is complete');
          expect(ending.stderr).toContain(added[0]);
        }
        await expectNextToSucceed(place);
        return {ending, outcome: added.length === 1 ? 'the backup is complete' : 'nothing of it is listed as complete'};
      });
    } finally {
      await place.dispose();
    }
  }

  async function expectNextToSucceed(place: TestStore): Promise<void> {
    const later = runtime({now: () => new Date(Date.now() + 1000)});
    const next = await backup(backupSettings({database: targets.source.url, store: place, key}), later);
    expect(await expectCompleteOnesGood(place)).toContain(next.key);
  }
});

describe('a restore', () => {
  const argsFor = (target: TestDatabase) => [
    ...['restore', '--latest', '--target', target.url, '--yes', '--no-safety-backup'],
  ];

  test('into a database that holds something else', async () => {
    await disturb('restore', undisturbed, tryRestore);
  }, 3_600_000);

  async function undisturbed(): Promise<number> {
    const target = await targets.next();
    const {exitCode, durationMs, stderr} = await withFolders((folders) =>
      runAndSignal(argsFor(target), environmentOf(home), folders),
    );
    expect({exitCode, stderr}).toMatchObject({exitCode: 0});
    await target.drop();
    return durationMs;
  }

  async function tryRestore(moment: Moment) {
    const target = await targets.next();
    try {
      return await withFolders(async (folders) => {
        const ending = await runAndSignal(argsFor(target), environmentOf(home), folders, moment);
        expectFittingEnd(ending, moment.signal);
        await expectNothingOnThisMachine(folders, target.name);
        const found = await contentsOf(target.url);
        expect([targets.contents.old, targets.contents.new]).toContainEqual(found);
        const isNew = isDeepStrictEqual(found, targets.contents.new);
        if (ending.exitCode === 0) expect(isNew).toBe(true);
        // What is said to have been undone was.
        if (ending.exitCode && !ending.stderr.includes('may hold')) expect(isNew).toBe(false);
        const again = restoreSettings({target: target.url, store: home, key});
        await restore(again, async () => true, runtime());
        expect(await contentsOf(target.url)).toEqual(targets.contents.new);
        return {ending, outcome: `the target is the ${isNew ? 'new' : 'old'} one`};
      });
    } finally {
      await target.drop();
    }
  }
});

describe('a prune', () => {
  const args = ['prune', '--keep-days', '1', '--keep-last', '1'];

  test('of several old backups', async () => {
    await disturb('prune', undisturbed, tryPrune);
  }, 3_600_000);

  async function undisturbed(): Promise<number> {
    const place = await storeWithHistory('s3');
    const ending = await withFolders((folders) => runAndSignal(args, environmentOf(place), folders));
    expect(ending).toMatchObject({exitCode: 0});
    expect(await place.keys()).toHaveLength(2);
    await place.dispose();
    return ending.durationMs;
  }

  async function tryPrune(moment: Moment) {
    const place = await storeWithHistory(moment.random.next() < 0.5 ? 's3' : 'directory');
    try {
      return await withFolders(async (folders) => {
        const ending = await runAndSignal(args, environmentOf(place), folders, moment);
        expectFittingEnd(ending, moment.signal);
        await untilNoProcessNames(folders.root);
        const complete = await expectCompleteOnesGood(place);
        // The three old ones go at the same time.
        expect(complete[0]).toBe(history.at(-1)?.key);
        const {failed} = await prune(
          {store: place.settings, optionalKeys: keySettings(key), retention: {keepDays: 1, keepLast: 1}, dryRun: false},
          runtime(),
        );
        expect(failed).toEqual([]);
        expect(await place.keys()).toHaveLength(2);
        return {
          ending,
          outcome: 'what is listed as complete is whole, the newest is there; the next prune ends the work',
        };
      });
    } finally {
      await place.dispose();
    }
  }
});

describe('a verification', () => {
  const scratchDatabases = () =>
    runSql(
      postgres.adminUrl,
      `SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname ~ '^loma_verify_'`,
    );

  test('on a server', async () => {
    const args = ['verify', '--target', postgres.adminUrl];
    await disturb(
      'verify (scratch database)',
      () => undisturbed(args),
      (moment) => tryOnServer(args, moment),
    );
  }, 3_600_000);

  test('on this machine', async () => {
    const args = ['verify', '--scratch', 'local'];
    await disturb(
      'verify (local server)',
      () => undisturbed(args),
      (moment) => tryLocally(args, moment),
    );
  }, 3_600_000);

  async function undisturbed(args: readonly string[]): Promise<number> {
    const {exitCode, durationMs, stderr} = await withFolders((folders) =>
      runAndSignal(args, environmentOf(home), folders),
    );
    expect({exitCode, stderr}).toMatchObject({exitCode: 0});
    return durationMs;
  }

  async function tryOnServer(args: readonly string[], moment: Moment) {
    return withFolders(async (folders) => {
      const before = await scratchDatabases();
      expect(before).toBe('');
      const ending = await runAndSignal(args, environmentOf(home), folders, moment);
      expectFittingEnd(ending, moment.signal);
      await untilNoProcessNames('loma_verify_', folders.root);
      // The server goes on making a database when the one who asked for it was killed.
      const asking = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'loma-backup'`;
      await waitUntil(async () => (await runSql(postgres.adminUrl, asking)) === '0', {what: 'sessions to end'});
      expect(await folders.files()).toEqual([]);
      await expectBackupUntouched();
      const left = await scratchDatabases();
      if (ending.signal !== 'SIGKILL') expect(left).toBe('');
      // A name that is a day older is what the next run drops.
      if (left) await expectDroppedByNext(args, left);
      return {
        ending,
        outcome: left ? 'the scratch database was dropped by a run a day later' : 'no scratch database is left',
      };
    });
  }

  async function expectDroppedByNext(args: readonly string[], name: string): Promise<void> {
    const aged = name.replace(/_\d{14}_/, '_20200101000000_');
    const alone = `SELECT count(*) FROM pg_stat_activity WHERE datname = '${name}'`;
    await waitUntil(async () => (await runSql(postgres.adminUrl, alone)) === '0', {what: 'sessions to end'});
    await runSql(postgres.adminUrl, `ALTER DATABASE ${name} RENAME TO ${aged}`);
    await undisturbed(args);
    expect(await scratchDatabases()).toBe('');
  }

  async function tryLocally(args: readonly string[], moment: Moment) {
    return withFolders(async (folders) => {
      for (const each of [folders.root, path.join(folders.root, 'tmp')]) await chmod(each, 0o777);
      const before = await localServers();
      const ending = await runAndSignal(args, environmentOf(home), folders, moment);
      expectFittingEnd(ending, moment.signal);
      await untilNoProcessNames('/dev/shm/loma-backup-', folders.root);
      await waitUntil(async () => (await localServers()).every((name) => before.includes(name)), {
        what: 'its folder to be removed',
      });
      expect(await folders.files()).toEqual([]);
      await expectBackupUntouched();
      return {ending, outcome: 'no local server and no folder is left'};
    });
  }

  async function localServers(): Promise<string[]> {
    return (await readdir('/dev/shm').catch(() => [])).filter((name) => name.startsWith('loma-backup-'));
  }

  async function expectBackupUntouched(): Promise<void> {
    expect(await contentsOfStored(home, targets.backupKey, key)).toEqual(targets.contents.new);
    expect(await home.unfinished()).toEqual([]);
  }
});
