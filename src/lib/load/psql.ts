/** psql as a sink, and what is asked of the target at the end of a restore. */
import type {Writable} from 'node:stream';
import {BackupError, interruption} from '../errors.ts';
import {clientEnvironment, connectionArgument, describeConnection} from '../postgres/connection.ts';
import {describeFailure, type ProcessStream, processFailure, writeTo} from '../postgres/process.ts';
import {query, quoteLiteral, type Session} from '../postgres/query.ts';

/** Rows that a table should hold. */
export interface ExpectedRows {
  /** Schema-qualified and quoted, as the dump writes it. */
  table: string;
  rows: number;
}

/** Terse: the detail and context of an error quote rows (`Key (ssn)=(…)`, `COPY patients, line 3: …`), which are PHI. */
const arguments_ = ['-X', '-q', '-A', '-t', '-w', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=terse', '-o', '/dev/null'];

/**
 * Starts psql for a load. It must be given its own BEGIN and COMMIT (see `forPsql`): input that ends without a COMMIT,
 * because something failed, then changes nothing.
 */
export function startLoad(session: Session): ProcessStream<Writable> {
  const environment = clientEnvironment(session.connection, session.inherited);
  const args = [...arguments_, `--dbname=${connectionArgument(session.connection)}`];
  return writeTo(session.psql.path, args, {environment, signal: session.signal});
}

/** What a failed row count says, to be found again in psql's error. */
const rowCountMark = 'loma-backup row count';

/**
 * SQL that fails unless every table holds the rows it should. Run before the COMMIT, so that a restore that lost a row is
 * not committed. Without plpgsql, which a database need not have: a text that is no number is cast to one.
 * A table whose rows are hidden from this role by row-level security is passed over (see `hiddenTables`).
 */
export function rowCountChecks(expected: readonly ExpectedRows[]): string {
  return expected
    .map(({table, rows}) => {
      const name = quoteLiteral(table);
      return (
        `SELECT CASE WHEN count(*) = ${rows} OR pg_catalog.row_security_active(${name}) THEN 0 ` +
        `ELSE (${quoteLiteral(`${rowCountMark}: table ${table} has `)} || count(*) || ${quoteLiteral(` rows, not ${rows}`)})::int END ` +
        `FROM ONLY ${table};`
      );
    })
    .join('\n');
}

/** Tables whose rows this role can't count, because row-level security hides them from it. */
export async function hiddenTables(session: Session, tables: readonly string[]): Promise<string[]> {
  if (tables.length === 0) return [];
  const list = tables.map((table) => `(${quoteLiteral(table)})`).join(', ');
  const answer = await query(
    session,
    `SELECT name FROM (VALUES ${list}) AS t (name) WHERE pg_catalog.row_security_active(name);`,
  );
  return answer.split('\n').filter(Boolean);
}

/** Planner statistics are not in a dump before PostgreSQL 18: without them the first queries crawl. */
export async function analyze(session: Session): Promise<void> {
  await query(session, 'ANALYZE;');
}

/** Takes out the one place where the first line of an error quotes a value: it was in a row. */
export function withoutValues(message: string): string {
  return message.replace(
    /(invalid input [^"\n]*|out of range[^"\n]*|invalid byte [^"\n]*|value )"(?!loma-backup row count)[^\n]*"/g,
    '$1"…"',
  );
}

function loadHint(reason: string): string {
  if (/other objects depend on it/.test(reason)) {
    return 'The target holds objects made after the backup. Restore into a new, empty database: createdb …, then restore --target with its URL.';
  }
  if (/invalid command \\restrict/.test(reason)) {
    return 'This psql is too old for \\restrict: install the newest minor release of the PostgreSQL client.';
  }
  if (/permission denied|must be (owner|superuser)/.test(reason)) {
    return 'Restore as the owner of the database, or into a new database of your own.';
  }
  if (/unrecognized configuration parameter/.test(reason)) {
    return 'The dump comes from a newer PostgreSQL: restore into a server of at least the version of the source.';
  }
  if (/could not extend file|No space left/.test(reason))
    return "The server's disk is full: make room, then restore again.";
  if (/server closed the connection|terminating connection|connection to server/.test(reason)) {
    return 'The connection to the server was lost. Is it running? Restore again.';
  }
  return 'Nothing was changed in the target. Mend the cause, or restore into a new, empty database with --target.';
}

/** The error for a pipeline whose psql failed; undefined if it was something else that failed. */
export function loadError(error: unknown, session: Session): BackupError | undefined {
  const failure = processFailure(error);
  if (!failure) return undefined;
  const interrupted = interruption(session.signal);
  if (interrupted) return interrupted;
  const reason = withoutValues(describeFailure(failure));
  const rowCount = new RegExp(`${rowCountMark}: (.*?)"?$`, 'm').exec(reason)?.[1];
  return new BackupError('Database restore failed', {
    code: rowCount ? 'RESTORE_INCOMPLETE' : 'RESTORE_FAILED',
    kind: rowCount ? 'integrity' : 'postgres',
    reason: `${describeConnection(session.connection)} is as it was: ${rowCount ?? reason}`,
    hint: loadHint(reason),
  });
}
