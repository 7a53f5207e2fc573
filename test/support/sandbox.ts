/**
 * One PostgreSQL and one object server for a whole test run, or for each of jest's workers in it: each test makes a database and
 * a bucket of its own on them.
 */
import type {ObjectHandle} from './object-handle.ts';
import {type ObjectServer, startObjectServer} from './object-server.ts';
import {type PostgresFacts, type PostgresHandle, postgresHandle} from './postgres-handle.ts';
import {type PostgresServer, startPostgres} from './postgres-server.ts';

/** Servers that are shared: a test that stops or kills one starts its own. */
export interface SharedServers {
  postgres: PostgresHandle;
  objects: ObjectHandle;
}

export interface RunningServers {
  postgres: PostgresServer;
  objects: ObjectServer;
  stop(): Promise<void>;
}

const variable = 'LOMA_TEST_SERVERS';

/** Both at the same time; neither is left running when the other does not start. */
export async function startServers(): Promise<RunningServers> {
  const [postgres, objects] = await Promise.allSettled([startPostgres(), startObjectServer()]);
  if (postgres.status === 'fulfilled' && objects.status === 'fulfilled') {
    const stop = async () => void (await Promise.all([postgres.value.stop('immediate'), objects.value.stop()]));
    return {postgres: postgres.value, objects: objects.value, stop};
  }
  if (postgres.status === 'fulfilled') await postgres.value.stop('immediate');
  if (objects.status === 'fulfilled') await objects.value.stop();
  throw postgres.status === 'rejected' ? postgres.reason : (objects as PromiseRejectedResult).reason;
}

/** Leaves word for `servers()` in this process and in those that it starts from now on. */
export function publishServers(ofWorkers: readonly SharedServers[]): void {
  // The functions do not get into the JSON; what else the handles have does no harm.
  process.env[variable] = JSON.stringify(ofWorkers.map(({postgres, objects}) => ({postgres, objects})));
}

/**
 * The servers that jest's global setup (or `publishServers`) has left word of: each worker has its own, so that tests which look
 * at all of a server, its roles, sessions or locks, do not see those of another file.
 */
export function servers(): SharedServers {
  const text = process.env[variable];
  if (!text)
    throw new Error(`No ${variable} in the environment: run the tests with the globalSetup of jest.config.js.`);
  const ofWorkers = JSON.parse(text) as {postgres: PostgresFacts; objects: ObjectHandle}[];
  // Jest counts its workers from 1, and is the first of them where it runs the tests itself.
  const own = ofWorkers[Number(process.env.JEST_WORKER_ID ?? 1) - 1];
  if (!own) throw new Error(`There are no servers for worker ${process.env.JEST_WORKER_ID}.`);
  return {postgres: postgresHandle(own.postgres), objects: own.objects};
}
