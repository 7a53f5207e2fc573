/** SIGINT, SIGTERM and SIGKILL at random moments of a restore, as a process. */
import {isDeepStrictEqual} from 'node:util';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {restore} from '../../src/lib/operations/restore.ts';
import {type CliEnvironment, storeEnvironment} from '../support/cli.ts';
import type {TestDatabase} from '../support/database.ts';
import {contentsOf} from '../support/dumps.ts';
import {runSql} from '../support/postgres-server.ts';
import {Random} from '../support/random.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, restoreSettings, runtime, type TestStore, testStore} from '../support/settings.ts';
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
import {Targets} from './targets.ts';
import {tryAll} from './try-all.ts';

const {postgres} = servers();
const key = newKey();
const area = 'Processes ended at random moments';
const moments = bySize({short: 1, full: 20});

let targets: Targets;
let home: TestStore;

beforeAll(async () => {
  home = await testStore('directory');
  targets = await Targets.create(postgres, home, key);
}, 180_000);
afterAll(async () => {
  await targets.drop();
  await home.dispose();
});

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
