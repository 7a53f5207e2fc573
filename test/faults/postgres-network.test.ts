/** Every connection to PostgreSQL breaks at every kind of place: during a backup, and during a restore. */
import {afterAll, afterEach, beforeAll, describe, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {runningClients} from '../support/dumps.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, newKey, restoreSettings, runtime, type TestStore, testStore} from '../support/settings.ts';
import {sample} from '../support/size.ts';
import {type ConnectionFault, type ProxiedConnection, startTcpProxy, type TcpProxy} from '../support/tcp-proxy.ts';
import {contentsOfStored} from './stored.ts';
import {Targets} from './targets.ts';

import {tryAll} from './try-all.ts';

const {postgres} = servers();
const key = newKey();

let place: TestStore;
let targets: Targets;
/** What the store holds, all the time. */
let stored: string[];
beforeAll(async () => {
  place = await testStore('directory');
  targets = await Targets.create(postgres, place, key);
  stored = await place.keys();
}, 120_000);
afterEach(async () => expect(await runningClients()).toEqual([]));
afterAll(async () => {
  await targets.drop();
  await place.dispose();
});

interface Break {
  connection: number;
  fault: ConnectionFault;
  what: string;
}

/** The places at which connections that passed so many bytes are broken. */
function breaksOf(connections: readonly ProxiedConnection[], nameOf: (connection: number) => string): Break[] {
  return connections.flatMap(({number, bytesToServer, bytesToClient}) =>
    (
      [
        ['server', bytesToServer],
        ['client', bytesToClient],
      ] as const
    ).flatMap(([toward, bytes]) =>
      placesIn(bytes).flatMap(({afterBytes, place: where}) =>
        (['cut', 'reset', 300] as const).map((then) => ({
          connection: number,
          fault: {toward, afterBytes, then},
          what: `${nameOf(number)}: ${typeof then === 'number' ? 'held up for 0.3 s' : then} ${where} bytes to the ${toward}`,
        })),
      ),
    ),
  );
}

function placesIn(bytes: number): {afterBytes: number; place: string}[] {
  const places = [
    {afterBytes: 0, place: 'before the first'},
    {afterBytes: 100, place: 'after 100'},
    {afterBytes: Math.floor(bytes / 4), place: 'after a quarter of the'},
    {afterBytes: Math.floor(bytes / 2), place: 'after half of the'},
    // The row counts, and the COMMIT.
    {afterBytes: bytes - 300, place: 'before the last 300'},
    {afterBytes: bytes - 30, place: 'before the last 30'},
    {afterBytes: bytes - 10, place: 'before the last 10'},
  ];
  return places.filter(({afterBytes}, index) => index === 0 || (afterBytes > 0 && afterBytes < bytes));
}

function url(database: string, proxy: TcpProxy): string {
  const address = new URL(postgres.url(database));
  address.port = String(proxy.port);
  return address.href;
}

/** Makes the fault of one connection, and counts that it was met. */
function breaking({connection, fault}: Break): Promise<TcpProxy> {
  return startTcpProxy(postgres.port, ({number}) => (number === connection ? fault : undefined));
}

describe('during a backup', () => {
  const area = 'Faults of the network to PostgreSQL during a backup';
  let hours = 0;

  async function run(proxy: TcpProxy) {
    hours += 1;
    const later = runtime({now: () => new Date(Date.now() + hours * 3_600_000)});
    const settings = backupSettings(
      {database: url(targets.source.name, proxy), store: place, key},
      {prune: false, compression: 'zstd'},
    );
    const outcome = await backup(settings, later).catch((error: unknown) => error as Error);
    await proxy.stop();
    return outcome;
  }

  test('every connection, broken everywhere', async () => {
    const proxy = await startTcpProxy(postgres.port);
    const outcome = await run(proxy);
    if (outcome instanceof Error) throw outcome;
    await forget(outcome.key);
    const last = proxy.connections.length - 1;
    const nameOf = (number: number) => (number === last ? 'pg_dump' : `question ${number + 1}`);
    await tryAll(sample(breaksOf(proxy.connections, nameOf), 5), tryBackup);
  }, 3_600_000);

  async function tryBackup(trial: Break): Promise<void> {
    const proxy = await breaking(trial);
    const outcome = await run(proxy);
    try {
      expect(proxy.faults).toBe(1);
      expect(await runningClients()).toEqual([]);
      if (typeof trial.fault.then === 'number') expect(outcome).not.toBeInstanceOf(Error);
      if (outcome instanceof Error) {
        expect(outcome).toBeInstanceOf(BackupError);
        expect(outcome).toMatchObject({exitCode: 3, hint: expect.any(String)});
        const {code} = outcome as BackupError;
        recordTrial({area, what: trial.what, outcome: `failed with ${code} (exit code 3), nothing left`});
      } else {
        expect(await contentsOfStored(place, outcome.key, key)).toEqual(targets.contents.new);
        await forget(outcome.key);
        recordTrial({area, what: trial.what, outcome: 'succeeded, equal to the source'});
      }
      expect(await place.keys()).toEqual(stored);
      expect(await place.unfinished()).toEqual([]);
    } catch (error) {
      throw new Error(`${trial.what}\n${outcome instanceof Error ? outcome.stack : 'succeeded'}`, {cause: error});
    }
  }

  async function forget(backupKey: string): Promise<void> {
    for (const each of [`${backupKey}.metadata.json`, backupKey]) await place.store.delete(each);
  }
});

describe('during a restore', () => {
  const area = 'Faults of the network to PostgreSQL during a restore';

  async function run(proxy: TcpProxy) {
    const target = await targets.next();
    const settings = restoreSettings({target: url(target.name, proxy), store: place, key});
    const outcome = await restore(settings, async () => true, runtime()).catch((error: unknown) => error as Error);
    await proxy.stop();
    return {target, outcome};
  }

  test('every connection, broken everywhere', async () => {
    const proxy = await startTcpProxy(postgres.port);
    const {target, outcome} = await run(proxy);
    expect(await targets.expectOneOrTheOther(target, outcome, 0)).toContain('succeeded');
    await target.drop();
    const mostBytes = Math.max(...proxy.connections.map(({bytesToServer}) => bytesToServer));
    const load = proxy.connections.findIndex(({bytesToServer}) => bytesToServer === mostBytes);
    const nameOf = (number: number) => {
      if (number === load) return 'the load';
      return number < load ? `question ${number + 1} before the load` : `question ${number - load} after the load`;
    };
    await tryAll(sample(breaksOf(proxy.connections, nameOf), 5), tryRestore);
  }, 3_600_000);

  async function tryRestore(trial: Break): Promise<void> {
    const proxy = await breaking(trial);
    const {target, outcome} = await run(proxy);
    try {
      expect(proxy.faults).toBe(1);
      expect(await runningClients()).toEqual([]);
      if (typeof trial.fault.then === 'number') expect(outcome).not.toBeInstanceOf(Error);
      recordTrial({area, what: trial.what, outcome: await targets.expectOneOrTheOther(target, outcome, 3)});
    } catch (error) {
      throw new Error(`${trial.what}\n${outcome instanceof Error ? outcome.stack : 'succeeded'}`, {cause: error});
    } finally {
      await target.drop();
    }
  }
});
