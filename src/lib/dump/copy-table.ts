import {createHash} from 'node:crypto';
import {Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {BackupError, interruption, messageOf} from '../errors.ts';
import {connectionArgument, pathlessEnvironment} from '../postgres/connection.ts';
import {describeFailure, processFailure, readFrom} from '../postgres/process.ts';
import type {Session} from '../postgres/query.ts';
import {countLines} from './count-lines.ts';

/** What pg_dump sets for its own session, so that the same values give the same text. */
const dumpOptions = [
  'datestyle=ISO',
  'intervalstyle=postgres',
  'extra_float_digits=3',
  'synchronize_seqscans=off',
  'max_parallel_workers_per_gather=0',
  'row_security=off',
];

/**
 * The COPY data of a table with its columns in a given order: an altered inheritance child has them in another order
 * after a restore.
 * @param table schema-qualified and quoted, as the dump writes it
 * @param columns comma-separated and quoted, as the dump writes them
 */
export async function digestTable(
  session: Session,
  {table, columns, encoding}: {table: string; columns: string; encoding: string},
): Promise<{rows: number; bytes: number; sha256: string}> {
  const environment = pathlessEnvironment(session.connection, session.inherited);
  environment.PGOPTIONS = `${environment.PGOPTIONS} ${dumpOptions.map((option) => `-c ${option}`).join(' ')}`;
  environment.PGCLIENTENCODING = encoding;
  const sql = `COPY (SELECT ${columns} FROM ONLY ${table}) TO STDOUT`;
  const args = [
    '-X',
    '-q',
    '-w',
    '-v',
    'ON_ERROR_STOP=1',
    '-v',
    'VERBOSITY=terse',
    '-c',
    sql,
    `--dbname=${connectionArgument(session.connection)}`,
  ];
  const copy = readFrom(session.psql.path, args, {environment, signal: session.signal});
  const hash = createHash('sha256');
  let rows = 0;
  let bytes = 0;
  const sink = new Writable({
    highWaterMark: 1 << 20,
    write(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      rows += countLines(chunk);
      bytes += chunk.length;
      done();
    },
  });
  try {
    await pipeline(copy.stream, sink);
  } catch (error) {
    const failure = processFailure(error);
    throw (
      interruption(session.signal) ??
      new BackupError(`Table ${table} cannot be read`, {
        code: 'POSTGRES_QUERY_FAILED',
        kind: 'postgres',
        reason: failure ? describeFailure(failure) : messageOf(error),
      })
    );
  } finally {
    await copy.stop();
  }
  return {rows, bytes, sha256: hash.digest('hex')};
}
