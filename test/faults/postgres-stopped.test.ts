/** PostgreSQL is stopped, or ends a session of ours, in the middle of a backup, a restore and a verification. */
import {inspect} from 'node:util';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {restoreSwap} from '../../src/lib/operations/restore-swap.ts';
import {verify} from '../../src/lib/operations/verify.ts';
import type {TestDatabase} from '../support/database.ts';
import {contentsOf, runningClients} from '../support/dumps.ts';
import {type PostgresProxy, type ProxiedMessage, startPostgresProxy} from '../support/postgres-proxy.ts';
import {type PostgresServer, runSql, startPostgres} from '../support/postgres-server.ts';
import {recordTrial} from '../support/reliability.ts';
import {
  backupSettings,
  connectionTo,
  newKey,
  restoreSettings,
  runtime,
  type TestStore,
  testStore,
  verifySettings,
} from '../support/settings.ts';
import {sample} from '../support/size.ts';
import {contentsOfStored} from './stored.ts';
import {Targets} from './targets.ts';
import {tryAll} from './try-all.ts';

const key = newKey();
let postgres: PostgresServer;
let place: TestStore;
let targets: Targets;
/** What the store holds, all the time. */
let stored: string[];

beforeAll(async () => {
  postgres = await startPostgres();
  place = await testStore('directory');
  targets = await Targets.create(postgres, place, key);
  stored = await place.keys();
  // Sequences that were used since the last one go on up to 32 values ahead after a crash.
  await admin('CHECKPOINT');
}, 120_000);
afterAll(async () => {
  await postgres.stop('immediate');
  await place.dispose();
});

const admin = (sql: string) => runSql(postgres.adminUrl, sql);

/** What the server says to the client that it leaves, or the client of a server that is gone. */
const saysWhatHappened =
  /terminating connection|server closed the connection|connection to server|Connection refused|shutting down|starting up/;

const stops = {
  'stopped (fast)': () => postgres.shutDown('fast'),
  'stopped (immediate)': () => postgres.shutDown('immediate'),
  'the backend terminated': async ({clientPort}: ProxiedMessage) => {
    const ended = await admin(
      `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE client_port = ${clientPort}`,
    );
    expect(ended).toBe('t');
  },
};
type Stop = keyof typeof stops;

type Moments = Readonly<Record<string, () => (message: ProxiedMessage) => boolean>>;
interface Trial {
  when: string;
  stop: Stop;
}

function trialsOf(moments: Moments): Trial[] {
  const names = Object.keys(stops) as Stop[];
  return Object.keys(moments).flatMap((when) => names.map((stop) => ({when, stop})));
}

/** Some of what goes to a database has passed. */
const afterBytes = (bytes: number, from: ProxiedMessage['from'], isDatabase: (name: string) => boolean) => () => {
  let passed = 0;
  return (message: ProxiedMessage) => {
    if (message.from === from && isDatabase(message.database)) passed += message.text.length;
    return passed > bytes;
  };
};
const at = (pattern: RegExp) => () => (message: ProxiedMessage) =>
  message.from === 'client' && pattern.test(message.text);

/** Runs something through a proxy, and stops PostgreSQL, or its session, at the moment; then PostgreSQL runs again. */
async function stoppedAt<T>(
  moments: Moments,
  {when, stop}: Trial,
  run: (url: (database: string) => string) => Promise<T>,
): Promise<T | Error> {
  const proxy: PostgresProxy = await startPostgresProxy(postgres, moments[when]?.() ?? (() => false));
  try {
    const running = run(proxy.url).catch((error: unknown) => error as Error);
    const held = await Promise.race([
      proxy.stopped,
      running.then((outcome) => Promise.reject(new Error(`It has ended before: ${outcome}`))),
    ]);
    await stops[stop](held);
    proxy.release();
    const outcome = await running;
    expect(await runningClients()).toEqual([]);
    return outcome;
  } finally {
    await proxy.stop();
    await postgres.start();
  }
}

/** The failure is told with its cause and with what to do. */
function expectTold(outcome: unknown): BackupError {
  expect(outcome).toBeInstanceOf(BackupError);
  expect(outcome).toMatchObject({
    exitCode: 3,
    reason: expect.stringMatching(saysWhatHappened),
    hint: expect.any(String),
  });
  return outcome as BackupError;
}

/** Names the trial in what fails; the one backup stays the latest. */
async function named(what: string, outcome: unknown, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${what}\n${inspect(outcome)}`, {cause: error});
  } finally {
    for (const each of (await place.keys()).toReversed()) if (!stored.includes(each)) await place.store.delete(each);
  }
}

describe('a backup', () => {
  const area = 'PostgreSQL stopped during a backup';
  const isSource = (name: string) => name === targets.source.name;
  const moments: Moments = {
    'at the first question of pg_dump': () => (message) => message.earlier === 1 && message.text.startsWith('Q'),
    'while pg_dump locks the tables': at(/LOCK TABLE/),
    'at the first rows': at(/COPY public\.\w+ /),
    'in the middle of the rows': afterBytes(2_000_000, 'server', isSource),
  };
  let hours = 0;

  const run = (url: string) => {
    hours += 1;
    const later = runtime({now: () => new Date(Date.now() + hours * 3_600_000)});
    return backup(backupSettings({database: url, store: place, key}, {prune: false}), later);
  };

  test('leaves nothing, and the next one succeeds', async () => {
    await tryAll(sample(trialsOf(moments), 1), async (trial) => {
      const what = `${trial.when}: ${trial.stop}`;
      const outcome = await stoppedAt(moments, trial, (url) => run(url(targets.source.name)));
      await named(what, outcome, async () => {
        const {code} = expectTold(outcome);
        expect(['PG_DUMP_FAILED', 'POSTGRES_UNREACHABLE']).toContain(code);
        expect(await place.keys()).toEqual(stored);
        const next = await run(targets.source.url);
        expect(await contentsOfStored(place, next.key, key)).toEqual(targets.contents.new);
        recordTrial({area, what, outcome: `failed with ${code} (exit code 3), nothing left; the next backup succeeds`});
      });
    });
  }, 1_800_000);
});

const loading: Moments = {
  'in the middle of the load': afterBytes(1_000_000, 'client', () => true),
  'before the rows are counted': at(/loma\.tables/),
  'before the COMMIT': at(/^Q.{4}COMMIT;/s),
};

describe('a restore', () => {
  const area = 'PostgreSQL stopped during a restore';
  const moments: Moments = {
    'while the target is looked at': at(/reltuples/),
    'before the load begins': at(/^Q.{4}BEGIN/s),
    ...loading,
  };
  const into = (url: string) => restoreSettings({target: url, store: place, key});

  test('leaves the old target or gives the new one, and the next one succeeds', async () => {
    await tryAll(sample(trialsOf(moments), 1), async (trial) => {
      const {when, stop} = trial;
      const what = `${when}: ${stop}`;
      const target = await targets.next();
      const outcome = await stoppedAt(moments, trial, (url) =>
        restore(into(url(target.name)), async () => true, runtime()),
      );
      await named(what, outcome, async () => {
        // COMMIT is given to psql when the rows were counted: before that it is known that nothing was committed.
        const isUnknown = when === 'before the COMMIT';
        expect(expectTold(outcome).reason?.includes('may hold the backup or be as it was')).toBe(isUnknown);
        const said = await targets.expectOneOrTheOther(target, outcome, 3);
        await restore(into(target.url), async () => true, runtime());
        expect(await contentsOf(target.url)).toEqual(targets.contents.new);
        recordTrial({area, what, outcome: `${said}; the next restore succeeds`});
      });
      await target.drop();
    });
  }, 1_800_000);
});

describe('a restore --swap', () => {
  const area = 'PostgreSQL stopped during a restore --swap';
  const moments: Moments = {
    'before the new database is made': at(/CREATE DATABASE/),
    ...loading,
    'before the renames': at(/ALTER DATABASE "loma_swap_\w+" RENAME/),
  };
  const into = (url: string) => ({
    ...restoreSettings({target: url, store: place, key}),
    choice: {by: 'latest'} as const,
  });
  const databases = async (prefix: string) =>
    (await admin(`SELECT datname FROM pg_database WHERE starts_with(datname, '${prefix}') ORDER BY 1`))
      .split('\n')
      .filter(Boolean);

  test('leaves the old database in its place, and the next one cleans up and succeeds', async () => {
    await tryAll(sample(trialsOf(moments), 1), async (trial) => {
      const what = `${trial.when}: ${trial.stop}`;
      const target = await targets.next();
      const outcome = await stoppedAt(moments, trial, (url) =>
        restoreSwap(into(url(target.name)), async () => true, runtime()),
      );
      await named(what, outcome, async () => {
        const {code} = expectTold(outcome);
        expect(await contentsOf(target.url)).toEqual(targets.contents.old);
        const left = await databases('loma_swap_');
        if (trial.stop === 'the backend terminated') expect(left).toEqual([]);
        const {swap} = await restoreSwap(into(target.url), async () => true, runtime());
        expect(swap.droppedDatabases).toEqual(left);
        expect(await databases('loma_swap_')).toEqual([]);
        expect(await contentsOf(target.url)).toEqual(targets.contents.new);
        recordTrial({
          area,
          what,
          outcome: `failed with ${code} (exit code 3), the target is the old one; the next succeeds`,
        });
      });
      for (const name of await databases(target.name)) await admin(`DROP DATABASE "${name}" WITH (FORCE)`);
    });
  }, 1_800_000);
});

describe('a verification', () => {
  const area = 'PostgreSQL stopped during a verification';
  const isScratch = (name: string) => name.startsWith('loma_verify_');
  const moments: Moments = {
    'before the scratch database is made': at(/CREATE DATABASE/),
    ...loading,
    'while the scratch database is dumped': afterBytes(2_000_000, 'server', isScratch),
  };
  const run = (scratch: string, database: TestDatabase) =>
    verify(
      verifySettings({scratch, store: place, key}, {optionalDatabase: connectionTo(database.url), compression: 'zstd'}),
      runtime(),
    );

  test('fails, says nothing bad about the backup, and the next one proves it', async () => {
    await tryAll(sample(trialsOf(moments), 1), async (trial) => {
      const what = `${trial.when}: ${trial.stop}`;
      const outcome = await stoppedAt(moments, trial, (url) => run(url('postgres'), targets.source));
      await named(what, outcome, async () => {
        expect(outcome).toMatchObject({failed: 1, isProved: false});
        if (outcome instanceof Error) throw outcome;
        const [failed] = outcome.steps.filter(({status}) => status === 'failed');
        expect(failed).toMatchObject({id: 'restore', note: expect.stringMatching(saysWhatHappened)});
        expect(await place.keys()).toEqual(stored);
        const left = await admin(
          `SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname ~ '^loma_verify_'`,
        );
        if (left !== '') {
          expect(outcome.warnings.join()).toContain('the scratch database could not be dropped');
          await admin(`DROP DATABASE ${left}`);
        }
        const next = await run(postgres.adminUrl, targets.source);
        expect(next.isProved).toBe(true);
        recordTrial({
          area,
          what,
          outcome: `the step fails (exit code 6), ${left ? 'what is left is told' : 'nothing is left'}; the next proves the backup`,
        });
      });
    });
  }, 1_800_000);
});
