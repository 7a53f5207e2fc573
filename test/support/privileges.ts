/** A schema whose objects have owners and privileges of every kind, and a question for them. */

/** Names of roles, quoted. */
export interface Roles {
  owner: string;
  other: string;
  reader: string;
}

/** The schema `guarded`; to be run by a superuser. */
export function guardedSql({owner, other, reader}: Roles): string {
  return `
CREATE SCHEMA guarded AUTHORIZATION ${owner};
GRANT USAGE ON SCHEMA guarded TO ${reader}; GRANT USAGE, CREATE ON SCHEMA guarded TO ${other};
CREATE TYPE guarded."Odd . state" AS ENUM ('a', 'b'); ALTER TYPE guarded."Odd . state" OWNER TO ${owner};
REVOKE USAGE ON TYPE guarded."Odd . state" FROM PUBLIC;
CREATE DOMAIN guarded.amount AS int; ALTER DOMAIN guarded.amount OWNER TO ${owner}; REVOKE ALL ON DOMAIN guarded.amount FROM PUBLIC;
CREATE TYPE guarded.pair AS (a int, b int); ALTER TYPE guarded.pair OWNER TO ${owner};
CREATE TYPE guarded.span AS RANGE (subtype = int); ALTER TYPE guarded.span OWNER TO ${other};
CREATE TABLE guarded.t (id serial, ssn text, "od""d" int); ALTER TABLE guarded.t OWNER TO ${owner};
GRANT SELECT (id, "od""d"), UPDATE (id) ON guarded.t TO ${reader}; GRANT SELECT, INSERT ON guarded.t TO ${other} WITH GRANT OPTION;
REVOKE TRUNCATE ON guarded.t FROM ${owner}; GRANT USAGE ON SEQUENCE guarded.t_id_seq TO ${other};
INSERT INTO guarded.t (ssn) VALUES ('x');
CREATE TABLE guarded.plain (id int);
GRANT SELECT ON guarded.plain TO PUBLIC;
CREATE SEQUENCE guarded.numbers; ALTER SEQUENCE guarded.numbers OWNER TO ${other}; GRANT SELECT ON SEQUENCE guarded.numbers TO ${reader};
CREATE VIEW guarded.v AS SELECT id FROM guarded.t; ALTER VIEW guarded.v OWNER TO ${owner}; GRANT SELECT ON guarded.v TO ${reader};
CREATE MATERIALIZED VIEW guarded.m AS SELECT id FROM guarded.t; ALTER MATERIALIZED VIEW guarded.m OWNER TO ${owner};
CREATE FUNCTION guarded.secret() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT ssn FROM guarded.t';
ALTER FUNCTION guarded.secret() OWNER TO ${owner}; REVOKE EXECUTE ON FUNCTION guarded.secret() FROM PUBLIC;
CREATE FUNCTION guarded.secret(guarded."Odd . state", VARIADIC int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION guarded.secret(guarded."Odd . state", int[]) TO ${reader};
CREATE PROCEDURE guarded.act(a timestamptz, INOUT b text) LANGUAGE sql AS 'SELECT b'; ALTER PROCEDURE guarded.act OWNER TO ${owner};
REVOKE ALL ON PROCEDURE guarded.act FROM PUBLIC;
CREATE AGGREGATE guarded.total(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0'); ALTER AGGREGATE guarded.total(*) OWNER TO ${other};
REVOKE ALL ON FUNCTION guarded.total() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} IN SCHEMA guarded GRANT SELECT ON TABLES TO ${reader};
`;
}

/** What belongs to no schema, and default privileges of a whole database. */
export function guardedDatabaseSql({owner, other, reader}: Roles): string {
  return `
CREATE FOREIGN DATA WRAPPER nothing; ALTER FOREIGN DATA WRAPPER nothing OWNER TO CURRENT_USER; GRANT USAGE ON FOREIGN DATA WRAPPER nothing TO ${owner};
CREATE SERVER afar FOREIGN DATA WRAPPER nothing; ALTER SERVER afar OWNER TO ${owner}; GRANT USAGE ON FOREIGN SERVER afar TO ${reader};
ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} GRANT SELECT ON SEQUENCES TO ${other} WITH GRANT OPTION;
REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO ${other};
`;
}

/** Owner and privileges of everything, without who granted them. */
export const privilegesQuery = `
  WITH o AS (
    SELECT 'pg_namespace'::regclass AS class, oid, nspowner AS owner, coalesce(nspacl, acldefault('n', nspowner)) AS acl
      FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL SELECT 'pg_class'::regclass, oid, relowner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
      FROM pg_class WHERE oid > 16383 AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relnamespace <> 'pg_toast'::regnamespace
    UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE oid > 16383
    UNION ALL SELECT 'pg_type'::regclass, oid, typowner, coalesce(typacl, acldefault('T', typowner)) FROM pg_type WHERE oid > 16383 AND typcategory <> 'A'
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, coalesce(srvacl, acldefault('S', srvowner)) FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)) FROM pg_foreign_data_wrapper)
  SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT pg_describe_object(class, oid, 0) || ' of ' || pg_get_userbyid(owner) || ': ' || (SELECT coalesce(string_agg(DISTINCT a, ' '), '')
      FROM (SELECT concat_ws('=', grantee::regrole, privilege_type, is_grantable) AS a FROM aclexplode(acl)) e) AS line FROM o
    UNION ALL SELECT pg_describe_object('pg_class'::regclass, attrelid, attnum) || ': ' || (SELECT string_agg(a, ' ' ORDER BY a)
      FROM (SELECT concat_ws('=', grantee::regrole, privilege_type, is_grantable) AS a FROM aclexplode(attacl)) e)
      FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16383
    UNION ALL SELECT 'default of ' || defaclrole::regrole || ' in ' || defaclnamespace::regnamespace || ' on ' || defaclobjtype::text || ': '
      || (SELECT string_agg(a, ' ' ORDER BY a) FROM (SELECT concat_ws('=', grantee::regrole, privilege_type, is_grantable) AS a FROM aclexplode(defaclacl)) e)
      FROM pg_default_acl) AS lines`;
