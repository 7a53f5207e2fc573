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

/**
 * Tables by their names. Rows of a hash-partitioned table may be loaded through it, a part for each partition: its second
 * part is named `public.t (part 2)`.
 */
function tablesByName(tables: readonly TableContents[]): Map<string, TableContents> {
  const byName = new Map<string, TableContents>();
  const parts = new Map<string, number>();
  for (const table of tables) {
    const part = (parts.get(table.table) ?? 0) + 1;
    parts.set(table.table, part);
    byName.set(part === 1 ? table.table : `${table.table} (part ${part})`, table);
  }
  return byName;
}

/** The differences between what a dump should hold and what it holds, each as one line; none if they are equal. */
export function differences(expected: DumpContents, actual: DumpContents): string[] {
  const found: string[] = [];
  const actualTables = tablesByName(actual.tables);
  for (const [name, want] of tablesByName(expected.tables)) {
    const have = actualTables.get(name);
    actualTables.delete(name);
    if (!have) found.push(`table ${name} is missing (${want.rows} rows)`);
    else if (have.rows !== want.rows) found.push(`table ${name} has ${have.rows} rows, not ${want.rows}`);
    else if (have.sha256 !== want.sha256) {
      found.push(
        `table ${name} has other contents: SHA-256 ${have.sha256.slice(0, 16)}… (${have.bytes} bytes), not ${want.sha256.slice(0, 16)}… (${want.bytes} bytes)`,
      );
    }
  }
  for (const [name, {rows}] of actualTables) found.push(`table ${name} (${rows} rows) is not in the manifest`);
  if (expected.schema.sha256 !== actual.schema.sha256) {
    found.push(
      `the schema differs: SHA-256 ${actual.schema.sha256.slice(0, 16)}… (${actual.schema.bytes} bytes), not ${expected.schema.sha256.slice(0, 16)}… (${expected.schema.bytes} bytes)`,
    );
  }
  return found;
}
