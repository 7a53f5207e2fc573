import {BackupError, interruption} from '../errors.ts';
import {type Connection, clientEnvironment, connectionArgument, describeConnection} from '../postgres/connection.ts';
import {lockTableHint} from '../postgres/lock-table.ts';
import {describeFailure, processFailure, type ReadProcess, readFrom, withoutValues} from '../postgres/process.ts';
import type {Tool} from '../postgres/tools.ts';
import type {BlockPool} from '../streams/block-pool.ts';

export interface DumpOptions {
  connection: Connection;
  pgDump: Tool;
  /** The environment of this process, from which pg_dump inherits a few harmless names. */
  inherited: Readonly<Record<string, string | undefined>>;
  /** Patterns of tables whose rows are left out (`--exclude-table-data`). */
  excludeTableData?: readonly string[];
  /** The encoding to write in; the database's own by default. */
  encoding?: string;
  signal?: AbortSignal | undefined;
  /** Where the dump's blocks come from. */
  pool?: BlockPool | undefined;
}

/** How long to wait for a table lock that a migration holds, in milliseconds; without it pg_dump waits for ever. */
const lockWaitMs = 60_000;

/**
 * The encoding to dump a database in: UTF-8, in which its names can be read here, whatever the database's own is. The
 * bytes of a SQL_ASCII database are in nobody knows what encoding, and go as they are.
 */
export function dumpEncoding(serverEncoding: string): string {
  return ['SQL_ASCII', 'MULE_INTERNAL'].includes(serverEncoding) ? serverEncoding : 'UTF8';
}

/** pg_dump's arguments. The connection goes by the environment: arguments can be read by everybody on the machine. */
export function pgDumpArguments(options: Pick<DumpOptions, 'connection' | 'excludeTableData' | 'encoding'>): string[] {
  return [
    '--format=plain',
    // A restore into a database that has these objects replaces them.
    '--clean',
    '--if-exists',
    // Roles differ between servers, and a managed server refuses to change owners.
    '--no-owner',
    '--no-privileges',
    `--lock-wait-timeout=${lockWaitMs}`,
    '--no-password',
    ...(options.encoding ? [`--encoding=${options.encoding}`] : []),
    ...(options.excludeTableData ?? []).map((pattern) => `--exclude-table-data=${pattern}`),
    `--dbname=${connectionArgument(options.connection)}`,
  ];
}

/** Starts pg_dump. The stream fails before its end if pg_dump fails: translate that with `dumpError`. */
export function startDump(options: DumpOptions): ReadProcess {
  const environment = clientEnvironment(options.connection, options.inherited);
  const {signal, pool} = options;
  return readFrom(options.pgDump.path, pgDumpArguments(options), {environment, signal, pool});
}

/** More of them say nothing more. */
const mostRemarks = 20;

/**
 * What pg_dump, or the server through it, remarked in a dump that succeeded: each remark on one line, with what belongs to it.
 * @param remarks its standard error
 */
export function dumpWarnings(remarks: string): string[] {
  const lines = withoutValues(remarks).replaceAll(/^pg_dump: (warning: )?|^WARNING: +/gm, '');
  const all = lines
    .split(/\n(?!detail: |hint: |\s|$)/)
    .map((text) => text.trim().replaceAll(/\s*\n\s*(detail: |hint: )?/g, ' '))
    .filter(Boolean);
  const more = all.length > mostRemarks ? [`and ${all.length - mostRemarks} more`] : [];
  return [...all.slice(0, mostRemarks), ...more].map((text) => `pg_dump: ${text}`);
}

function dumpHint(reason: string, connection: Connection): string {
  const hint = lockTableHint(reason);
  if (hint) return hint;
  if (/row-level security/.test(reason)) {
    return 'Give the role the right to read every row: ALTER ROLE … BYPASSRLS, or use the owner of the tables.';
  }
  if (/permission denied/.test(reason))
    return 'Give the role the right to read every table: GRANT pg_read_all_data TO …';
  if (/lock/.test(reason))
    return 'A migration or another session holds a lock on a table: run the backup again after it.';
  if (/no matching tables|no matching/.test(reason))
    return 'Does the pattern of --exclude-table-data name a table that exists?';
  return (
    connection.warnings.find((text) => text.includes('pooler')) ??
    'Was the connection lost, or the server restarted? Run the backup again; nothing was stored.'
  );
}

/** The error for a pipeline whose pg_dump failed; undefined if it was something else that failed. */
export function dumpError(error: unknown, options: DumpOptions): BackupError | undefined {
  const failure = processFailure(error);
  if (!failure) return undefined;
  const interrupted = interruption(options.signal);
  if (interrupted) return interrupted;
  const reason = describeFailure(failure)
    .replaceAll(/^pg_dump: (error: )?/gm, '')
    // LOCK TABLE names up to 100 KB of tables in one statement since pg_dump 16.
    .replaceAll(/^(detail: Query was: .{100}).+/gm, '$1…');
  return new BackupError('pg_dump failed', {
    code: 'PG_DUMP_FAILED',
    kind: 'postgres',
    reason: `${describeConnection(options.connection)}: ${reason}`,
    hint: dumpHint(reason, options.connection),
  });
}
