/** What a database holds before something is restored into it. */
import {describeConnection} from '../postgres/connection.ts';
import {
  queryJson,
  queryJsonObjects,
  quoteLiteral,
  type ServerFacts,
  type Session,
  serverFactsSql,
} from '../postgres/query.ts';

export interface TargetFacts extends ServerFacts {
  /** `host:port/database`. */
  address: string;
  tables: number;
  /** By the server's own estimate (`pg_class.reltuples`). */
  approximateRows: number;
  /** Partitioned parents, views, sequences, functions, large objects, schemas that somebody made. */
  otherObjects: number;
}

/** Not made by a user: the system's own schemas, and what belongs to an extension. */
const isUserSchema = `n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'`;
const isNotOfExtension = (catalog: string, alias: string) =>
  `NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.${catalog}'::regclass AND e.objid = ${alias}.oid AND e.deptype = 'e')`;

const targetSql = `
  SELECT pg_catalog.json_build_object(
    'tables', (SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND ${isUserSchema} AND ${isNotOfExtension('pg_class', 'c')}),
    'approximateRows', (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND ${isUserSchema} AND ${isNotOfExtension('pg_class', 'c')}),
    'otherObjects',
      (SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('p', 'v', 'm', 'S', 'f') AND ${isUserSchema} AND ${isNotOfExtension('pg_class', 'c')})
      + (SELECT count(*) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE ${isUserSchema} AND ${isNotOfExtension('pg_proc', 'p')})
      + (SELECT count(*) FROM pg_catalog.pg_namespace n
        WHERE ${isUserSchema} AND n.nspname <> 'public' AND ${isNotOfExtension('pg_namespace', 'n')})
      + (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata))`;

/** Looks at a database; nothing in it is changed. */
export async function lookAtTarget(session: Session): Promise<TargetFacts> {
  const [server, held] = (await queryJsonObjects(session, [serverFactsSql, targetSql])) as [
    ServerFacts,
    Pick<TargetFacts, 'tables' | 'approximateRows' | 'otherObjects'>,
  ];
  return {...server, ...held, address: describeConnection(session.connection)};
}

/** Names of a SQL_ASCII database may be in any encoding: the server would refuse to send one that is not UTF-8. */
const isTransferable = (name: string) =>
  `(pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII' OR ${name}::text !~ '[^\\x01-\\x7f]')`;

/**
 * Tables of a database that are not among the given ones, nor partitions of one of them; at most 20.
 * @param known as the dump writes them
 * @param alsoKnown as the comments of a dump write them: without quotes, a line break as a space
 */
export async function otherTables(
  session: Session,
  known: readonly string[],
  alsoKnown: readonly {schema: string; name: string}[],
): Promise<string[]> {
  const list = known.map((table) => quoteLiteral(table)).join(', ');
  const arrayOf = (texts: string[]) => `ARRAY[${texts.map(quoteLiteral).join(', ')}]::text[]`;
  const inComment = (name: string) => `pg_catalog.translate(${name}, pg_catalog.chr(10) || pg_catalog.chr(13), '  ')`;
  return (await queryJson(
    session,
    `SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (
       SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'r' AND ${isUserSchema} AND ${isNotOfExtension('pg_class', 'c')}
         AND ${isTransferable('n.nspname')} AND ${isTransferable('c.relname')}
         AND NOT pg_catalog.format('%I.%I', n.nspname, c.relname) = ANY (ARRAY[${list}]::text[])
         AND (${inComment('n.nspname')}, ${inComment('c.relname')}) NOT IN (SELECT s, t FROM ROWS FROM (
           pg_catalog.unnest(${arrayOf(alsoKnown.map(({schema}) => schema))}),
           pg_catalog.unnest(${arrayOf(alsoKnown.map(({name}) => name))})) AS a (s, t))
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a (relid)
           JOIN pg_catalog.pg_class p ON p.oid = a.relid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
           WHERE pg_catalog.format('%I.%I', pn.nspname, p.relname) = ANY (ARRAY[${list}]::text[]))
       ORDER BY 1 LIMIT 20) t`,
  )) as string[];
}

/** Tablespaces, of those that are named, that the server does not have, or not for this role. */
export async function missingTablespaces(session: Session, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const list = names.map((name) => quoteLiteral(name)).join(', ');
  return (await queryJson(
    session,
    `SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM pg_catalog.unnest(ARRAY[${list}]::text[]) AS n (name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace t
       WHERE t.spcname = n.name AND pg_catalog.has_tablespace_privilege(t.oid, 'CREATE'))`,
  )) as string[];
}

/** Whether a restore into it can destroy nothing. */
export function isEmpty({tables, otherObjects}: Pick<TargetFacts, 'tables' | 'otherObjects'>): boolean {
  return tables === 0 && otherObjects === 0;
}
