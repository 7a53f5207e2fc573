/**
 * Owners, privileges and publications' tables of a database. What a restore makes again has the owner and the privileges of something new
 * (a dump is made with --no-owner --no-privileges): what was so before and is not so after is told, as SQL.
 */
import {queryJson, type Session} from '../postgres/query.ts';

/** Names in it are quoted where SQL wants it. */
export interface Ownable {
  oid: number;
  /** For people: `view public.overview`. */
  what: string;
  /** As GRANT names it: `TABLE public.overview`, `ROUTINE public.touch(integer)`; of default privileges: `TABLES`. */
  on: string;
  /** `ALTER VIEW public.overview`; null when its owner is that of something else: an extension, or the table of a sequence. */
  alter: string | null;
  /** `ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public `, or nothing. */
  prefix: string;
  /** That the prefix names. */
  schema: string | null;
  owner: string;
  acl: AclItem[];
  /** Who would own it if the role of this session had just made it. */
  initialOwner: string;
  /** And what could be done with it then; null: the same as now. */
  initialAcl: AclItem[] | null;
}

export interface AclItem {
  /** `PUBLIC` is everybody. */
  grantee: string;
  isGrantable: boolean;
  /** `SELECT`, or of a column `SELECT (id)`. */
  privileges: string[];
}

interface Membership {
  /** `public.visits in the publication everything`. */
  what: string;
  publication: string;
  /** As `Ownable.on`: a table or a schema. */
  on: string;
  /** Adds it to the publication. */
  sql: string;
}

export interface Privileges {
  objects: Ownable[];
  /** Objects with an owner other than this role or privileges of their own, whose names cannot be read (SQL_ASCII): they are passed over. */
  unreadable: number;
  /** Owners of large objects, and how many have an owner other than this role or privileges of their own. */
  largeObjects: {owner: string; count: number}[];
  publications: string[];
  memberships: Membership[];
}

/** Something that is not as it was, and the SQL that makes it so again. */
export interface Lost {
  what: string;
  sql: string | undefined;
}

const role = (oid: string) =>
  `CASE WHEN ${oid} = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(${oid})) END`;

/** An ACL, and those of columns, as `AclItem`s. A privilege that several roles have granted is one. */
const items = (acl: string, columnsOf = 'NULL::oid') => `
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'grantee', ${role('grantee')}, 'isGrantable', grantable, 'privileges', privileges) ORDER BY grantee, grantable), '[]')
    FROM (SELECT grantee, grantable, pg_catalog.array_agg(privilege ORDER BY privilege) AS privileges
      FROM (SELECT grantee, privilege_type AS privilege, pg_catalog.bool_or(is_grantable) AS grantable
          FROM pg_catalog.aclexplode(${acl}) GROUP BY 1, 2
        UNION ALL SELECT grantee, privilege_type || pg_catalog.format(' (%I)', attname), pg_catalog.bool_or(is_grantable)
          FROM pg_catalog.pg_attribute, pg_catalog.aclexplode(attacl)
          WHERE attrelid = ${columnsOf} AND attacl IS NOT NULL AND NOT attisdropped GROUP BY 1, 2) AS each
      GROUP BY 1, 2) AS grouped)`;

const dependsOn = (catalog: string, oid: string, condition: string) =>
  `EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = ${catalog} AND d.objid = ${oid} AND ${condition})`;

/** `pg_identify_object` qualifies and quotes names, those of arguments' types too, whatever search_path is. */
const objectsSql = `
  me AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user),
  made AS (
    SELECT 'pg_catalog.pg_namespace'::regclass AS class, oid, oid AS namespace, nspowner AS owner, nspacl AS acl, 'n'::"char" AS kind,
        nspname = 'public' AND (nspowner = 10 OR pg_catalog.pg_get_userbyid(nspowner) = 'pg_database_owner') AS keeps_owner
      FROM pg_catalog.pg_namespace WHERE nspname <> 'information_schema'
    UNION ALL SELECT 'pg_catalog.pg_type'::regclass, t.oid, typnamespace, typowner, typacl, 'T', false FROM pg_catalog.pg_type t
      WHERE t.oid >= 16384 AND typtype IN ('b', 'c', 'd', 'e', 'r')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = typrelid AND relkind <> 'c')
    UNION ALL SELECT 'pg_catalog.pg_class'::regclass, oid, relnamespace, relowner, relacl, 'r', false FROM pg_catalog.pg_class
      WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL SELECT 'pg_catalog.pg_class'::regclass, oid, relnamespace, relowner, relacl, 's', false FROM pg_catalog.pg_class
      WHERE oid >= 16384 AND relkind = 'S'
    -- Not those that a range type has made for itself.
    UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, oid, pronamespace, proowner, proacl, 'f', false FROM pg_catalog.pg_proc p
      WHERE oid >= 16384 AND NOT ${dependsOn("'pg_catalog.pg_proc'::regclass", 'p.oid', "deptype = 'i'")}
    UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid, NULL, fdwowner, fdwacl, 'F', false
      FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_catalog.pg_foreign_server'::regclass, oid, NULL, srvowner, srvacl, 'S', false FROM pg_catalog.pg_foreign_server),
  owned AS (
    SELECT made.*, pg_catalog.upper(pg_catalog.replace(i.type, '-', ' ')) AS type, i.identity,
      ${dependsOn('class', 'made.oid', "deptype = 'e'")} AS is_member,
      (SELECT initprivs FROM pg_catalog.pg_init_privs p WHERE p.classoid = class AND p.objoid = made.oid AND p.objsubid = 0) AS initprivs,
      kind = 's' AND ${dependsOn('class', 'made.oid', "deptype IN ('a', 'i') AND refobjsubid > 0")} AS is_of_column,
      kind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = made.oid AND attacl IS NOT NULL) AS has_columns
    FROM made, pg_catalog.pg_identify_object(class, made.oid, 0) AS i
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = namespace AND nspname ~ '^pg_') AND i.identity IS NOT NULL),
  objects AS (
    SELECT kind, identity, owner <> me.oid OR acl IS NOT NULL OR has_columns AS is_special,
      pg_catalog.json_build_object('oid', owned.oid::bigint, 'what', pg_catalog.lower(type) || ' ' || identity,
      'on', CASE kind WHEN 'n' THEN 'SCHEMA' WHEN 'T' THEN 'TYPE' WHEN 'r' THEN 'TABLE' WHEN 's' THEN 'SEQUENCE' WHEN 'f' THEN 'ROUTINE'
        WHEN 'F' THEN 'FOREIGN DATA WRAPPER' ELSE 'FOREIGN SERVER' END || ' ' || identity,
      'alter', CASE WHEN NOT is_member AND NOT is_of_column
        THEN 'ALTER ' || CASE kind WHEN 'f' THEN 'ROUTINE' WHEN 'T' THEN 'TYPE' ELSE type END || ' ' || identity END,
      'prefix', '', 'schema', NULL, 'owner', ${role('owner')},
      'acl', ${items('coalesce(acl, pg_catalog.acldefault(kind, owner))', 'CASE WHEN has_columns THEN owned.oid END')},
      'initialOwner', ${role('CASE WHEN keeps_owner OR is_member THEN owner ELSE me.oid END')},
      'initialAcl', CASE WHEN acl IS NOT NULL OR has_columns THEN ${items('coalesce(initprivs, pg_catalog.acldefault(kind, owner))')} END) AS object
    FROM owned, me
    UNION ALL SELECT 'Z', '', true, pg_catalog.json_build_object('oid', a.oid::bigint,
      'what', 'what ' || ${role('defaclrole')} || ' makes' || coalesce(' in schema ' || pg_catalog.quote_ident(nspname), ''),
      'on', CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES'
        WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
      'alter', NULL, 'prefix', 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || ${role('defaclrole')}
        || coalesce(' IN SCHEMA ' || pg_catalog.quote_ident(nspname), '') || ' ',
      'schema', pg_catalog.quote_ident(nspname), 'owner', ${role('defaclrole')}, 'acl', ${items('defaclacl')},
      'initialOwner', ${role('defaclrole')},
      'initialAcl', ${items(`CASE defaclnamespace WHEN 0 THEN pg_catalog.acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END, defaclrole) END`)})
    FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = defaclnamespace),
  readable AS (SELECT objects.*,
      pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII' OR object::text !~ '[^\\x01-\\x7f]' AS is_readable FROM objects)`;

/** Since 15 there are lists of columns, conditions and whole schemas. */
function membershipsSql(major: number): string {
  const columns = `coalesce((SELECT ' (' || pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) || ')'
    FROM pg_catalog.pg_attribute WHERE attrelid = prrelid AND attnum = ANY (prattrs::int2[])), '')`;
  const condition = `coalesce(' WHERE (' || pg_catalog.pg_get_expr(prqual, prrelid) || ')', '')`;
  return `
    SELECT name || ' in the publication ' || publication AS what, publication, 'TABLE ' || name AS on_what,
      'ALTER PUBLICATION ' || publication || ' ADD TABLE ONLY ' || name || detail || ';' AS sql
    FROM (SELECT pg_catalog.quote_ident(pubname) AS publication, pg_catalog.format('%I.%I', nspname, relname) AS name,
        ${major >= 15 ? `${columns} || ${condition}` : `''`} AS detail
      FROM pg_catalog.pg_publication_rel JOIN pg_catalog.pg_publication p ON p.oid = prpubid JOIN pg_catalog.pg_class c ON c.oid = prrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace) AS tables
    ${
      major < 15
        ? ''
        : `UNION ALL SELECT pg_catalog.format('schema %I in the publication %I', nspname, pubname), pg_catalog.quote_ident(pubname),
      pg_catalog.format('SCHEMA %I', nspname), pg_catalog.format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I;', pubname, nspname)
    FROM pg_catalog.pg_publication_namespace JOIN pg_catalog.pg_publication p ON p.oid = pnpubid JOIN pg_catalog.pg_namespace n ON n.oid = pnnspid`
    }`;
}

/** Looks at a database; nothing in it is changed. @param major of the server */
export async function lookAtPrivileges(session: Session, major: number): Promise<Privileges> {
  const transferable = `(pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII' OR sql !~ '[^\\x01-\\x7f]')`;
  return (await queryJson(
    session,
    `WITH ${objectsSql}
    SELECT pg_catalog.json_build_object(
      'objects', (SELECT coalesce(pg_catalog.json_agg(object ORDER BY pg_catalog.strpos('nTrsfFSZ', kind::text), identity), '[]')
        FROM readable WHERE is_readable),
      'unreadable', (SELECT count(*) FROM readable WHERE is_special AND NOT is_readable),
      'largeObjects', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('owner', owner, 'count', n) ORDER BY owner), '[]')
        FROM (SELECT ${role('lomowner')} AS owner, count(*) AS n FROM pg_catalog.pg_largeobject_metadata, me
          WHERE lomowner <> me.oid OR lomacl IS NOT NULL GROUP BY 1) AS large),
      'publications', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.quote_ident(pubname)), '[]') FROM pg_catalog.pg_publication
        WHERE pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII' OR pubname::text !~ '[^\\x01-\\x7f]'),
      'memberships', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
          'what', what, 'publication', publication, 'on', on_what, 'sql', sql) ORDER BY what), '[]')
        FROM (${membershipsSql(major)}) AS memberships WHERE ${transferable}))`,
  )) as Privileges;
}

/** By grantee and privilege: whether it may be passed on. What the owner may do is under the name that the owner will have. */
function byGrantee(acl: readonly AclItem[], owners: readonly string[], owner: string) {
  const found = new Map<string, Map<string, boolean>>();
  for (const {grantee, isGrantable, privileges} of acl) {
    const name = owners.includes(grantee) ? owner : grantee;
    const held = found.get(name) ?? new Map<string, boolean>();
    for (const privilege of privileges) held.set(privilege, isGrantable || held.get(privilege) === true);
    found.set(name, held);
  }
  return found;
}

interface Change {
  before: Ownable;
  isOwnerLost: boolean;
  /** Roles whose privileges are not what they were. */
  grantees: string[];
  sql: string[];
}

/** What makes an object again what it was. The owner comes first: what it may do, and has granted, changes with it. */
function changeOf(before: Ownable, after: Pick<Ownable, 'owner' | 'acl'>): Change {
  const {owner, alter, prefix, on} = before;
  const isOwnerLost = alter !== null && after.owner !== owner;
  const wanted = byGrantee(before.acl, [owner], owner);
  const given = byGrantee(after.acl, [owner, after.owner], owner);
  const statements = (grantee: string): string[] => {
    const want = wanted.get(grantee) ?? new Map<string, boolean>();
    const have = given.get(grantee) ?? new Map<string, boolean>();
    const missing = [...want].filter(([name, mayPassOn]) => !have.has(name) || (mayPassOn && !have.get(name)));
    const lists: [string, [string, boolean][], string][] = [
      ['REVOKE', [...have].filter(([name]) => !want.has(name)), `FROM ${grantee}`],
      [
        'REVOKE GRANT OPTION FOR',
        [...have].filter(([name, mayPassOn]) => mayPassOn && want.get(name) === false),
        `FROM ${grantee}`,
      ],
      ['GRANT', missing.filter(([, mayPassOn]) => !mayPassOn), `TO ${grantee}`],
      ['GRANT', missing.filter(([, mayPassOn]) => mayPassOn), `TO ${grantee} WITH GRANT OPTION`],
    ];
    return lists
      .filter(([, privileges]) => privileges.length > 0)
      .map(
        ([verb, privileges, rest]) =>
          `${prefix}${verb} ${privileges.map(([name]) => name).join(', ')} ON ${on} ${rest};`,
      );
  };
  const changed = [...new Set([...given.keys(), ...wanted.keys()])]
    .map((grantee) => ({grantee, sql: statements(grantee)}))
    .filter(({sql}) => sql.length > 0);
  return {
    before,
    isOwnerLost,
    grantees: changed.map(({grantee}) => grantee),
    sql: [...(isOwnerLost ? [`${alter} OWNER TO ${owner};`] : []), ...changed.flatMap(({sql}) => sql)],
  };
}

const keyOf = ({prefix, on}: Pick<Ownable, 'prefix' | 'on'>) => `${prefix}${on}`;

/** What an object would be if the role of the session had just made it. */
const initialState = ({initialOwner, initialAcl, acl}: Ownable) => ({owner: initialOwner, acl: initialAcl ?? acl});

/** Whether both lists are of one database: then only what was dropped and made again is looked at. */
export interface Comparison {
  isSameDatabase: boolean;
}

/** What changes if the role of the session makes everything again. Default privileges of a whole database stay with it. */
function expectedChanges({objects}: Privileges, {isSameDatabase}: Comparison): Change[] {
  return objects
    .filter(({prefix, schema}) => prefix === '' || schema !== null || !isSameDatabase)
    .map((object) => changeOf(object, initialState(object)))
    .filter(({sql}) => sql.length > 0);
}

/**
 * What is there after a restore, and not as it was before.
 * @param after undefined: not known, and taken to be as if everything had been made again
 */
export function lostPrivileges(before: Privileges, after: Privileges | undefined, comparison: Comparison): Lost[] {
  const changes = after ? changesBetween(before, after, comparison) : expectedChanges(before, comparison);
  return [
    ...changes.map((change) => ({what: whatChanged(change), sql: change.sql.join('\n')})),
    ...largeObjectsLost(before, after),
    ...(before.unreadable > 0
      ? [{what: `owners and privileges of objects (${before.unreadable}) whose names are not UTF-8`, sql: undefined}]
      : []),
  ];
}

function whatChanged({before: {what, prefix}, isOwnerLost, grantees}: Change): string {
  const privileges = prefix === '' ? 'privileges' : 'default privileges';
  const parts = [...(isOwnerLost ? ['owner'] : []), ...(grantees.length > 0 ? [privileges] : [])];
  return `${parts.join(' and ')} of ${what}`;
}

function changesBetween({objects}: Privileges, after: Privileges, {isSameDatabase}: Comparison): Change[] {
  const found = new Map(after.objects.map((object) => [keyOf(object), object]));
  return objects.flatMap((object) => {
    const now = found.get(keyOf(object));
    if (isSameDatabase && now?.oid === object.oid) return [];
    // Default privileges that are nowhere are the initial ones; any other object that is nowhere has no privileges.
    const isDefault = object.prefix !== '' && (object.schema === null || found.has(`SCHEMA ${object.schema}`));
    const state = now ?? (isDefault ? initialState(object) : undefined);
    const change = state && changeOf(object, state);
    return change && change.sql.length > 0 ? [change] : [];
  });
}

function largeObjectsLost({largeObjects}: Privileges, after: Privileges | undefined): Lost[] {
  const left = new Map(after?.largeObjects.map(({owner, count}) => [owner, count]));
  return largeObjects
    .filter(({owner, count}) => count > (left.get(owner) ?? 0))
    .map(({owner, count}) => ({
      what: `owner or privileges of large objects (${owner} had ${count} of them)`,
      sql: undefined,
    }));
}

/** Tables and schemas that a publication had, and lost because they were dropped and made again. */
export function lostMemberships({memberships}: Privileges, after: Privileges | undefined): Lost[] {
  const there = new Set([...(after?.objects.map(keyOf) ?? []), ...(after?.publications.map(publicationKey) ?? [])]);
  const kept = new Set(after?.memberships.map(({what}) => what));
  return memberships
    .filter(
      ({what, on, publication}) =>
        !kept.has(what) && (!after || (there.has(on) && there.has(publicationKey(publication)))),
    )
    .map(({what, sql}) => ({what, sql}));
}

const publicationKey = (name: string) => `PUBLICATION ${name}`;

/** At most so many objects of a role are named in a warning. */
const maxNamed = 5;

/** Said before a restore: whose objects change hands, and whose privileges are lost. */
export function privilegeWarnings(before: Privileges, comparison: Comparison): string[] {
  const changes = expectedChanges(before, comparison);
  const warnings: string[] = [];
  const moved = changes.filter(({isOwnerLost}) => isOwnerLost).map((change) => change.before);
  for (const owner of new Set(moved.map((object) => object.owner))) {
    const objects = moved.filter((object) => object.owner === owner);
    const more = objects.length - maxNamed;
    const names = objects.slice(0, maxNamed).map(({what}) => what);
    warnings.push(
      `a backup holds no owners: what belongs to ${owner} and is restored (${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}) will belong to ` +
        `${objects[0]?.initialOwner}, and ${owner} may not use it, until it is given back with the SQL that is listed at the end; or restore as ${owner} ` +
        '(runbook, "Owners and grants after a restore")',
    );
  }
  const grantees = [...new Set(changes.flatMap((change) => change.grantees))];
  if (grantees.length > 0) {
    warnings.push(
      `a backup holds no grants: what ${grantees.join(', ')} may do with restored objects is not what was granted and revoked, until the SQL that is ` +
        'listed at the end is run (runbook, "Owners and grants after a restore")',
    );
  }
  return warnings;
}
