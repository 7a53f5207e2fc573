import type {Transform} from 'node:stream';
import {BackupError} from '../errors.ts';
import {quoteLiteral} from '../postgres/query.ts';
import {optionalStatement} from './optional-statement.ts';
import {scanStage} from './scan-stage.ts';
import type {CopyStatement, DumpHandler} from './scanner.ts';
import {tamperedHint} from './sql-lexer.ts';
import {tablespaceOf} from './sql-names.ts';

export interface ForPsqlOptions {
  /**
   * A random token to open psql's restricted mode with, in which it runs no commands hidden in a dump (CVE-2025-8714);
   * undefined for a psql that doesn't know it.
   */
  restrictToken: string | undefined;
  /**
   * Where functions find what they name without its schema, while indexes and generated columns are made: `public, app`; by default
   * nowhere, as pg_dump has it.
   */
  searchPath?: string | undefined;
  /**
   * Gives the SQL to run after the last byte of the dump and before the COMMIT, or throws: then nothing is committed.
   * Called when everything before this stage has ended well, so when the whole backup was authentic.
   */
  beforeCommit: () => string;
  /** What psql prints when it has run that SQL, before the number of its transaction. Random: nothing in the dump can say it. */
  lastWord: string;
  /** Is kept when psql has said the last word; broken, when it has not. Only then COMMIT is said. */
  mayCommit: () => Promise<void>;
}

/**
 * A stage that makes of a dump what psql gets to see: one transaction, opened and committed here. psql's own
 * `--single-transaction` would commit at the end of its input, also when the input ends because something failed.
 *
 * Left out are the dump's own `\restrict` lines, and the `BEGIN;` and `COMMIT;` round large objects, which would end the
 * transaction half-way. `DROP EXTENSION` and `COMMENT ON EXTENSION` may fail: a managed server refuses them to all but the
 * extension's owner, an extension that stays is as good, and a new one brings its comment. So may the drop of a constraint that
 * a partition has of its parent, and of an index that such a one needs: they go with the partition; and, where there is none,
 * that of a domain's constraint, and a view that is only made to be dropped. Tablespaces belong to a server: what lay in one that
 * the target does not have goes where the database lies. A setting that older servers do not know is set where it is known: a
 * server's own older clients are not always at hand.
 * @throws (the stream) BackupError DUMP_UNREADABLE when the dump holds a psql command
 */
export function forPsql({restrictToken, searchPath, beforeCommit, lastWord, mayCommit}: ForPsqlOptions): Transform {
  let out: Buffer[] = [];
  const keep = (bytes: Buffer) => void out.push(bytes);
  const drop = () => undefined;
  const handler: DumpHandler = {
    sql: keep,
    version: keep,
    entry: keep,
    complete: keep,
    copyStart: (_statement: CopyStatement, line: Buffer) => keep(line),
    copyData: keep,
    copyEnd: keep,
    restrict: drop,
    transaction: drop,
    extension: (line: Buffer) => keep(optional(line, `insufficient_privilege OR ${needed}`)),
    constraintDrop: (line: Buffer) => keep(optional(line, `invalid_table_definition OR ${needed} OR ${missing}`)),
    indexDrop: (line: Buffer) => keep(optional(line, needed)),
    // A view with other columns stays, and so does, then, what it needs: dropping that says so.
    dummyView: (statement: Buffer) =>
      keep(optional(statement, `invalid_table_definition OR wrong_object_type OR ${missing}`)),
    newSetting: () => keep(noTimeoutIfKnown),
    searchPath: (line: Buffer) => keep(searchPath === undefined ? line : pathOf(searchPath)),
    setting: (line: Buffer) => keep(whereThereIsOne(line)),
    command: refuseCommand,
  };
  const take = () => {
    const bytes = out;
    out = [];
    return bytes;
  };
  const stage = scanStage(handler, take, () => {
    // Nothing of the dump comes after this.
    const unrestrict = restrictToken === undefined ? '' : `\\unrestrict ${restrictToken}\n`;
    keep(Buffer.from(`\n${beforeCommit()}\n${unrestrict}${numberOfTransaction}\\echo ${lastWord} :transaction\n`));
    return mayCommit().then(() => keep(Buffer.from('COMMIT;\n')));
  });
  stage.push(`${restrictToken === undefined ? '' : `\\restrict ${restrictToken}\n`}${noticeLostClient}BEGIN;\n`);
  return stage;
}

/** What a restore has made is told by it from what others make. */
const numberOfTransaction = 'SELECT pg_catalog.pg_current_xact_id() AS transaction \\gset\n';

const needed = 'dependent_objects_still_exist';
/** Of a type or domain, and of a schema. */
const missing = 'undefined_object OR invalid_schema_name';

/**
 * A backend that waits for a lock, or counts rows, would not see that psql was killed, and would hold the locks that it has until
 * it came to the end. Asked for in the session: poolers refuse a startup parameter that they do not know. Servers have the
 * setting since PostgreSQL 14, and refuse it where the system can't tell a closed connection; Linux can.
 */
export const noticeLostClient = setIfKnown(
  'client_connection_check_interval',
  '2s',
  " AND pg_catalog.version() ~ 'linux'",
);

const noTimeoutIfKnown = Buffer.from(setIfKnown('transaction_timeout', '0'));

/** A setting, where the server has it. */
function setIfKnown(name: string, value: string, condition = ''): string {
  return `SELECT pg_catalog.set_config(name, '${value}', false) FROM pg_catalog.pg_settings WHERE name = '${name}'${condition};\n`;
}

function pathOf(list: string): Buffer {
  return Buffer.from(`SELECT pg_catalog.set_config('search_path', ${quoteLiteral(list)}, false);\n`);
}

/** Sets a tablespace if the server has it, and the role may use it; any other setting stays as it is. */
function whereThereIsOne(line: Buffer): Buffer {
  const name = tablespaceOf(line);
  if (name === undefined) return line;
  const known = `SELECT spcname FROM pg_catalog.pg_tablespace WHERE spcname = ${quoteLiteral(name)}`;
  const mine = `pg_catalog.has_tablespace_privilege(oid, 'CREATE')`;
  return Buffer.from(
    `SELECT pg_catalog.set_config('default_tablespace', coalesce((${known} AND ${mine}), ''), false);\n`,
    'latin1',
  );
}

/** A line, or lines, that may be refused for these reasons without harm. */
function optional(lines: Buffer, harmless: string): Buffer {
  const sql = optionalStatement(lines.toString('latin1').trim(), harmless);
  return sql === undefined ? lines : Buffer.from(`${sql}\n`, 'latin1');
}

function refuseCommand(line: Buffer): never {
  throw psqlCommandError(line.toString());
}

/** The error for a dump that holds a psql command. */
export function psqlCommandError(command: string): BackupError {
  return new BackupError('The dump holds a psql command', {
    code: 'DUMP_UNREADABLE',
    kind: 'integrity',
    reason: `pg_dump writes none, and psql would run it: ${JSON.stringify(command.trim().slice(0, 60))}`,
    hint: tamperedHint,
  });
}
