/** Every request of a restore meets every fault, once and for ever: the target is the new one or the old one, never a mixture. */
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {restore} from '../../src/lib/operations/restore.ts';
import {runningClients} from '../support/dumps.ts';
import {type Fault, type ProxiedRequest, startProxy} from '../support/proxy.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, restoreSettings, runtime, s3Settings, type TestStore, testStore} from '../support/settings.ts';
import {sample} from '../support/size.ts';
import {faultsFor, isOnlySlow, purposeOf, type RequestFault} from './requests.ts';
import {Targets} from './targets.ts';

import {tryAll} from './try-all.ts';

const {postgres, objects} = servers();
const key = newKey();
const area = `Faults of the store during a restore (${objects.kind})`;

let place: TestStore;
let targets: Targets;
beforeAll(async () => {
  place = await testStore('s3');
  targets = await Targets.create(postgres, place, key);
}, 120_000);
afterAll(async () => {
  await targets.drop();
  await place.dispose();
});

async function run(faultOf: (request: ProxiedRequest) => Fault | undefined) {
  const proxy = await startProxy(objects, faultOf);
  const target = await targets.next();
  const store = {settings: s3Settings(proxy, place.settings.backupsBucket)};
  const settings = restoreSettings({target: target.url, store, key});
  const outcome = await restore(settings, async () => true, runtime()).catch((error: unknown) => error as Error);
  await proxy.stop();
  return {target, proxy, outcome};
}

test('every request of a restore, with every fault', async () => {
  const {proxy, target, outcome} = await run(() => undefined);
  expect(await targets.expectOneOrTheOther(target, outcome, 0)).toContain('succeeded');
  await target.drop();
  const purposes = [...new Set(proxy.requests.map(purposeOf))];
  expect(purposes).toEqual(expect.arrayContaining(['list objects', 'read the manifest', 'read the object']));
  const all = purposes.flatMap((purpose) =>
    faultsFor(purpose).flatMap((fault) => [false, true].map((isLasting) => ({purpose, fault, isLasting}))),
  );
  await tryAll(sample(all, 4), tryRestore);
}, 3_600_000);

async function tryRestore(trial: {purpose: string; fault: RequestFault; isLasting: boolean}): Promise<void> {
  const {purpose, fault, isLasting} = trial;
  const what = `${purpose}: ${fault.name}, ${isLasting ? 'every time' : 'once'}`;
  let met = 0;
  const {target, outcome} = await run((request) => {
    if (purposeOf(request) !== purpose || (met > 0 && !isLasting)) return undefined;
    met += 1;
    return fault.fault;
  });
  try {
    expect(met).toBeGreaterThan(0);
    expect(await runningClients()).toEqual([]);
    if (fault.isTransient && (!isLasting || isOnlySlow(fault))) expect(outcome).not.toBeInstanceOf(Error);
    recordTrial({area, what, outcome: await targets.expectOneOrTheOther(target, outcome, 4)});
  } catch (error) {
    throw new Error(`${what}\n${outcome instanceof Error ? outcome.stack : 'succeeded'}`, {cause: error});
  } finally {
    await target.drop();
  }
}
