/** Questions to a server, asked through psql: the same program, settings and certificates that the restore will use. */
import {BackupError, interruption} from '../errors.ts';
import {
  type Connection,
  clientEnvironment,
  connectionArgument,
  describeConnection,
  pathlessEnvironment,
} from './connection.ts';
import {lockTableHint} from './lock-table.ts';
import {describeFailure, execute, processFailure} from './process.ts';
import type {Tool} from './tools.ts';

/** What it takes to talk to a database. */
export interface Session {
  connection: Connection;
  psql: Tool;
  /** The environment of this process, from which the child inherits a few harmless names. */
  inherited: Readonly<Record<string, string | undefined>>;
  signal?: AbortSignal | undefined;
}

/** A session for what is to be done to its end, or cleaned up, whatever was interrupted. */
export function uninterrupted(session: Session): Session {
  return {...session, signal: undefined};
}

/** psql prefixes that say nothing about the cause. */
function withoutPrefix(stderr: string): string {
  return stderr.replace(/^(psql: )?(error: |ERROR: +|FATAL: +)?/, '');
}

/** libpq's messages about TLS, and those of a server whose pg_hba.conf has no line for a connection like this. */
function hintAboutTls(message: string): string | undefined {
  if (/server does not support SSL/.test(message)) {
    return 'Is that the right server and port? If it has no TLS, take sslmode and ssl out of the URL, and PGSSLMODE out of the environment: then PHI crosses the network unencrypted.';
  }
  if (/no encryption|SSL off|SSL\/TLS required|requires? (an )?SSL/i.test(message)) {
    return 'The server wants TLS: add ?sslmode=require to the URL.';
  }
  if (/root certificate file/.test(message)) {
    return 'sslmode=verify-ca and verify-full need the certificate of the authority: add sslrootcert=FILE to the URL (or sslrootcert=system).';
  }
  if (/SSL|TLS|certificate/.test(message)) {
    return 'Do sslmode, sslrootcert, sslcert and sslkey in the URL fit the server, and is its certificate made for this host name?';
  }
  return undefined;
}

function connectHint(message: string, connection: Connection): string {
  if (/password authentication failed|no password supplied/.test(message)) {
    return 'Are the user and password in the URL right? Characters such as @ : / in a password may be percent-encoded.';
  }
  const tlsHint = hintAboutTls(message);
  if (tlsHint) return tlsHint;
  if (/does not exist/.test(message)) return 'Is the database name at the end of the URL right?';
  if (/unsupported startup parameter/.test(message)) {
    return 'This is a connection pooler (PgBouncer): use the direct address of the database, usually port 5432.';
  }
  const pooler = connection.warnings.find((text) => text.includes('pooler'));
  return (
    lockTableHint(message) ??
    pooler ??
    'Is the server running, and may this machine reach it (firewall, allow list, VPN)?'
  );
}

/** The error for a psql that failed before or during a question; one of ours is passed on. */
export function queryError(error: unknown, session: Session): BackupError {
  if (error instanceof BackupError) return error;
  const failure = processFailure(error);
  const reason = withoutPrefix(failure ? describeFailure(failure) : String(error));
  // psql exits 2 when the connection was refused or lost, 1 or 3 when the server refused a statement.
  const unreachable = failure?.exitCode === 2 || failure?.startError !== undefined;
  const where = describeConnection(session.connection);
  return new BackupError(unreachable ? `Cannot connect to PostgreSQL at ${where}` : `A query failed on ${where}`, {
    code: unreachable ? 'POSTGRES_UNREACHABLE' : 'POSTGRES_QUERY_FAILED',
    kind: 'postgres',
    reason,
    hint: connectHint(reason, session.connection),
  });
}

/** Of psql, for questions: unaligned, tuples only, and terse, since details of an error quote rows. */
export function askingArguments({connection}: Session): string[] {
  const settings = ['-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=terse'];
  return ['-X', '-q', '-A', '-t', '-w', ...settings, `--dbname=${connectionArgument(connection)}`];
}

/**
 * Runs SQL and gives what it printed: unaligned, tuples only. Each statement is a transaction of its own.
 * @param options.hasOwnPath with the role's search path in the place of none: for what runs functions of the database
 * @throws BackupError POSTGRES_UNREACHABLE, POSTGRES_QUERY_FAILED, or the interruption
 */
export async function query(
  session: Session,
  sql: string,
  {hasOwnPath = false}: {hasOwnPath?: boolean} = {},
): Promise<string> {
  const environmentOf = hasOwnPath ? clientEnvironment : pathlessEnvironment;
  const environment = {...environmentOf(session.connection, session.inherited), PGCLIENTENCODING: 'UTF8'};
  try {
    return await execute(session.psql.path, askingArguments(session), {
      environment,
      input: sql,
      signal: session.signal,
    });
  } catch (error) {
    throw interruption(session.signal) ?? queryError(error, session);
  }
}

/** Runs a SELECT of one JSON value and parses it. */
export async function queryJson(session: Session, sql: string): Promise<unknown> {
  return JSON.parse(await query(session, sql));
}

/** Runs several of them in one session: PostgreSQL writes a JSON object on one line. */
export async function queryJsonObjects(session: Session, selects: readonly string[]): Promise<unknown[]> {
  return (await query(session, selects.join(';\n'))).split('\n').map((line) => JSON.parse(line));
}

/**
 * Names of a SQL_ASCII database may be in any encoding; one that is not UTF-8 (read with replacement characters) cannot be asked for.
 */
export function isReadable(table: string): boolean {
  return !table.includes('\ufffd');
}

/** A name as an SQL identifier. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text as an SQL literal (standard_conforming_strings is pinned on). */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Starts every question: what the server is, before anything is asked of it. */
export interface ServerFacts {
  /** As the server says it: `15.14 (Debian 15.14-1)`. */
  version: string;
  major: number;
  database: string;
  /** `pg_database_size`, in bytes. */
  sizeBytes: number;
  encoding: string;
  /** Roles that a dump of the database names, in policies and user mappings, whatever `--no-owner` leaves out. */
  roles: string[];
}

/** Asks for `ServerFacts`. */
export const serverFactsSql = `
  SELECT pg_catalog.json_build_object(
    'version', current_setting('server_version'),
    'major', current_setting('server_version_num')::int / 10000,
    'database', current_database(),
    'sizeBytes', pg_catalog.pg_database_size(current_database()),
    'encoding', current_setting('server_encoding'),
    'roles', (SELECT coalesce(pg_catalog.json_agg(r.rolname ORDER BY r.rolname), '[]') FROM pg_catalog.pg_roles r
      WHERE r.oid IN (SELECT pg_catalog.unnest(p.polroles) FROM pg_catalog.pg_policy p)
         OR r.oid IN (SELECT m.umuser FROM pg_catalog.pg_user_mappings m)))`;

/** Asks a server what it is. */
export async function serverFacts(session: Session): Promise<ServerFacts> {
  return (await queryJson(session, serverFactsSql)) as ServerFacts;
}
