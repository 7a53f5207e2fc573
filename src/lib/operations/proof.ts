/**
 * The proof of a restore: the restored database is dumped through the same inspector, and every digest compared.
 *
 * That works because a restore makes every table in the transaction that fills it: PostgreSQL then appends the rows in
 * order (TABLE_INSERT_SKIP_FSM in its copyfrom.c), where it would otherwise fill gaps, and the dump have another order.
 */
import {Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {DumpContents, TableContents} from '../dump/contents.ts';
import {digestTable} from '../dump/copy-table.ts';
import {type DumpEntry, entryDifferences} from '../dump/entries.ts';
import {type Inspection, inspect} from '../dump/inspect.ts';
import {dumpError, startDump} from '../dump/pg-dump.ts';
import {asBackupError, interruption} from '../errors.ts';
import type {Session} from '../postgres/query.ts';
import {majorOf, type Tool} from '../postgres/tools.ts';

/** What the restored database must hold. */
export interface ExpectedDump {
  contents: DumpContents;
  entries: readonly DumpEntry[];
  encoding: string | undefined;
  /** Patterns of tables whose rows the backup leaves out. */
  excludedTableData: readonly string[];
  /** pg_dump's and the server's versions, when the backup was taken: `15.14`. */
  pgDumpVersion: string;
  serverVersion: string;
  /** Heads of entries that were left out or changed by the restore, on purpose. */
  notCompared?: ReadonlySet<string> | undefined;
  /** Whether the rows of a table were restored, by its name as a COPY statement writes it; by default, all were. */
  holds?: ((table: string) => boolean) | undefined;
}

export interface Proof {
  /** Each as one line; none: the restored database is the one that was backed up. */
  differences: string[];
  /** Differences that do not matter, and what could not be compared. */
  notes: string[];
  compared: Comparison;
}

/** What of a restored database was compared with what was backed up, and how. */
export interface Comparison {
  /** Tables whose rows were compared by SHA-256. */
  tablesByDigest: number;
  /** Tables whose rows were only counted, and their bytes. */
  tablesBySize: number;
  /** Tables whose rows were left out of the restore. */
  tablesLeftOut: number;
  /** Rows of the tables that were compared. */
  rows: number;
  /** All definitions by one digest, or each by its own, or only which there are. */
  objects: 'as a whole' | 'one by one' | 'by name';
}

/** In words: `12 tables, 345 rows, every digest equal`, or what was compared in another way. */
export function describeComparison(compared: Comparison): string {
  const {tablesByDigest, tablesBySize, tablesLeftOut, rows, objects} = compared;
  const parts = [
    `${tablesByDigest + tablesBySize} tables, ${rows} rows`,
    ...(tablesBySize === 0
      ? [objects === 'as a whole' ? 'every digest equal' : "every table's digest equal"]
      : [`the digests of ${tablesByDigest} tables equal`, `${tablesBySize} compared by rows and bytes only`]),
    ...(tablesLeftOut > 0 ? [`the rows of ${tablesLeftOut} more left out and not compared`] : []),
    ...(objects === 'as a whole' ? [] : [`objects compared ${objects}${objects === 'by name' ? ' only' : ''}`]),
  ];
  return parts.join(', ');
}

/** What was found of one side of a dump. */
type Findings = Pick<Proof, 'differences' | 'notes'>;

export interface ProofOptions {
  session: Session;
  pgDump: Tool;
  /** Of the server that the backup was restored on. */
  serverVersion: string;
  onBytes?: (total: number) => void;
}

/** Dumps the database of a session and compares it with what was expected. */
export async function prove(expected: ExpectedDump, options: ProofOptions): Promise<Proof> {
  const actual = await dumpAgain(expected, options);
  const reordered = reorderedTables(expected.contents, actual.contents);
  const tables = await tableDifferences(expected, actual.contents, reordered, options.session);
  const schema = schemaDifferences(expected, actual, options);
  return {
    differences: [...tables.differences, ...schema.differences],
    notes: [...tables.notes, ...schema.notes],
    compared: {...tables.compared, objects: schema.objects},
  };
}

async function dumpAgain(expected: ExpectedDump, {session, pgDump, onBytes}: ProofOptions): Promise<Inspection> {
  const dumpOptions = {
    connection: session.connection,
    pgDump,
    inherited: session.inherited,
    signal: session.signal,
    excludeTableData: expected.excludedTableData,
    ...(expected.encoding === undefined ? {} : {encoding: expected.encoding}),
  };
  const dump = startDump(dumpOptions);
  const inspector = inspect(onBytes, {withEntries: true});
  const sink = new Writable({highWaterMark: 4 << 20, write: (_chunk, _encoding, done) => done()});
  try {
    await pipeline(dump.stream, inspector, sink);
  } catch (error) {
    await dump.stop();
    throw interruption(session.signal) ?? dumpError(error, dumpOptions) ?? asBackupError(error);
  }
  return inspector.inspection;
}

/** The names of a column list, in no order. */
function columnSet(columns: string): string {
  const names = columns.match(/"(?:[^"]|"")+"|[^\s,]+/g) ?? [];
  return names.sort().join(',');
}

/** Tables whose columns are the same, in another order: altered inheritance children come back so. */
function reorderedTables(expected: DumpContents, actual: DumpContents): Set<string> {
  const found = new Map(actual.tables.map(({table, columns}) => [table, columns]));
  return new Set(
    expected.tables
      .filter(({table, columns}) => {
        const other = found.get(table);
        return other !== undefined && other !== columns && columnSet(other) === columnSet(columns);
      })
      .map(({table}) => table),
  );
}

async function tableDifferences(
  expected: ExpectedDump,
  actual: DumpContents,
  reordered: ReadonlySet<string>,
  session: Session,
): Promise<Findings & {compared: Omit<Comparison, 'objects'>}> {
  const proof: Findings = {differences: [], notes: []};
  const compared = {tablesByDigest: 0, tablesBySize: 0, tablesLeftOut: 0, rows: 0};
  const found = withoutParts(actual);
  for (const want of withoutParts(expected.contents).values()) {
    const {table, columns} = want;
    const have = found.get(table);
    found.delete(table);
    if (expected.holds?.(table) === false) {
      compared.tablesLeftOut += 1;
      continue;
    }
    compared.rows += want.rows;
    if (want.parts > 1) compared.tablesBySize += 1;
    else compared.tablesByDigest += 1;
    if (!have) {
      proof.differences.push(`table ${table} is missing (${want.rows} rows)`);
      continue;
    }
    const encoding = expected.encoding ?? 'UTF8';
    const rows = reordered.has(table) ? await digestTable(session, {table, columns, encoding}) : have;
    const difference = tableDifference(want, rows);
    if (difference) {
      proof.differences.push(difference);
      continue;
    }
    if (reordered.has(table)) proof.notes.push(`table ${table} has its columns in another order, and the same rows`);
    if (want.parts > 1) {
      proof.notes.push(
        `table ${table} has as many rows and bytes; its partitions hold them by hashes that differ between databases, so digests don't compare`,
      );
    }
  }
  for (const {table, rows} of found.values()) {
    proof.differences.push(`table ${table} (${rows} rows) is not in the backup`);
  }
  return {...proof, compared};
}

/**
 * Tables, each whole. pg_dump writes the rows of some hash partitions (by an enum's values) as parts of the partitioned table,
 * because the hashes are others in another database: then each part may hold other rows, and all parts together the same.
 */
function withoutParts({tables}: DumpContents): Map<string, TableContents & {parts: number}> {
  const byName = new Map<string, TableContents & {parts: number}>();
  for (const table of tables) {
    const {rows, bytes, parts} = byName.get(table.table) ?? {rows: 0, bytes: 0, parts: 0};
    byName.set(table.table, {...table, rows: rows + table.rows, bytes: bytes + table.bytes, parts: parts + 1});
  }
  return byName;
}

function tableDifference(
  want: TableContents & {parts: number},
  have: Pick<TableContents, 'rows' | 'bytes' | 'sha256'>,
): string | undefined {
  if (have.rows !== want.rows) return `table ${want.table} has ${have.rows} rows, not ${want.rows}`;
  if (have.sha256 === want.sha256 || (want.parts > 1 && have.bytes === want.bytes)) return undefined;
  return (
    `table ${want.table} has other contents: SHA-256 ${have.sha256.slice(0, 16)}… (${have.bytes} bytes), ` +
    `not ${want.sha256.slice(0, 16)}… (${want.bytes} bytes)`
  );
}

function schemaDifferences(
  expected: ExpectedDump,
  actual: Inspection,
  {pgDump, serverVersion}: ProofOptions,
): Findings & Pick<Comparison, 'objects'> {
  if (actual.contents.schema.sha256 === expected.contents.schema.sha256) {
    return {differences: [], notes: [], objects: 'as a whole'};
  }
  const sameVersions =
    majorOf(expected.serverVersion) === majorOf(serverVersion) &&
    majorOf(expected.pgDumpVersion) === majorOf(pgDump.version.text);
  const isCompared = ({head}: DumpEntry) => !expected.notCompared?.has(head);
  const differences = entryDifferences(expected.entries.filter(isCompared), actual.entries.filter(isCompared), {
    onlyNames: !sameVersions,
  });
  const objects = sameVersions ? 'one by one' : 'by name';
  if (differences.length > 0) return {differences, notes: [], objects};
  if (sameVersions) {
    return {differences, notes: ['the schema text differs in order, in extensions or in tablespaces only'], objects};
  }
  return {
    differences,
    objects,
    notes: [
      `the schema text was compared by names only: the backup is of PostgreSQL ${expected.serverVersion} by pg_dump ` +
        `${expected.pgDumpVersion}, the proof of PostgreSQL ${serverVersion} by pg_dump ${pgDump.version.text}`,
    ],
  };
}
