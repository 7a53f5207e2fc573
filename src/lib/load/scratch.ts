/** A database to try a restore in, made for it and dropped afterwards. */
import {randomBytes} from 'node:crypto';
import {asBackupError, BackupError, interruption} from '../errors.ts';
import {withDatabase} from '../postgres/connection.ts';
import {query, quoteIdentifier, quoteLiteral, type Session, uninterrupted} from '../postgres/query.ts';
import {borrow} from './borrowed.ts';
import {dropDatabase} from './drop-database.ts';

/** Name of a scratch database: the prefix, the UTC time that it was made at, and something random. */
const scratchPrefix = 'loma_verify_';

/** One that is older was left by a run that was killed. */
const staleMs = 86_400_000;

export interface Scratch {
  session: Session;
  /** What it is, for people. */
  description: string;
  /** To be told the transaction that the backup is restored in (xid8), before it commits. */
  loadedBy(transaction: string): void;
  /** @throws BackupError REFUSED when somebody else has made something in it: then it says nothing of the backup */
  requireUndisturbed(): Promise<void>;
  /** Drops it, and whatever was made for it; to be called whatever happened. */
  drop(): Promise<void>;
}

/**
 * Makes a database on the server of a session. Where the role may not, the session's own database serves if it is empty,
 * and is emptied again afterwards.
 * @param encoding of the source database
 * @param warn is told what could not be dropped of earlier runs, and of this one if the database is not as it was
 * @throws BackupError REFUSED when neither is possible
 */
export async function createScratch(
  server: Session,
  encoding: string,
  now: Date,
  warn: (message: string) => void,
): Promise<Scratch> {
  await dropStale(server, now, warn);
  const stamp = now.toISOString().replaceAll(/\D/g, '').slice(0, 14);
  const name = `${scratchPrefix}${stamp}_${randomBytes(4).toString('hex')}`;
  // Not interrupted: the server goes on making the database when psql is gone, and then nobody would drop it.
  const settled = uninterrupted(server);
  try {
    await query(settled, createDatabaseSql(name, encoding, await templateEncoding(server)));
  } catch (error) {
    if (!(error instanceof BackupError) || !/permission denied to create database/.test(error.reason ?? ''))
      throw error;
    return borrow(server, warn);
  }
  return {
    session: {...server, connection: withDatabase(server.connection, name)},
    description: `scratch database ${name}`,
    loadedBy: () => undefined,
    requireUndisturbed: async () => undefined,
    drop: () => dropDatabase(settled, name),
  };
}

async function templateEncoding(server: Session): Promise<string> {
  return query(
    server,
    `SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database WHERE datname = 'template0'`,
  );
}

/** Another encoding than the template's goes with locale C only. */
function createDatabaseSql(name: string, encoding: string, template: string): string {
  const locale = encoding === template ? '' : ` ENCODING ${quoteLiteral(encoding)} LC_COLLATE 'C' LC_CTYPE 'C'`;
  return `CREATE DATABASE ${quoteIdentifier(name)} TEMPLATE template0${locale}`;
}

/** Drops the scratch databases that a killed run left behind; one that can't be dropped is no reason to prove nothing. */
async function dropStale(server: Session, now: Date, warn: (message: string) => void): Promise<void> {
  const listed = await query(
    server,
    `SELECT datname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
     WHERE datname::text OPERATOR(pg_catalog.~) '^${scratchPrefix}[0-9]{14}_[0-9a-f]{8}$' AND pg_catalog.pg_has_role(r.oid, 'USAGE')`,
  );
  for (const name of listed.split('\n').filter(Boolean)) {
    const [, year, month, day, hour, minute] = /_(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)/.exec(name) ?? [];
    const made = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
    if (now.getTime() - made <= staleMs) continue;
    try {
      await dropDatabase(server, name);
    } catch (error) {
      const interrupted = interruption(server.signal);
      if (interrupted) throw interrupted;
      const {reason, message} = asBackupError(error);
      warn(
        `the scratch database ${name}, which an earlier run has left, could not be dropped (${reason ?? message}): ` +
          `it may hold PHI; drop it by hand: DROP DATABASE ${name} WITH (FORCE)`,
      );
    }
  }
}
