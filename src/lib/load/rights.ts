/** Whether a role may read everything that a dump needs. */
import {queryJson, type Session} from '../postgres/query.ts';

export interface Rights {
  role: string;
  /** Superuser or BYPASSRLS: row-level security hides nothing. */
  bypassesRowSecurity: boolean;
  /** Tables with row-level security that applies to this role; at most 10 of them. */
  hiddenTables: string[];
  /** Tables and sequences that it may not read; at most 10 of them. */
  unreadable: string[];
}

const userRelations = `
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
      WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`;

const firstTen = (condition: string) =>
  `(SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM
     (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name ${userRelations} AND ${condition} ORDER BY 1 LIMIT 10) t)`;

export async function lookAtRights(session: Session): Promise<Rights> {
  return (await queryJson(
    session,
    `SELECT pg_catalog.json_build_object(
       'role', current_user,
       'bypassesRowSecurity', (SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user),
       'hiddenTables', ${firstTen(`c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid)`)},
       'unreadable', ${firstTen(
         `c.relkind IN ('r', 'p', 'S', 'm') AND NOT CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN
            CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                 ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END ELSE false END`,
       )})`,
  )) as Rights;
}

/** What keeps the role from a complete dump, each as one line with its mend. */
export function describeRights({role, hiddenTables, unreadable}: Rights): string[] {
  const problems: string[] = [];
  if (hiddenTables.length > 0) {
    problems.push(`row-level security hides rows of ${hiddenTables.join(', ')} from ${role}: ALTER ROLE … BYPASSRLS`);
  }
  if (unreadable.length > 0) {
    problems.push(`${role} may not read ${unreadable.join(', ')}: GRANT pg_read_all_data TO …`);
  }
  return problems;
}
