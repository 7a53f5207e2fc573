import type {Connection} from '../postgres/connection.ts';
import {serverFacts} from '../postgres/query.ts';
import {type Runtime, sessionOf} from './runtime.ts';

export interface PostgresPackages {
  /** The server's version, as it says it. */
  serverVersion: string;
  /** Debian's names (also those of apt.postgresql.org): `postgresql-client-17`. */
  packages: string[];
}

/**
 * The packages that a machine needs to back a database up, and, with the server's, to prove the backup on this machine. Any psql
 * will do to ask.
 * @throws BackupError POSTGRES_TOOLS_MISSING, POSTGRES_UNREACHABLE
 */
export async function postgresPackages(
  connection: Connection,
  withServer: boolean,
  runtime: Runtime,
): Promise<PostgresPackages> {
  const {major, version} = await serverFacts(await sessionOf(connection, runtime));
  const packages = [`postgresql-client-${major}`, ...(withServer ? [`postgresql-${major}`] : [])];
  return {serverVersion: version, packages};
}
