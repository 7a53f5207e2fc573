/** What a dump holds, in figures: counted from the stream, stored in the manifest, compared after a restore. */

export interface TableContents {
  /** Schema and table as the dump writes them, quoted where PostgreSQL quotes them. */
  table: string;
  /** The column list as the dump writes it. */
  columns: string;
  rows: number;
  /** Of the COPY data, line breaks included, without the terminator. */
  bytes: number;
  /** SHA-256 of the COPY data, hex. */
  sha256: string;
}

export interface DumpContents {
  tables: TableContents[];
  /**
   * Everything else: the SQL, the COPY statements and their terminators. Left out are the lines that differ in every dump
   * of the same database: `\restrict` with its random token, and the two version comments.
   */
  schema: {bytes: number; sha256: string};
}

/** Sums over all tables. */
export function totals(contents: DumpContents): {tables: number; rows: number} {
  return {tables: contents.tables.length, rows: contents.tables.reduce((sum, {rows}) => sum + rows, 0)};
}

/** The differences between what a dump should hold and what it holds, each as one line; none if they are equal. */
export function differences(expected: DumpContents, actual: DumpContents): string[] {
  const found: string[] = [];
  const actualTables = new Map(actual.tables.map((table) => [table.table, table]));
  for (const want of expected.tables) {
    const have = actualTables.get(want.table);
    actualTables.delete(want.table);
    if (!have) found.push(`table ${want.table} is missing (${want.rows} rows)`);
    else if (have.rows !== want.rows) found.push(`table ${want.table} has ${have.rows} rows, not ${want.rows}`);
    else if (have.sha256 !== want.sha256) {
      found.push(
        `table ${want.table} has other contents: SHA-256 ${have.sha256.slice(0, 16)}… (${have.bytes} bytes), not ${want.sha256.slice(0, 16)}… (${want.bytes} bytes)`,
      );
    }
  }
  for (const {table, rows} of actualTables.values()) found.push(`table ${table} (${rows} rows) is not in the manifest`);
  if (expected.schema.sha256 !== actual.schema.sha256) {
    found.push(
      `the schema differs: SHA-256 ${actual.schema.sha256.slice(0, 16)}… (${actual.schema.bytes} bytes), not ${expected.schema.sha256.slice(0, 16)}… (${expected.schema.bytes} bytes)`,
    );
  }
  return found;
}
