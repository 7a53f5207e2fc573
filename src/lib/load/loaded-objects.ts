/**
 * SQL about what a load has made in a database, and what somebody else has.
 *
 * That is known by the load's transaction: a restore is one, and every row of PostgreSQL's catalogs says which transaction wrote it
 * (xmin; PostgreSQL manual, 5.5 System Columns). What somebody else makes there meanwhile, be it as the same role, has another number.
 * `DROP OWNED` would drop that as well, and take away the role's grants on databases and tablespaces of the whole server.
 */
import {quoteLiteral} from '../postgres/query.ts';

/** A restored subscription is not enabled (`connect = false`). pg_subscription lets nobody see who wrote a row. */
export const loadedSubscriptionsSql = `
  SELECT coalesce(pg_catalog.json_agg(s.subname), '[]') FROM pg_catalog.pg_subscription s
  JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
  WHERE d.datname = pg_catalog.current_database() AND NOT s.subenabled AND pg_catalog.pg_has_role(s.subowner, 'USAGE')`;

/**
 * Objects that the load has made and that have an owner, which is all that goes by itself: casts and transforms go with their
 * types, user mappings with their servers. The row that says who owns an object is written when it is made.
 */
const loadedSql = (xmin: string) => `
  SELECT s.classid, s.objid FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database b ON b.oid = s.dbid
  WHERE b.datname = pg_catalog.current_database() AND s.deptype = 'o' AND s.xmin::text = '${xmin}'`;

const isOfExtension = `EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')`;

/**
 * Objects that must stay for something that the load has not made: a view of somebody else's keeps the table that it reads, a table
 * the schema that it is in. What only belongs to an object (an index, a trigger) goes with it, whoever made it; a partition holds rows.
 */
const neededSql = (xmin: string) => `
  WITH RECURSIVE needed (classid, objid) AS (
    SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
    WHERE d.objid >= 16384 AND d.xmin::text <> '${xmin}' AND NOT ${isOfExtension}
      AND (d.deptype = 'n' OR (d.deptype = 'a' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (
        SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('r', 'p', 'f'))))
    UNION SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d JOIN needed n ON d.classid = n.classid AND d.objid = n.objid)
  SELECT classid, objid FROM needed`;

/** It goes with that one. (A partitioned table depends on the columns that it is partitioned by as if it were a part of itself.) */
const isPartOfAnother = `EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = l.classid AND d.objid = l.objid AND d.deptype IN ('i', 'a', 'e', 'P', 'S')
    AND (d.refclassid, d.refobjid) <> (l.classid, l.objid))`;

/** Most kinds are written in DROP as `pg_identify_object` calls them. */
const kindSql = `CASE WHEN l.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'routine'
  WHEN i.type = 'statistics object' THEN 'statistics' WHEN i.type = 'foreign-data wrapper' THEN 'foreign data wrapper'
  WHEN i.type = 'composite type' THEN 'type' ELSE i.type END`;

/**
 * SQL for psql. Each object is dropped in a transaction of its own, schemas when they are empty: whatever a whole schema needs, a
 * server may not have locks for at once. Event triggers come first: they would see the other drops. Names come and go as the
 * bytes that they are, since in a SQL_ASCII database they may be in any encoding.
 */
export function dropLoadedSql(xmin: string, commentOfPublic: string | null): string {
  const isOf = (catalog: string) => `l.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass`;
  return `
\\encoding SQL_ASCII
SELECT pg_catalog.format('DROP %s IF EXISTS %s CASCADE', ${kindSql}, i.identity)
FROM (${loadedSql(xmin)}) l, LATERAL pg_catalog.pg_identify_object(l.classid, l.objid, 0) i
WHERE NOT ${isOf('pg_largeobject')} AND NOT ${isOf('pg_default_acl')} AND NOT ${isOf('pg_user_mapping')} AND NOT ${isPartOfAnother}
  AND (l.classid, l.objid) NOT IN (${neededSql(xmin)})
  AND NOT (${isOf('pg_namespace')} AND i.identity = 'public')
ORDER BY ${isOf('pg_event_trigger')} DESC, ${isOf('pg_namespace')}
\\gexec
SELECT pg_catalog.count(pg_catalog.lo_unlink(l.objid)) FROM (${loadedSql(xmin)}) l WHERE ${isOf('pg_largeobject')};
${defaultPrivilegesSql(xmin)}
\\encoding UTF8
SELECT pg_catalog.format('COMMENT ON SCHEMA public IS %L', ${commentOfPublic === null ? 'NULL' : quoteLiteral(commentOfPublic)})
FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_description d
  ON d.objoid = n.oid AND d.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objsubid = 0
WHERE n.nspname = 'public' AND d.xmin::text = '${xmin}'
\\gexec
`;
}

/** Default privileges are gone when they are again what PostgreSQL grants by itself; a schema's, when they grant nothing. */
function defaultPrivilegesSql(xmin: string): string {
  return `
WITH given AS (
  SELECT a.*, pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s ', pg_catalog.pg_get_userbyid(a.defaclrole),
      CASE WHEN a.defaclnamespace <> 0 THEN pg_catalog.format(' IN SCHEMA %s', a.defaclnamespace::pg_catalog.regnamespace) END) AS head,
    CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES'
      WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS kind
  FROM pg_catalog.pg_default_acl a JOIN (${loadedSql(xmin)}) l ON l.classid = 'pg_catalog.pg_default_acl'::pg_catalog.regclass AND l.objid = a.oid)
SELECT sql FROM (
  SELECT DISTINCT 1 AS place, head || pg_catalog.format('REVOKE ALL ON %s FROM %s', kind,
    CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(e.grantee)) END) AS sql
  FROM given, pg_catalog.aclexplode(defaclacl) e
  UNION ALL SELECT 2, head || pg_catalog.format('GRANT ALL ON %s TO %I', kind, pg_catalog.pg_get_userbyid(defaclrole)) FROM given WHERE defaclnamespace = 0
  UNION ALL SELECT 3, head || pg_catalog.format('GRANT ALL ON %s TO PUBLIC', kind) FROM given WHERE defaclnamespace = 0 AND defaclobjtype IN ('f', 'T')
) t ORDER BY place
\\gexec
`;
}

/** What the load has made and is still there, but for what another object has with it; at most 20. */
export const keptSql = (xmin: string) => `
  SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (
    SELECT i.type || ' ' || i.identity AS name FROM (${loadedSql(xmin)}) l, LATERAL pg_catalog.pg_identify_object(l.classid, l.objid, 0) i
    WHERE NOT ${isPartOfAnother} ORDER BY 1 LIMIT 20) t`;

/** Whatever is in a schema has a row that says so, written when it was made; of the rest, this asks for what has an owner. */
export const foreignSql = (xmin: string) => `
  SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (
    SELECT i.type || ' ' || i.identity AS name FROM (
      SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
      WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.deptype = 'n' AND d.objid >= 16384
        AND d.xmin::text <> '${xmin}' AND NOT ${isOfExtension} AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_temp_')
      UNION SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid FROM pg_catalog.pg_namespace n
      WHERE n.oid >= 16384 AND n.nspname <> 'public' AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
        AND n.oid NOT IN (SELECT l.objid FROM (${loadedSql(xmin)}) l WHERE l.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
          AND d.objid = n.oid AND d.deptype = 'e')
      UNION SELECT s.classid, s.objid FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database b ON b.oid = s.dbid
      WHERE b.datname = pg_catalog.current_database() AND s.deptype = 'o' AND s.objid >= 16384 AND s.xmin::text <> '${xmin}'
        AND s.classid IN ('pg_catalog.pg_extension'::pg_catalog.regclass, 'pg_catalog.pg_publication'::pg_catalog.regclass,
          'pg_catalog.pg_event_trigger'::pg_catalog.regclass, 'pg_catalog.pg_foreign_server'::pg_catalog.regclass,
          'pg_catalog.pg_largeobject'::pg_catalog.regclass)
    ) o, LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i ORDER BY 1 LIMIT 20) t`;
