/** What has to be known of a database, and of the role's rights, before another one can take its place. */
import {queryJson, type Session} from '../postgres/query.ts';
import {earlierNames} from './swap-names.ts';

/** A setting of `ALTER DATABASE … SET`, or of `ALTER ROLE … IN DATABASE … SET`. */
export interface DatabaseSetting {
  /** Undefined: for everybody. */
  role: string | undefined;
  name: string;
  /** As the server stores it. */
  value: string;
  /** Whether this role may set it. */
  maySet: boolean;
}

export interface DatabaseGrant {
  /** Undefined: PUBLIC. */
  grantee: string | undefined;
  privilege: string;
  isGrantable: boolean;
}

/** What CREATE DATABASE and ALTER DATABASE have to repeat. */
export interface DatabaseProperties {
  owner: string;
  encoding: string;
  collate: string;
  ctype: string;
  /** `c` libc, `i` ICU, `b` builtin; undefined before PostgreSQL 15, which knows the first one only. */
  localeProvider: string | undefined;
  /** Of the provider ICU or builtin. */
  locale: string | undefined;
  icuRules: string | undefined;
  /** Undefined: template0's, which CREATE DATABASE takes by itself. */
  tablespace: string | undefined;
  connectionLimit: number;
  comment: string | undefined;
  settings: readonly DatabaseSetting[];
  /** Undefined: the ones that every database has. */
  grants: readonly DatabaseGrant[] | undefined;
}

export interface SwapFacts {
  database: string;
  oid: number;
  /** The role that is connected. */
  role: string;
  properties: DatabaseProperties;
  isTemplate: boolean;
  mayCreateDatabase: boolean;
  /** Has the rights of the owner. */
  isOwner: boolean;
  /** May make a database that belongs to the owner. */
  mayGiveAway: boolean;
  mayUseTablespace: boolean;
  /** Roles with sessions on the database that this role may not end. */
  foreignSessions: readonly string[];
  preparedTransactions: number;
  logicalSlots: readonly string[];
  securityLabels: number;
  /** Other databases that this role may connect to; the most usual first. */
  otherDatabases: readonly string[];
  /** Of every database of the server. */
  names: readonly string[];
  /** What earlier swaps of this database have left. */
  earlier: readonly string[];
}

/** Whether the current role may end a session `a` of pg_stat_activity. */
export const mayEndSession = `(
  (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
  OR EXISTS (SELECT FROM pg_catalog.pg_roles sr WHERE sr.oid = a.usesysid AND NOT sr.rolsuper
    AND (pg_catalog.pg_has_role(sr.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))))`;

/**
 * Sessions that RENAME would wait for, and that don't end by themselves: all but the autovacuum's, which it ends itself.
 * A role that may not see another's activity sees neither its kind nor, of a background process, a role.
 */
export const sessionsOn = (oid: string) =>
  `pg_catalog.pg_stat_activity a WHERE a.datid = ${oid} AND a.pid <> pg_catalog.pg_backend_pid()
   AND (a.usesysid IS NOT NULL OR a.backend_type IS NOT NULL)
   AND coalesce(a.backend_type, '') NOT IN ('autovacuum worker', 'parallel worker')`;

/** Since 15, parameters can be granted; since 16, membership without SET does not let a role give a database away. */
function factsSql(major: number): string {
  const mayChange = (name: string) => (major >= 15 ? `pg_catalog.has_parameter_privilege(${name}, 'SET')` : `false`);
  const mayBecome = major >= 16 ? 'SET' : 'MEMBER';
  const administers =
    major >= 16
      ? `EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = sr.oid AND m.admin_option AND pg_catalog.pg_has_role(m.member, 'USAGE'))`
      : 'true';
  const maySetParameter = `CASE
    WHEN position('.' IN s.name) > 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings p WHERE lower(p.name) = lower(s.name)) THEN true
    ELSE coalesce((SELECT p.context NOT IN ('superuser', 'superuser-backend') OR ${mayChange('p.name')}
      FROM pg_catalog.pg_settings p WHERE lower(p.name) = lower(s.name)), false) END`;
  const maySetForRole = `(sr.oid IS NULL OR sr.rolname = current_user
    OR (me.rolcreaterole AND NOT sr.rolsuper AND ${administers}))`;
  return `
  WITH me AS MATERIALIZED (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user),
    d AS MATERIALIZED (SELECT pg_catalog.to_jsonb(x) AS j, x.* FROM pg_catalog.pg_database x WHERE x.datname = current_database()),
    template AS (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = 'template0'),
    s AS (SELECT setrole, split_part(line, '=', 1) AS name, substr(line, position('=' IN line) + 1) AS value, n
      FROM pg_catalog.pg_db_role_setting c JOIN d ON c.setdatabase = d.oid, unnest(c.setconfig) WITH ORDINALITY AS l (line, n))
  SELECT pg_catalog.json_build_object(
    'database', d.datname, 'oid', d.oid::bigint, 'role', current_user,
    'isTemplate', d.datistemplate,
    'properties', pg_catalog.json_build_object(
      'owner', pg_catalog.pg_get_userbyid(d.datdba),
      'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
      'collate', d.datcollate, 'ctype', d.datctype,
      'localeProvider', j ->> 'datlocprovider',
      'locale', coalesce(j ->> 'datlocale', j ->> 'daticulocale'),
      'icuRules', j ->> 'daticurules',
      'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace t, template WHERE t.oid = d.dattablespace AND t.oid <> template.dattablespace),
      'connectionLimit', d.datconnlimit,
      'comment', pg_catalog.shobj_description(d.oid, 'pg_database'),
      'settings', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('role', sr.rolname, 'name', s.name, 'value', s.value,
          'maySet', me.rolsuper OR (${maySetForRole} AND ${maySetParameter})) ORDER BY sr.rolname NULLS FIRST, n), '[]')
        FROM s LEFT JOIN pg_catalog.pg_roles sr ON sr.oid = s.setrole, me),
      'grants', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('grantee', CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END,
          'privilege', a.privilege_type, 'isGrantable', a.is_grantable)) FROM pg_catalog.aclexplode(d.datacl) a)),
    'mayCreateDatabase', me.rolsuper OR me.rolcreatedb,
    'isOwner', pg_catalog.pg_has_role(d.datdba, 'USAGE'),
    'mayGiveAway', pg_catalog.pg_has_role(d.datdba, '${mayBecome}'),
    'mayUseTablespace', (SELECT d.dattablespace = template.dattablespace OR pg_catalog.has_tablespace_privilege(d.dattablespace, 'CREATE') FROM template),
    'foreignSessions', (SELECT coalesce(pg_catalog.json_agg(DISTINCT coalesce(a.usename, a.backend_type)), '[]')
      FROM ${sessionsOn('(SELECT oid FROM d)')} AND NOT ${mayEndSession}),
    'preparedTransactions', (SELECT count(*) FROM pg_catalog.pg_prepared_xacts x WHERE x.database = d.datname),
    'logicalSlots', (SELECT coalesce(pg_catalog.json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_catalog.pg_replication_slots l WHERE l.datoid = d.oid),
    'securityLabels', (SELECT count(*) FROM pg_catalog.pg_shseclabel l WHERE l.objoid = d.oid AND l.classoid = 'pg_catalog.pg_database'::regclass),
    'otherDatabases', (SELECT coalesce(pg_catalog.json_agg(o.datname ORDER BY (o.datname = 'postgres') DESC, (o.datname = 'template1'), o.datname), '[]')
      FROM pg_catalog.pg_database o WHERE o.datallowconn AND o.oid <> d.oid AND pg_catalog.has_database_privilege(o.oid, 'CONNECT')),
    'names', (SELECT pg_catalog.json_agg(o.datname) FROM pg_catalog.pg_database o))
  FROM d, me`;
}

/** Looks at the database of a session; nothing is changed. @param major of the server */
export async function lookForSwap(session: Session, major: number): Promise<SwapFacts> {
  const facts = withoutNulls(await queryJson(session, factsSql(major))) as Omit<SwapFacts, 'earlier'>;
  return {...facts, earlier: earlierNames(facts.database, facts.names)};
}

/** JSON has null where this code has undefined. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(entries.map(([name, member]) => [name, withoutNulls(member)]));
}

/** What makes a swap impossible, each with its mend. */
export function swapObstacles(facts: SwapFacts): string[] {
  const {role, database, properties} = facts;
  const obstacles: [boolean, string][] = [
    [facts.isTemplate, `${database} is a template database`],
    [!facts.mayCreateDatabase, `${role} may not create or rename databases: ALTER ROLE … CREATEDB`],
    [
      !facts.isOwner || !facts.mayGiveAway,
      `${role} is neither the owner of ${database} nor a member of its owner ${properties.owner}: log in as ${properties.owner}, or GRANT it to ${role}`,
    ],
    [
      !facts.mayUseTablespace,
      `${role} may not make anything in the tablespace ${properties.tablespace}: GRANT CREATE ON TABLESPACE …`,
    ],
    [
      facts.foreignSessions.length > 0,
      `${role} may not end the sessions of ${facts.foreignSessions.join(', ')} on ${database}: end them, or GRANT pg_signal_backend TO … (for a superuser's: log in as one)`,
    ],
    [
      facts.preparedTransactions > 0,
      `${database} has ${facts.preparedTransactions} prepared transactions: COMMIT PREPARED or ROLLBACK PREPARED them`,
    ],
    [
      facts.otherDatabases.length === 0,
      `${role} may connect to no other database of the server, and a database is renamed from another one: GRANT CONNECT ON DATABASE postgres TO …`,
    ],
  ];
  return obstacles.filter(([isSo]) => isSo).map(([, text]) => text);
}

/** What the new database will not have, or what is easily forgotten. */
export function swapWarnings(facts: SwapFacts): string[] {
  const {database, role} = facts;
  const refused = facts.properties.settings.filter(({maySet}) => !maySet);
  const settings = refused.map(
    (setting) => `${setting.name}${setting.role === undefined ? '' : ` for ${setting.role}`}`,
  );
  const warnings: [boolean, string][] = [
    [
      settings.length > 0,
      `${role} may not set these settings of ${database}, so the restored database is without them: ${settings.join(', ')}`,
    ],
    [
      facts.logicalSlots.length > 0,
      `logical replication slots go with the old database, and whoever reads them gets no changes of the restored one: ${facts.logicalSlots.join(', ')}`,
    ],
    [facts.securityLabels > 0, `the security labels of ${database} are not carried over`],
    [facts.earlier.length > 0, `earlier swaps have left ${facts.earlier.join(', ')}: drop what is not needed any more`],
  ];
  return warnings.filter(([isSo]) => isSo).map(([, text]) => text);
}
