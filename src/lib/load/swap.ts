/**
 * A new database beside another, and the moment when it takes that one's place. docs/decisions/0007 says why it is done so.
 *
 * Nothing here ever forbids connections to the target, and both renames are one transaction: whatever is killed at whatever
 * moment, the target's name leads to the old database or to the new one. RENAME holds the lock that every new connection
 * waits for, so the sessions that are ended meanwhile can't come back before it is done.
 */
import {randomInt} from 'node:crypto';
import {BackupError, interruption, messageOf} from '../errors.ts';
import {withDatabase} from '../postgres/connection.ts';
import {quotedMark} from '../postgres/process.ts';
import {query, queryJson, quoteIdentifier, quoteLiteral, type Session, uninterrupted} from '../postgres/query.ts';
import {type Claim, claim, lockClass} from './claim.ts';
import {dropDatabase} from './drop-database.ts';
import {type DatabaseProperties, mayEndSession, type SwapFacts, sessionsOn} from './swap-facts.ts';
import {newDatabaseName, newDatabasePattern} from './swap-names.ts';
import {isForTheEnd, settingsSql} from './swap-settings.ts';

/** The beginning of the comment that marks a database of ours. */
const marker = 'loma-backup restore --swap:';

const isLocked = (lock: number, id: string) =>
  `EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
    AND l.classid::bigint = ${lock} AND l.objid::bigint = ${id})`;

/**
 * A session to another database of the server: from its own, a database can't be renamed.
 * @throws BackupError of the last one that was tried
 */
export async function sessionBeside(session: Session, {otherDatabases}: SwapFacts): Promise<Session> {
  let failure: unknown;
  for (const database of otherDatabases.slice(0, 10)) {
    const beside = {...session, connection: withDatabase(session.connection, database)};
    try {
      await query(beside, 'SELECT 1');
      return beside;
    } catch (error) {
      if (interruption(session.signal)) throw error;
      failure = error;
    }
  }
  throw failure;
}

/**
 * A run's claim on a target, which ends with the run, however it ends. Should its session be lost before, another run may
 * begin, and drop this one's new database: then this one fails, and the target is as it was.
 */
export interface SwapClaim extends Claim {
  /** Of the run; its new database has it in its name. */
  token: number;
}

/**
 * Claims a target, in a session that lasts as long as the run.
 * @param server a session to another database than the target
 * @throws BackupError SWAP_REFUSED when another run swaps this target
 */
export async function claimTarget(server: Session, facts: SwapFacts): Promise<SwapClaim> {
  const token = randomInt(2 ** 31);
  const locks = `CASE WHEN ${isLocked(lockClass.target, String(facts.oid))} THEN false
    ELSE pg_catalog.pg_try_advisory_lock(${lockClass.target}, ${facts.oid | 0})
     AND pg_catalog.pg_try_advisory_lock(${lockClass.newDatabase}, ${token}) END`;
  const held = await claim(server, locks);
  if (!held) throw swappedByAnother(facts);
  return {token, release: held.release};
}

function swappedByAnother({database}: SwapFacts): BackupError {
  return new BackupError('Refused: another restore --swap of this database is running', {
    code: 'SWAP_REFUSED',
    kind: 'postgres',
    reason: `its session holds an advisory lock for ${database} (pg_locks, classid ${lockClass.target}); nothing was changed`,
    hint: 'Wait for its end, or end it, then run this again.',
  });
}

/**
 * Drops the new databases that killed runs have left: those with our name and our mark (or, if the run was killed before
 * the mark was made, that nobody can ever have connected to), whose run's claim is gone.
 * @returns what was dropped, and what could not be
 */
export async function dropAbandoned(server: Session): Promise<{dropped: string[]; failed: string[]}> {
  const token = `('x' || pg_catalog.right(d.datname, 8))::bit(32)::bigint`;
  const names = (await queryJson(
    server,
    `SELECT coalesce(pg_catalog.json_agg(d.datname), '[]') FROM pg_catalog.pg_database d
     WHERE d.datname ~ '${newDatabasePattern}' AND pg_catalog.pg_has_role(d.datdba, 'USAGE')
       AND CASE WHEN pg_catalog.shobj_description(d.oid, 'pg_database') IS NULL THEN NOT d.datallowconn
             ELSE pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), ${quoteLiteral(marker)}) END
       AND NOT ${isLocked(lockClass.newDatabase, token)}`,
  )) as string[];
  const dropped: string[] = [];
  const failed: string[] = [];
  for (const name of names) {
    try {
      await dropDatabase(server, name);
      dropped.push(name);
    } catch (error) {
      failed.push(`${name} (${error instanceof BackupError ? (error.reason ?? error.message) : messageOf(error)})`);
    }
  }
  return {dropped, failed};
}

/** A new database, empty and marked, with what the target has beside its content. */
export async function createBeside(server: Session, facts: SwapFacts, claim: SwapClaim, now: Date): Promise<string> {
  const name = newDatabaseName(now, claim.token);
  const {properties} = facts;
  await query(server, createSql(name, properties));
  try {
    await query(
      server,
      [
        'BEGIN;',
        `COMMENT ON DATABASE ${quoteIdentifier(name)} IS ${quoteLiteral(`${marker} to take the place of ${facts.database}, begun ${now.toISOString()}`)};`,
        ...grantsSql(name, properties),
        ...settingsSql(
          name,
          properties.settings.filter((setting) => !isForTheEnd(setting)),
        ),
        `ALTER DATABASE ${quoteIdentifier(name)} ALLOW_CONNECTIONS true;`,
        'COMMIT;',
      ].join('\n'),
    );
  } catch (error) {
    await dropDatabase(uninterrupted(server), name);
    throw error;
  }
  return name;
}

/** Nobody can connect at first: so one that is found without the mark holds nothing. */
function createSql(name: string, properties: DatabaseProperties): string {
  const {owner, encoding, collate, ctype, localeProvider, locale, icuRules, tablespace} = properties;
  const provider = localeProvider && {c: 'libc', i: 'icu', b: 'builtin'}[localeProvider];
  const options: [string, string | undefined][] = [
    ['OWNER', quoteIdentifier(owner)],
    ['ENCODING', quoteLiteral(encoding)],
    ['LC_COLLATE', quoteLiteral(collate)],
    ['LC_CTYPE', quoteLiteral(ctype)],
    ['LOCALE_PROVIDER', provider],
    [provider === 'builtin' ? 'BUILTIN_LOCALE' : 'ICU_LOCALE', locale && quoteLiteral(locale)],
    ['ICU_RULES', icuRules && quoteLiteral(icuRules)],
    ['TABLESPACE', tablespace && quoteIdentifier(tablespace)],
    ['ALLOW_CONNECTIONS', 'false'],
  ];
  const given = options.filter(([, value]) => value !== undefined).map(([option, value]) => `${option} ${value}`);
  return `CREATE DATABASE ${quoteIdentifier(name)} TEMPLATE template0 ${given.join(' ')}`;
}

function grantsSql(name: string, {owner, grants}: DatabaseProperties): string[] {
  if (!grants) return [];
  const database = quoteIdentifier(name);
  return [
    `REVOKE ALL ON DATABASE ${database} FROM PUBLIC, ${quoteIdentifier(owner)};`,
    ...grants.map(
      ({grantee, privilege, isGrantable}) =>
        `GRANT ${privilege} ON DATABASE ${database} TO ${grantee === undefined ? 'PUBLIC' : quoteIdentifier(grantee)}${isGrantable ? ' WITH GRANT OPTION' : ''};`,
    ),
  ];
}

/** How often RENAME may wait 5 s for sessions that end slowly. */
const attempts = 4;

export interface Exchange {
  /** The new database's name until now. */
  name: string;
  /** The old database's name from now on. */
  oldName: string;
}

/**
 * Gives the new database the target's name, and the old one another, in one transaction, while the sessions on the old
 * one are ended. It is not interrupted half-way, and tried again when somebody's session ends too slowly.
 * @throws BackupError SWAP_FAILED: the target is the old database, as it was; or, if nobody can say which one it is, so
 */
export async function exchange(server: Session, facts: SwapFacts, {name, oldName}: Exchange): Promise<void> {
  const {signal, ...uninterrupted} = server;
  const newOid = await oidOf(server, name);
  if (newOid === undefined) throw exchangeFailed(facts, `the new database ${name} is gone`, 'as it was');
  for (let attempt = 1; ; attempt++) {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    const failure = await attemptExchange(uninterrupted, facts, {name, oldName}, newOid);
    if (!failure) return;
    const current = await oidOf(uninterrupted, facts.database).catch(() => undefined);
    // The answer to the COMMIT was lost.
    if (current === newOid) return;
    const reason = failure.reason ?? failure.message;
    if (current === undefined) throw exchangeFailed(facts, reason, 'unknown');
    const isBusy = /being accessed by other users|lock timeout/.test(reason);
    if (!isBusy || attempt === attempts) throw exchangeFailed(facts, reason, 'as it was');
  }
}

/** @returns undefined when it has worked */
async function attemptExchange(
  server: Session,
  facts: SwapFacts,
  names: Exchange,
  newOid: number,
): Promise<BackupError | undefined> {
  let isOver = false;
  const renaming = query(server, exchangeSql(facts, names, newOid)).then(
    () => undefined,
    (error) => error as BackupError,
  );
  const over = renaming.then(() => {
    isOver = true;
  });
  while (!isOver) {
    await endSessions(server, facts.oid);
    await Promise.race([over, new Promise((resolve) => setTimeout(resolve, 100))]);
  }
  return renaming;
}

/** Ends the sessions on a database that this role may end. What can't be ended is RENAME's to say. */
async function endSessions(server: Session, oid: number): Promise<void> {
  await query(
    server,
    `SELECT count(pg_catalog.pg_terminate_backend(a.pid)) FROM ${sessionsOn(String(oid))} AND ${mayEndSession}`,
  ).catch(() => undefined);
}

function exchangeSql({database, oid, properties}: SwapFacts, {name, oldName}: Exchange, newOid: number): string {
  const target = quoteIdentifier(database);
  const {comment, connectionLimit, settings} = properties;
  return [
    'BEGIN;',
    // Whoever holds a lock on the database keeps every new connection waiting behind this.
    "SET LOCAL lock_timeout = '10s';",
    'SET LOCAL statement_timeout = 0;',
    `ALTER DATABASE ${target} RENAME TO ${quoteIdentifier(oldName)};`,
    `ALTER DATABASE ${quoteIdentifier(name)} RENAME TO ${target};`,
    `ALTER DATABASE ${target} CONNECTION LIMIT ${connectionLimit};`,
    ...settingsSql(database, settings.filter(isForTheEnd)),
    `COMMENT ON DATABASE ${target} IS ${comment === undefined ? 'NULL' : quoteLiteral(comment)};`,
    // Somebody may have renamed one of them meanwhile.
    `SELECT CASE WHEN n = 2 THEN 0 ELSE (${quoteLiteral(`${quotedMark} somebody else has replaced the target meanwhile: renamed `)} || n)::int END
     FROM (SELECT count(*) FROM pg_catalog.pg_database
       WHERE (oid, datname) IN ((${oid}, ${quoteLiteral(oldName)}), (${newOid}, ${quoteLiteral(database)}))) AS t (n);`,
    'COMMIT;',
  ].join('\n');
}

async function oidOf(server: Session, name: string): Promise<number | undefined> {
  const answer = await query(server, `SELECT oid FROM pg_catalog.pg_database WHERE datname = ${quoteLiteral(name)}`);
  return answer === '' ? undefined : Number(answer);
}

function exchangeFailed({database}: SwapFacts, reason: string, state: 'as it was' | 'unknown'): BackupError {
  return new BackupError('The restored database could not take the place of the target', {
    code: 'SWAP_FAILED',
    kind: 'postgres',
    reason: `${database} is ${state}: ${reason}`,
    hint:
      state === 'unknown'
        ? 'The connection was lost during the COMMIT. Look which databases there are (psql -l) before anything else.'
        : 'Stop the application and whatever else is connected to the database, then run it again.',
  });
}

/** Its size on the server, in bytes. */
export async function databaseSize(server: Session, name: string): Promise<number> {
  return Number(await query(server, `SELECT pg_catalog.pg_database_size(${quoteLiteral(name)}::name)`));
}
