/** jest's globalSetup: the servers for the whole run. */
import {publishServers, type RunningServers, startServers} from './support/sandbox.ts';

/** globalTeardown runs in the same process, but may be given modules of its own. */
declare global {
  var lomaTestServers: RunningServers | undefined;
}

export default async function globalSetup(): Promise<void> {
  // In watch mode every run comes by here.
  globalThis.lomaTestServers ??= await startServers();
  publishServers(globalThis.lomaTestServers);
}
