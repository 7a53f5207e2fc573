/** jest's globalSetup: the servers for the whole run, and the seed of what is random in it. */
import {randomInt} from 'node:crypto';
import {publishServers, type RunningServers, startServers} from './support/sandbox.ts';

/** globalTeardown runs in the same process, but may be given modules of its own. */
declare global {
  var lomaTestServers: RunningServers[] | undefined;
}

export default async function globalSetup({maxWorkers}: {maxWorkers: number}): Promise<void> {
  process.env.LOMA_TEST_SEED ??= String(randomInt(2 ** 32));
  process.stderr.write(`LOMA_TEST_SEED=${process.env.LOMA_TEST_SEED}\n`);
  // In watch mode every run comes by here.
  globalThis.lomaTestServers ??= await Promise.all(Array.from({length: maxWorkers}, startServers));
  publishServers(globalThis.lomaTestServers);
}
