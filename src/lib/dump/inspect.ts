import {createHash, type Hash} from 'node:crypto';
import {Transform} from 'node:stream';
import {BackupError} from '../errors.ts';
import {blockBytes} from '../streams/block-pool.ts';
import type {DumpContents, TableContents} from './contents.ts';
import {countLines} from './count-lines.ts';
import {type DumpEntry, EntryRecorder, headOf} from './entries.ts';
import {psqlCommandError} from './for-psql.ts';
import {type CopyStatement, type DumpHandler, DumpScanner} from './scanner.ts';
import {keyOf, nameKey, type QualifiedName, tablespaceOf} from './sql-names.ts';

/** What heads a table, in pg_dump's words; a line break in a name stands there as a space. */
const tablePattern = /^Name: (.*); Type: TABLE; Schema: (.*); Owner: /;

/** What a dump said about itself and held. */
export interface Inspection {
  contents: DumpContents;
  /** All of the dump, in bytes. */
  bytes: number;
  /** pg_dump's closing line was there. */
  isComplete: boolean;
  /** The objects that it defines; empty unless they were asked for. */
  entries: DumpEntry[];
  /** What the dump says it is made of and by: `15.14`, `15.14`. */
  versions: {server: string | undefined; pgDump: string | undefined};
  /** Tables that it defines and holds no rows of, not even none: partitioned ones, and those whose rows were left out. */
  tablesWithoutRows: QualifiedName[];
  /** Tablespaces that it wants things to be in. */
  tablespaces: string[];
  /** Psql commands in the dump that pg_dump would not have written; empty in a dump that can be trusted. */
  commands: string[];
}

/** Counts and digests the parts of a dump as the scanner names them. */
class Inspector implements DumpHandler {
  readonly #tables: TableContents[] = [];
  readonly #schema = createHash('sha256');
  #schemaBytes = 0;
  #isComplete = false;
  readonly #commands: string[] = [];
  /** By key (see `nameKey`), until their rows come. */
  readonly #tablesWithoutRows = new Map<string, QualifiedName>();
  readonly #tablespaces = new Set<string>();
  readonly #versions: Inspection['versions'] = {server: undefined, pgDump: undefined};
  readonly #recorder: EntryRecorder | undefined;
  #table: {statement: CopyStatement; rows: number; bytes: number; hash: Hash} | undefined;

  constructor(withEntries: boolean) {
    this.#recorder = withEntries ? new EntryRecorder() : undefined;
  }

  sql(bytes: Buffer): void {
    this.#recorder?.add(bytes);
    this.#digest(bytes);
  }

  #digest(bytes: Buffer): void {
    this.#schema.update(bytes);
    this.#schemaBytes += bytes.length;
  }

  restrict(): void {}

  version(line: Buffer): void {
    const match = /^-- Dumped (from database|by pg_dump) version (\S+)/.exec(line.toString());
    if (match) this.#versions[match[1] === 'by pg_dump' ? 'pgDump' : 'server'] = match[2];
  }

  command(line: Buffer): void {
    if (this.#commands.length < 10) this.#commands.push(line.toString().trim().slice(0, 80));
  }

  entry(line: Buffer): void {
    this.#recorder?.begin(line);
    this.#digest(line);
    const [, name, schema] = tablePattern.exec(headOf(line)) ?? [];
    if (name === undefined || schema === undefined) return;
    this.#tablesWithoutRows.set(nameKey({schema, name}), {schema, name});
  }

  /** It belongs to no entry. */
  setting(line: Buffer): void {
    const tablespace = tablespaceOf(line);
    if (tablespace !== undefined) this.#tablespaces.add(Buffer.from(tablespace, 'latin1').toString());
    this.#digest(line);
  }

  complete(line: Buffer): void {
    this.#isComplete = true;
    this.#recorder?.end();
    this.sql(line);
  }

  copyStart(statement: CopyStatement, line: Buffer): void {
    this.sql(line);
    this.#tablesWithoutRows.delete(keyOf(statement.table.replaceAll(/[\n\r]/g, ' ')));
    this.#table = {statement, rows: 0, bytes: 0, hash: createHash('sha256')};
  }

  copyData(bytes: Buffer): void {
    const table = this.#table;
    if (!table) return;
    table.hash.update(bytes);
    table.bytes += bytes.length;
    table.rows += countLines(bytes);
  }

  copyEnd(line: Buffer): void {
    if (this.#table) {
      const {statement, rows, bytes, hash} = this.#table;
      this.#tables.push({...statement, rows, bytes, sha256: hash.digest('hex')});
    }
    this.#table = undefined;
    this.sql(line);
  }

  result(bytes: number): Inspection {
    this.#recorder?.end();
    return {
      entries: this.#recorder?.entries ?? [],
      contents: {tables: this.#tables, schema: {bytes: this.#schemaBytes, sha256: this.#schema.digest('hex')}},
      bytes,
      isComplete: this.#isComplete,
      versions: this.#versions,
      commands: this.#commands,
      tablesWithoutRows: [...this.#tablesWithoutRows.values()],
      tablespaces: [...this.#tablespaces],
    };
  }
}

/** A tap that looks at a dump as it flows by, and changes nothing. */
export interface InspectTap extends Transform {
  /** @throws Error before the end of the stream */
  readonly inspection: Inspection;
}

/**
 * Makes a tap for one dump.
 * @param onBytes is told the running total of bytes at every chunk
 * @param options.withEntries also digest every object's SQL by itself
 * @throws (the stream) BackupError DUMP_UNREADABLE when the dump is cut off
 */
export function inspect(
  onBytes: (total: number) => void = () => {},
  options: {withEntries?: boolean} = {},
): InspectTap {
  const inspector = new Inspector(options.withEntries ?? false);
  const scanner = new DumpScanner(inspector);
  let bytes = 0;
  let inspection: Inspection | undefined;
  const tap = new Transform({
    highWaterMark: blockBytes,
    transform(chunk: Buffer, _encoding, done) {
      try {
        scanner.write(chunk);
        bytes += chunk.length;
        onBytes(bytes);
        done(null, chunk);
      } catch (error) {
        done(error as Error);
      }
    },
    flush(done) {
      try {
        scanner.end();
        inspection = inspector.result(bytes);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
  return Object.defineProperty(tap, 'inspection', {
    get() {
      if (!inspection) throw new Error('the dump has not been read to its end');
      return inspection;
    },
  }) as InspectTap;
}

/**
 * Refuses a dump that pg_dump did not finish, or did not write: no restore would take it.
 * @throws BackupError DUMP_UNREADABLE
 */
export function requireComplete(inspection: Inspection): void {
  const [command] = inspection.commands;
  if (command !== undefined) throw psqlCommandError(command);
  if (inspection.isComplete) return;
  throw new BackupError('The dump is not complete', {
    code: 'DUMP_UNREADABLE',
    kind: 'integrity',
    reason: "pg_dump's closing line (PostgreSQL database dump complete) is missing",
    hint: 'pg_dump was ended before it was done: take another backup, and restore from an earlier one.',
  });
}
