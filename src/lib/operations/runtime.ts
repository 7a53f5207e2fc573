import type {Observer} from '../observer.ts';
import type {Connection} from '../postgres/connection.ts';
import type {Session} from '../postgres/query.ts';
import {locatePsql} from '../postgres/tools.ts';

/** What an operation takes from the process it runs in, so that a test or another program can give it something else. */
export interface Runtime {
  /** The environment of the process: PATH, and the few names that PostgreSQL's programs inherit. */
  environment: Readonly<Record<string, string | undefined>>;
  /** Version of this program. */
  toolVersion: string;
  now: () => Date;
  observer: Observer;
  /** Aborted by Ctrl-C and SIGTERM. */
  signal?: AbortSignal | undefined;
}

/** How a server is asked. @throws BackupError POSTGRES_TOOLS_MISSING */
export async function sessionOf(connection: Connection, {environment, signal}: Runtime): Promise<Session> {
  return {connection, psql: await locatePsql(environment.PATH ?? ''), inherited: environment, signal};
}
