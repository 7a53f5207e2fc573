/** jest's globalTeardown: ends what globalSetup has started. */
import './global-setup.ts';

interface WatchOptions {
  watch?: boolean;
  watchAll?: boolean;
}

export default async function globalTeardown({watch, watchAll}: WatchOptions): Promise<void> {
  // The next run of watch mode uses them again; when jest ends, the watchdogs clear up.
  if (watch || watchAll) return;
  await Promise.all(globalThis.lomaTestServers?.map((servers) => servers.stop()) ?? []);
  globalThis.lomaTestServers = undefined;
}
