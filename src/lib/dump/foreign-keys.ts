/** Foreign keys that a dump without the rows of some tables breaks. */
import {queryJson, type Session} from '../postgres/query.ts';
import type {Inspection} from './inspect.ts';
import {keyOf, nameKey, type QualifiedName} from './sql-names.ts';

interface ForeignKey {
  constraint: string;
  table: QualifiedName;
  referenced: QualifiedName;
  /** The tables with the rows: of a partitioned table, its partitions. */
  tables: QualifiedName[];
  referencedTables: QualifiedName[];
}

const nameOf = (relation: string) =>
  `(SELECT pg_catalog.json_build_object('schema', n.nspname, 'name', c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ${relation})`;
/** A table that is neither partitioned nor a partition has no partition tree. */
const tablesOf = (relation: string) =>
  `(SELECT coalesce(pg_catalog.json_agg(${nameOf('t.oid')}), '[]') FROM pg_catalog.pg_class t WHERE t.relkind = 'r'
    AND t.oid IN (SELECT ${relation} UNION SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(${relation}::regclass) AS p))`;

/** Those of partitions that come with the partitioned table's, and those that were never checked, are left out. */
const foreignKeysSql = `
  SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'constraint', f.conname,
    'table', ${nameOf('f.conrelid')}, 'referenced', ${nameOf('f.confrelid')},
    'tables', ${tablesOf('f.conrelid')}, 'referencedTables', ${tablesOf('f.confrelid')}) ORDER BY f.conname, f.oid), '[]')
  FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0 AND f.convalidated`;

export interface BrokenForeignKey {
  constraint: string;
  /** Has rows in the dump, and may refer to rows of `referenced`, which the dump lacks. */
  table: string;
  referenced: string;
}

/** Asks the dumped database which foreign keys of tables with rows refer to tables whose rows were left out of a dump. */
export async function brokenForeignKeys(
  session: Session,
  {contents, tablesWithoutRows}: Pick<Inspection, 'contents' | 'tablesWithoutRows'>,
): Promise<BrokenForeignKey[]> {
  const foreignKeys = (await queryJson(session, foreignKeysSql)) as ForeignKey[];
  const dumped = new Map(contents.tables.map(({table, rows}) => [keyOf(table), rows]));
  const leftOut = new Set(tablesWithoutRows.map(nameKey));
  return foreignKeys
    .filter(
      ({table, tables, referenced, referencedTables}) =>
        [table, ...tables].some((each) => (dumped.get(nameKey(each)) ?? 0) > 0) &&
        // Rows of some hash partitions are dumped under the name of the partitioned table.
        !dumped.has(nameKey(referenced)) &&
        referencedTables.some((each) => leftOut.has(nameKey(each))),
    )
    .map(({constraint, table, referenced}) => ({
      constraint,
      table: nameKey(table),
      referenced: nameKey(referenced),
    }));
}
