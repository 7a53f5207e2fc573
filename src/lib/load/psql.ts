/** psql as a sink, and what is asked of the target at the end of a restore. */
import {BackupError, interruption, messageOf} from '../errors.ts';
import {connectionArgument, describeConnection, pathlessEnvironment} from '../postgres/connection.ts';
import {lockTableHint} from '../postgres/lock-table.ts';
import {describeFailure, processFailure, quotedMark, type WriteProcess, writeTo} from '../postgres/process.ts';
import {isReadable, query, quoteLiteral, type Session} from '../postgres/query.ts';

/** Rows that a table should hold. */
export interface ExpectedRows {
  /** Schema-qualified and quoted, as the dump writes it. */
  table: string;
  rows: number;
}

/**
 * Terse: the detail and context of an error quote rows (`Key (ssn)=(…)`, `COPY patients, line 3: …`), which are PHI. What queries give is
 * thrown away; `\echo` goes to standard output all the same.
 */
const arguments_ = ['-X', '-q', '-A', '-t', '-w', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=terse', '-o', '/dev/null'];

/**
 * Starts psql for a load. It must be given its own BEGIN and COMMIT (see `forPsql`): input that ends without a COMMIT,
 * because something failed, then changes nothing.
 */
export function startLoad(session: Session): WriteProcess {
  const environment = pathlessEnvironment(session.connection, session.inherited);
  const args = [...arguments_, `--dbname=${connectionArgument(session.connection)}`];
  return writeTo(session.psql.path, args, {environment, signal: session.signal});
}

/** What a failed row count says, to be found again in psql's error. */
const rowCountMark = `${quotedMark} row count`;

/**
 * SQL that fails unless every table holds the rows it should. Run before the COMMIT, so that a restore that lost a row is
 * not committed. Without plpgsql, which a database need not have: a text that is no number is cast to one.
 * A table whose rows are hidden from this role by row-level security is passed over (see `hiddenTables`). A table of an extension
 * may hold more: a dump has only the rows that are not the extension's own (PostgreSQL manual, 38.17.3 Extension Configuration
 * Tables), as of PostGIS's spatial_ref_sys.
 */
export function rowCountChecks(expected: readonly ExpectedRows[]): string {
  const sums = new Map<string, number>();
  for (const {table, rows} of expected) {
    if (isReadable(table)) sums.set(table, (sums.get(table) ?? 0) + rows);
  }
  const checks = [...sums].map(([table, rows]) => {
    const name = quoteLiteral(table);
    return (
      `SELECT CASE WHEN n = ${rows} OR pg_catalog.row_security_active(${name}) OR n > ${rows} AND EXISTS (SELECT FROM pg_catalog.pg_depend ` +
      `WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = ${name}::regclass AND deptype = 'e') THEN 0 ` +
      `ELSE (${quoteLiteral(`${rowCountMark}: table ${table} has `)} || n || ${quoteLiteral(` rows, not ${rows}`)})::int END ` +
      `FROM (SELECT CASE WHEN relkind = 'p' THEN ` +
      // Rows that were loaded through a partitioned table lie in partitions that have none of their own in the dump.
      // The list is in a SELECT of its own, which runs for such a table only: otherwise the planner works it out for every table.
      `(SELECT count(*) FROM ${table} WHERE tableoid NOT IN ` +
      `(SELECT pg_catalog.unnest((SELECT current_setting('loma.tables')::oid[])))) ` +
      `ELSE (SELECT count(*) FROM ONLY ${table}) END AS n FROM pg_catalog.pg_class WHERE oid = ${name}::regclass) AS counted;`
    );
  });
  const tables = [...sums.keys()].map((table) => `"${table.replaceAll(/["\\]/g, '\\$&')}"`).join(',');
  return [
    // The dump turned it off, and then a count that it would hide rows from is an error.
    'SET row_security = on;',
    `SELECT pg_catalog.set_config('loma.tables', ${quoteLiteral(`{${tables}}`)}::regclass[]::oid[]::text, true);`,
    ...checks,
  ].join('\n');
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

/** Sessions that collect statistics at the same time: the work is the server's, and each has a processor of it. */
const analyzers = 4;

/** Functions of indexes on expressions may need it. */
const withOwnPath = {hasOwnPath: true} as const;

/**
 * Planner statistics are not in a dump before PostgreSQL 18: without them the first queries crawl.
 * @param tables as the dump writes them; by default all that this role may analyze
 */
export async function analyze(session: Session, tables?: readonly string[]): Promise<void> {
  if (tables) {
    if (tables.length > 0) await query(session, `ANALYZE ${tables.join(', ')};`, withOwnPath);
    return;
  }
  const every = Array.from({length: analyzers}, (_, index) =>
    query(session, analyzeEvery(analyzers, index), withOwnPath),
  );
  const results = await Promise.allSettled(every);
  // The role, or the server, may allow fewer sessions.
  if (results.some(({status}) => status === 'rejected')) await query(session, 'ANALYZE;', withOwnPath);
}

/**
 * Analyzes every n-th table, from the largest on: the large ones are shared out. A partitioned table takes its partitions with it. The
 * names never leave the server and psql, since in a SQL_ASCII database they may be in any encoding.
 */
function analyzeEvery(n: number, index: number): string {
  return `
SELECT pg_catalog.format('ANALYZE %I.%I', nspname, relname) FROM (
  SELECT nspname, relname, pg_catalog.row_number() OVER (ORDER BY bytes DESC, oid) AS place FROM (
    SELECT c.oid, n.nspname, c.relname,
      CASE c.relkind
        WHEN 'p' THEN (SELECT pg_catalog.sum(pg_catalog.pg_relation_size(relid)) FROM pg_catalog.pg_partition_tree(c.oid))
        ELSE pg_catalog.pg_relation_size(c.oid)
      END AS bytes
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
  ) AS sized
) AS placed WHERE place % ${n}::bigint = ${index}::bigint
\\gexec
`;
}

function loadHint(reason: string): string {
  if (/other objects depend on it/.test(reason)) {
    return (
      'The target holds objects made after the backup. Use --swap: it restores into a new database, which then takes the place of ' +
      'this one; or restore into a new, empty database with --target.'
    );
  }
  if (/invalid command \\restrict/.test(reason)) {
    return 'This psql is too old for \\restrict: install the newest minor release of the PostgreSQL client.';
  }
  if (
    /permission denied (to (create|set|alter|drop)|for (language|table))|must be (superuser|owner of (extension|event trigger|publication|subscription|schema))/.test(
      reason,
    )
  ) {
    return 'Only a superuser may restore that, and managed servers have none for you: --managed leaves out what they refuse, and lists it. Or restore as superuser.';
  }
  if (/permission denied|must be owner/.test(reason)) {
    return 'Restore as the owner of the database, or into a new database of your own.';
  }
  if (/unrecognized configuration parameter/.test(reason)) {
    return 'The dump comes from a newer PostgreSQL: restore into a server of at least the version of the source.';
  }
  if (/function .* does not exist/.test(reason)) {
    return (
      'If the backup holds that function, another one that an index, a constraint or a generated column uses names it without its schema. Restore ' +
      'with --search-path and the schema it is in (public); and in the source, ALTER FUNCTION … SET search_path = … for the next backups. If ' +
      'the backup does not hold it, make it first, or restore the whole backup into a new database.'
    );
  }
  if (/(type|function|relation|schema|role|collation|operator|text search \w+) .* does not exist/.test(reason)) {
    return 'What the restored tables need is not in the target: restore it, too (--table, --schema), make it first, or restore the whole backup into a new database.';
  }
  if (/could not extend file|No space left/.test(reason))
    return "The server's disk is full: make room, then restore again.";
  if (/server closed the connection|terminating connection|connection to server/.test(reason)) {
    return 'The connection to the server was lost. Is it running? Restore again.';
  }
  return (
    lockTableHint(reason) ??
    'Nothing was changed in the target. Mend the cause, or restore into a new, empty database with --target.'
  );
}

/**
 * The error for a pipeline whose psql failed; undefined if it was something else that failed, before the COMMIT.
 * @param isCommitting COMMIT was sent already
 * @param aftermath what is so now, for a database that is thrown away after a failure
 */
export function loadError(
  error: unknown,
  session: Session,
  isCommitting: boolean,
  aftermath?: string,
): BackupError | undefined {
  const failure = processFailure(error);
  // Whatever it was that ended a COMMIT: its outcome is what there is to say.
  if (!failure && !isCommitting) return undefined;
  const interrupted = interruption(session.signal);
  if (interrupted && !isCommitting) return interrupted;
  const reason = failure ? describeFailure(failure) : messageOf(error);
  const rowCount = new RegExp(`${rowCountMark}: (.* rows, not \\d+)`).exec(reason)?.[1];
  // psql ends with 3 after an error of the server, which then rolled back; silence after COMMIT was sent says nothing.
  const isUnknown = isCommitting && aftermath === undefined && failure?.exitCode !== 3;
  const where = describeConnection(session.connection);
  const state = aftermath ?? `${where} ${isUnknown ? 'may hold the backup or be as it was' : 'is as it was'}`;
  return new BackupError('Database restore failed', {
    code: rowCount ? 'RESTORE_INCOMPLETE' : 'RESTORE_FAILED',
    kind: rowCount ? 'integrity' : 'postgres',
    reason: `${state}: ${rowCount ?? reason}`,
    hint: isUnknown
      ? 'The connection was lost during the COMMIT. Look at the target before anything else.'
      : loadHint(reason),
  });
}
