/** Whether two databases hold the same rows: counted and digested by the server, table by table. */
import type {TestDatabase} from '../../test/support/database.ts';

export interface TableRows {
  table: string;
  rows: number;
  md5: string;
}

const tablesSql = `
  SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
  ORDER BY 1`;

/** Every table and the large objects; an md5 over the rows as text, sorted. */
export async function readTables({query}: Pick<TestDatabase, 'query'>): Promise<TableRows[]> {
  const names = (await query(tablesSql)).split('\n').filter(Boolean);
  const parts = names.map((name) => digestSql(`'${name.replaceAll("'", "''")}'`, 't::text', `ONLY ${name}`));
  parts.push(digestSql("'(large objects)'", "loid || ' ' || pageno || ' ' || data::text", 'pg_largeobject'));
  const answer = await query(`SELECT json_agg(x) FROM (${parts.join(' UNION ALL ')}) x`);
  return JSON.parse(answer) as TableRows[];
}

function digestSql(label: string, row: string, source: string): string {
  return `
    SELECT ${label} AS "table", count(*) AS rows,
      md5(coalesce(string_agg(${row}, E'\\n' ORDER BY ${row} COLLATE "C"), '')) AS md5
    FROM ${source} t`;
}

export interface Comparison {
  table: string;
  sourceRows: number | undefined;
  copyRows: number | undefined;
  md5: string;
  isEqual: boolean;
}

export function compareTables(source: readonly TableRows[], copy: readonly TableRows[]): Comparison[] {
  const tables = [...new Set([...source, ...copy].map(({table}) => table))];
  return tables.map((table) => {
    const a = source.find((each) => each.table === table);
    const b = copy.find((each) => each.table === table);
    return {
      table,
      sourceRows: a?.rows,
      copyRows: b?.rows,
      md5: a?.md5 ?? '-',
      isEqual: a !== undefined && a.rows === b?.rows && a.md5 === b.md5,
    };
  });
}
