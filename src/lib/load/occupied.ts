/** What a target holds of the tables that are to be restored into it, and what would stand in their way. */
import {BackupError} from '../errors.ts';
import {describeConnection} from '../postgres/connection.ts';
import {queryJson, quoteLiteral, type Session} from '../postgres/query.ts';

/** Tables and schemas, as a dump writes their names. */
export interface Wanted {
  /** Schema-qualified and quoted. */
  relations: readonly string[];
  /** Without quotes: schemas of which everything is wanted. */
  wholeSchemas: readonly string[];
  /** Without quotes: all that the wanted objects are in. */
  schemas: readonly string[];
}

export interface Occupied {
  /** Tables, views and sequences that are there, and would be replaced. */
  relations: {name: string; isTable: boolean; approximateRows: number}[];
  /** Of whole schemas: functions, types and the like that are there. */
  otherObjects: number;
  missingSchemas: string[];
  /** Objects that are not to be restored, and depend on one that would be dropped; at most 20. */
  dependents: {object: string; on: string}[];
  /** Partitions that are not to be restored, and would go with their partitioned table; at most 20. */
  strayPartitions: string[];
}

const list = (values: readonly string[]) => `ARRAY[${values.map(quoteLiteral).join(', ')}]::text[]`;

function occupiedSql({relations, wholeSchemas, schemas}: Wanted): string {
  return `
  WITH wanted AS MATERIALIZED (
    SELECT c.oid, c.reltype, c.relkind, c.reltuples, n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.unnest(${list(relations)}) AS w (name)
      JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(w.name)
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
  whole AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = ANY (${list(wholeSchemas)})),
  needed AS (
    SELECT 'pg_catalog.pg_class'::regclass AS classid, oid AS objid, name FROM wanted
    UNION ALL SELECT 'pg_catalog.pg_type'::regclass, reltype, name FROM wanted WHERE reltype <> 0
    UNION ALL SELECT 'pg_catalog.pg_type'::regclass, t.typarray, name FROM wanted JOIN pg_catalog.pg_type t ON t.oid = reltype),
  depending AS (
    SELECT d.classid, d.objid, d.objsubid, needed.name AS needed,
      CASE d.classid
        WHEN 'pg_catalog.pg_class'::regclass THEN d.objid
        WHEN 'pg_catalog.pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_catalog.pg_rewrite WHERE oid = d.objid)
        WHEN 'pg_catalog.pg_constraint'::regclass THEN (SELECT conrelid FROM pg_catalog.pg_constraint WHERE oid = d.objid)
        WHEN 'pg_catalog.pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_catalog.pg_attrdef WHERE oid = d.objid)
        WHEN 'pg_catalog.pg_policy'::regclass THEN (SELECT polrelid FROM pg_catalog.pg_policy WHERE oid = d.objid)
        WHEN 'pg_catalog.pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE oid = d.objid)
        WHEN 'pg_catalog.pg_statistic_ext'::regclass THEN (SELECT stxrelid FROM pg_catalog.pg_statistic_ext WHERE oid = d.objid)
      END AS relation,
      (SELECT pronamespace FROM pg_catalog.pg_proc WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND oid = d.objid) AS namespace
    FROM needed JOIN pg_catalog.pg_depend d ON d.refclassid = needed.classid AND d.refobjid = needed.objid AND d.deptype = 'n'
      -- A list of columns or a condition of a publication, which goes with the table.
      AND d.classid <> 'pg_catalog.pg_publication_rel'::regclass),
  partitions AS (
    WITH RECURSIVE below AS (
      SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i JOIN wanted w ON w.oid = i.inhparent AND w.relkind = 'p'
      UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON b.oid = i.inhparent)
    SELECT oid FROM below)
  SELECT pg_catalog.json_build_object(
    'relations', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', name, 'isTable', relkind IN ('r', 'p', 'f'), 'approximateRows', greatest(reltuples, 0)::bigint) ORDER BY name), '[]') FROM wanted),
    'otherObjects', (SELECT count(*) FROM pg_catalog.pg_proc WHERE pronamespace IN (SELECT oid FROM whole))
      + (SELECT count(*) FROM pg_catalog.pg_type WHERE typnamespace IN (SELECT oid FROM whole)),
    'missingSchemas', (SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM pg_catalog.unnest(${list(schemas)}) AS s (name)
      WHERE name NOT IN (SELECT nspname FROM pg_catalog.pg_namespace)),
    'dependents', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('object', object, 'on', needed)), '[]') FROM (
      SELECT DISTINCT CASE WHEN classid = 'pg_catalog.pg_rewrite'::regclass
          THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, relation, 0)
          ELSE pg_catalog.pg_describe_object(classid, objid, objsubid) END AS object, needed
      FROM depending
      WHERE coalesce(relation NOT IN (SELECT oid FROM wanted), true)
        AND coalesce(namespace NOT IN (SELECT oid FROM whole), true)
        -- An index of a wanted table, and the like.
        AND coalesce(relation NOT IN (SELECT o.objid FROM pg_catalog.pg_depend o JOIN wanted w ON o.refobjid = w.oid
          WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.refclassid = o.classid AND o.deptype IN ('a', 'i')), true)
      ORDER BY 1, 2 LIMIT 20) t),
    'strayPartitions', (SELECT coalesce(pg_catalog.json_agg(name), '[]') FROM (SELECT oid::regclass::text AS name FROM partitions
      WHERE oid NOT IN (SELECT oid FROM wanted) ORDER BY 1 LIMIT 20) t))`;
}

/** Whether a restore would replace something. */
export function isOccupied({relations, otherObjects}: Occupied): boolean {
  return relations.length > 0 || otherObjects > 0;
}

/** Looks at a target; nothing in it is changed. */
export async function lookAtOccupied(session: Session, wanted: Wanted): Promise<Occupied> {
  return (await queryJson(session, occupiedSql(wanted))) as Occupied;
}

/**
 * Refuses what a restore could only do by taking away something that is not to be restored.
 * @throws BackupError RESTORE_FAILED or REFUSED
 */
export function requireReplaceable({dependents, strayPartitions}: Occupied, session: Session): void {
  const where = `${describeConnection(session.connection)} is as it was`;
  if (strayPartitions.length > 0) {
    throw new BackupError('Refused: partitions that the backup does not hold would be dropped', {
      code: 'REFUSED',
      kind: 'refused',
      reason: `${where}: ${strayPartitions.join(', ')} would go with the partitioned table`,
      hint: 'Restore the partitions that you need by themselves (--table), or detach the others first (ALTER TABLE … DETACH PARTITION).',
    });
  }
  if (dependents.length === 0) return;
  throw new BackupError('Database restore failed', {
    code: 'RESTORE_FAILED',
    kind: 'postgres',
    reason: `${where}: ${dependents.map(({object, on}) => `${object} depends on ${on}`).join('; ')}`,
    hint:
      'A table that is replaced must be dropped, and nothing else is dropped with it. Restore what depends on it, too (another --table); ' +
      'or drop that first, and make it again afterwards; or restore the tables into a new, empty database, and copy the rows that you need.',
  });
}
