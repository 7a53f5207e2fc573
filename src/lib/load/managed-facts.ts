/** What a role may do that is no superuser. */
import {queryJson, quoteLiteral, type Session, serverFacts} from '../postgres/query.ts';

export interface RoleFacts {
  /** Settings that it may give to a function; null: all. Of one that the server does not know, a superuser only may say that. */
  settings: string[] | null;
  /** Languages that it may write functions in. */
  languages: string[];
  /** Tables of extensions that it may write rows into; null: all. */
  extensionTables: {schema: string; name: string}[] | null;
}

/** Settings that any role may set; GRANT SET ON PARAMETER, which gives it others, came with PostgreSQL 15. */
const maySet = (major: number) =>
  `context = 'user'${major < 15 ? '' : ` OR (context = 'superuser' AND pg_catalog.has_parameter_privilege(name, 'SET'))`}`;

export async function lookAtRole(session: Session): Promise<RoleFacts> {
  const {major} = await serverFacts(session);
  return (await queryJson(
    session,
    `WITH me AS (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
     SELECT pg_catalog.json_build_object(
       'settings', (SELECT pg_catalog.json_agg(pg_catalog.lower(name)) FROM pg_catalog.pg_settings, me
         WHERE NOT me.rolsuper AND (${maySet(major)})),
       'languages', (SELECT coalesce(pg_catalog.json_agg(lanname), '[]') FROM pg_catalog.pg_language, me
         WHERE me.rolsuper OR (lanpltrusted AND pg_catalog.has_language_privilege(lanname, 'USAGE'))),
       'extensionTables', (SELECT CASE WHEN me.rolsuper THEN NULL ELSE (
         SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('schema', n.nspname, 'name', c.relname)), '[]')
         FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'p')
           AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) END FROM me))`,
  )) as RoleFacts;
}

/** Extensions, of those that are named, that a database does not have. */
export async function missingExtensions(session: Session, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  return (await queryJson(
    session,
    `SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM pg_catalog.unnest(ARRAY[${names.map(quoteLiteral).join(', ')}]::text[]) AS n (name)
     WHERE name NOT IN (SELECT extname FROM pg_catalog.pg_extension)`,
  )) as string[];
}
