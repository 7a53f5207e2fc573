/** A database to try a restore in, made for it and dropped afterwards. */
import {randomBytes} from 'node:crypto';
import {BackupError} from '../errors.ts';
import {withDatabase} from '../postgres/connection.ts';
import {query, quoteIdentifier, quoteLiteral, type Session} from '../postgres/query.ts';
import {isEmpty, lookAtTarget} from './target.ts';

/** Name of a scratch database: the prefix, the UTC time that it was made at, and something random. */
const scratchPrefix = 'loma_verify_';

/** One that is older was left by a run that was killed. */
const staleMs = 86_400_000;

export interface Scratch {
  session: Session;
  /** What it is, for people. */
  description: string;
  /** Drops it, and whatever was made for it; to be called whatever happened. */
  drop(): Promise<void>;
}

/**
 * Makes a database on the server of a session. Where the role may not, the session's own database serves if it is empty,
 * and is emptied again afterwards.
 * @param encoding of the source database
 * @throws BackupError REFUSED when neither is possible
 */
export async function createScratch(server: Session, encoding: string, now: Date): Promise<Scratch> {
  await dropStale(server, now);
  const stamp = now.toISOString().replaceAll(/\D/g, '').slice(0, 14);
  const name = `${scratchPrefix}${stamp}_${randomBytes(4).toString('hex')}`;
  // Not interrupted: the server goes on making the database when psql is gone, and then nobody would drop it.
  const {signal: _, ...uninterrupted} = server;
  try {
    await query(uninterrupted, createDatabaseSql(name, encoding, await templateEncoding(server)));
  } catch (error) {
    if (!(error instanceof BackupError) || !/permission denied to create database/.test(error.reason ?? ''))
      throw error;
    return borrow(server);
  }
  return {
    session: {...server, connection: withDatabase(server.connection, name)},
    description: `scratch database ${name}`,
    drop: () => dropDatabase(uninterrupted, name),
  };
}

async function templateEncoding(server: Session): Promise<string> {
  return query(
    server,
    `SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database WHERE datname = 'template0'`,
  );
}

/** Another encoding than the template's goes with locale C only. */
function createDatabaseSql(name: string, encoding: string, template: string): string {
  const locale = encoding === template ? '' : ` ENCODING ${quoteLiteral(encoding)} LC_COLLATE 'C' LC_CTYPE 'C'`;
  return `CREATE DATABASE ${quoteIdentifier(name)} TEMPLATE template0${locale}`;
}

async function dropDatabase(server: Session, name: string): Promise<void> {
  await query(server, `DROP DATABASE IF EXISTS ${quoteIdentifier(name)} WITH (FORCE)`);
}

/** Drops the scratch databases that a killed run left behind. */
async function dropStale(server: Session, now: Date): Promise<void> {
  const listed = await query(
    server,
    `SELECT datname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
     WHERE datname ~ '^${scratchPrefix}[0-9]{14}_[0-9a-f]{8}$' AND pg_catalog.pg_has_role(r.oid, 'USAGE')`,
  );
  for (const name of listed.split('\n').filter(Boolean)) {
    const [, year, month, day, hour, minute] = /_(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)/.exec(name) ?? [];
    const made = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
    if (now.getTime() - made > staleMs) await dropDatabase(server, name);
  }
}

/**
 * What else a database holds that a restore and the clean-up after it could take away; nothing for one as CREATE DATABASE
 * makes it. A schema public that belongs to the role itself would go with `DROP OWNED`.
 */
const obstacleSql = `
  SELECT pg_catalog.string_agg(what, ', ') FROM (
    SELECT 'extensions' AS what WHERE EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql')
    UNION ALL SELECT 'types' WHERE EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid >= 16384)
    UNION ALL SELECT 'operators' WHERE EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oid >= 16384)
    UNION ALL SELECT 'casts' WHERE EXISTS (SELECT FROM pg_catalog.pg_cast WHERE oid >= 16384)
    UNION ALL SELECT 'collations' WHERE EXISTS (SELECT FROM pg_catalog.pg_collation WHERE oid >= 16384)
    UNION ALL SELECT 'text search configurations' WHERE EXISTS (SELECT FROM pg_catalog.pg_ts_config WHERE oid >= 16384)
    UNION ALL SELECT 'text search dictionaries' WHERE EXISTS (SELECT FROM pg_catalog.pg_ts_dict WHERE oid >= 16384)
    UNION ALL SELECT 'foreign data wrappers' WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper)
    UNION ALL SELECT 'publications' WHERE EXISTS (SELECT FROM pg_catalog.pg_publication)
    UNION ALL SELECT 'event triggers' WHERE EXISTS (SELECT FROM pg_catalog.pg_event_trigger)
    UNION ALL SELECT 'default privileges' WHERE EXISTS (SELECT FROM pg_catalog.pg_default_acl)
    UNION ALL SELECT 'a schema public that belongs to the role' WHERE EXISTS (SELECT FROM pg_catalog.pg_namespace
      WHERE nspname = 'public' AND nspowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user))
  ) AS t`;

/** Takes the session's own database, if nothing can be lost in it. */
async function borrow(server: Session): Promise<Scratch> {
  const target = await lookAtTarget(server);
  const obstacle = isEmpty(target) ? await query(server, obstacleSql) : 'tables, views, functions or large objects';
  if (obstacle) {
    throw new BackupError('There is no database to try the restore in', {
      code: 'REFUSED',
      kind: 'refused',
      reason: `the role may not create databases, and ${target.address} holds ${obstacle}: it could not be given back as it was`,
      hint: 'ALTER ROLE … CREATEDB, or set TEST_DATABASE_URL to an empty database, or use --scratch local.',
    });
  }
  const {signal: _, ...cleanUp} = server;
  return {session: server, description: `${target.address} (it was empty)`, drop: () => emptyDatabase(cleanUp)};
}

/** Removes everything that a restore put into a database: schemas and what is in them, large objects, the rest. */
async function emptyDatabase(session: Session): Promise<void> {
  await query(
    session,
    `DO $loma$
     DECLARE item record;
     BEGIN
       FOR item IN SELECT evtname AS name FROM pg_event_trigger LOOP
         EXECUTE format('DROP EVENT TRIGGER %I', item.name);
       END LOOP;
       FOR item IN SELECT pubname AS name FROM pg_publication LOOP
         EXECUTE format('DROP PUBLICATION %I', item.name);
       END LOOP;
       FOR item IN SELECT nspname AS name FROM pg_namespace n
         WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'public') AND nspname !~ '^pg_(toast|temp)'
           AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e') LOOP
         EXECUTE format('DROP SCHEMA %I CASCADE', item.name);
       END LOOP;
     END $loma$;
     SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata;
     DROP OWNED BY CURRENT_USER;`,
  );
}
