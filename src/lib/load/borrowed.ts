/**
 * A database that a backup may be tried in although nobody made it for that: the session's own, for a role that may make none.
 * It is taken only if it is empty and no other run tries a backup in it, and what the load has made in it is dropped afterwards.
 */
import {BackupError} from '../errors.ts';
import {query, queryJson, type Session, uninterrupted} from '../postgres/query.ts';
import {type Claim, claim, lockClass} from './claim.ts';
import {dropSubscriptions} from './drop-database.ts';
import {dropLoadedSql, foreignSql, keptSql, loadedSubscriptionsSql} from './loaded-objects.ts';
import type {Scratch} from './scratch.ts';
import {isEmpty, lookAtTarget} from './target.ts';

/**
 * Takes the session's own database, if nothing can be lost in it.
 * @param warn is told what is in it after all when it is given back
 * @throws BackupError REFUSED
 */
export async function borrow(server: Session, warn: (message: string) => void): Promise<Scratch> {
  const {address} = await lookAtTarget(server);
  const held = await claim(server, `pg_catalog.pg_try_advisory_lock(${lockClass.borrowed}, 0)`);
  if (!held) throw inUse(address);
  try {
    const obstacle = await obstacleIn(server);
    if (obstacle) throw notEmpty(address, obstacle);
    const database = new BorrowedDatabase(server, {address, held, comment: await commentOfPublic(server), warn});
    return {
      session: server,
      description: `${address} (it was empty)`,
      loadedBy: (transaction) => database.loadedBy(transaction),
      requireUndisturbed: () => database.requireUndisturbed(),
      drop: () => database.giveBack(),
    };
  } catch (error) {
    await held.release();
    throw error;
  }
}

function unusable(reason: string, hint: string): BackupError {
  return new BackupError('There is no database to try the restore in', {
    code: 'REFUSED',
    kind: 'refused',
    reason,
    hint,
  });
}

const otherPlace = 'ALTER ROLE … CREATEDB, or set TEST_DATABASE_URL to an empty database, or use --scratch local.';

function notEmpty(address: string, obstacle: string): BackupError {
  const reason = `the role may not create databases, and ${address} holds ${obstacle}: it could not be given back as it was`;
  return unusable(reason, otherPlace);
}

function inUse(address: string): BackupError {
  const lock = `it holds an advisory lock there (pg_locks, classid ${lockClass.borrowed})`;
  return unusable(
    `the role may not create databases, and another verify tries a backup in ${address}: ${lock}`,
    `Wait for its end, then run this again. Or ${otherPlace}`,
  );
}

/**
 * What else a database holds that a restore could take away; nothing for one as CREATE DATABASE makes it. A schema public that
 * belongs to the role itself could be dropped by a dump, and be made anew without its grants.
 */
const obstacleSql = `
  SELECT pg_catalog.string_agg(what, ', ') FROM (
    SELECT 'extensions' AS what WHERE EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql')
    UNION ALL SELECT 'types' WHERE EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid >= 16384)
    UNION ALL SELECT 'operators' WHERE EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oid >= 16384)
    UNION ALL SELECT 'casts' WHERE EXISTS (SELECT FROM pg_catalog.pg_cast WHERE oid >= 16384)
    UNION ALL SELECT 'collations' WHERE EXISTS (SELECT FROM pg_catalog.pg_collation WHERE oid >= 16384)
    UNION ALL SELECT 'conversions' WHERE EXISTS (SELECT FROM pg_catalog.pg_conversion WHERE oid >= 16384)
    UNION ALL SELECT 'text search configurations' WHERE EXISTS (SELECT FROM pg_catalog.pg_ts_config WHERE oid >= 16384)
    UNION ALL SELECT 'text search dictionaries' WHERE EXISTS (SELECT FROM pg_catalog.pg_ts_dict WHERE oid >= 16384)
    UNION ALL SELECT 'languages' WHERE EXISTS (SELECT FROM pg_catalog.pg_language WHERE oid >= 16384)
    UNION ALL SELECT 'foreign data wrappers' WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper)
    UNION ALL SELECT 'publications' WHERE EXISTS (SELECT FROM pg_catalog.pg_publication)
    UNION ALL SELECT 'subscriptions' WHERE EXISTS (SELECT FROM pg_catalog.pg_subscription s, pg_catalog.pg_database d
      WHERE s.subdbid = d.oid AND d.datname = pg_catalog.current_database())
    UNION ALL SELECT 'event triggers' WHERE EXISTS (SELECT FROM pg_catalog.pg_event_trigger)
    UNION ALL SELECT 'default privileges' WHERE EXISTS (SELECT FROM pg_catalog.pg_default_acl)
    UNION ALL SELECT 'a schema public that belongs to the role' WHERE EXISTS (SELECT FROM pg_catalog.pg_namespace
      WHERE nspname = 'public' AND nspowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user))
  ) AS t`;

/** @returns what it is, in words; empty when there is nothing */
async function obstacleIn(session: Session): Promise<string> {
  const isUsable = isEmpty(await lookAtTarget(session));
  return isUsable ? query(session, obstacleSql) : 'tables, views, functions or large objects';
}

/** Another comment on it may be in the backup, and the database's owner may set that. */
async function commentOfPublic(session: Session): Promise<string | null> {
  const comment = `pg_catalog.obj_description(pg_catalog.to_regnamespace('public'), 'pg_namespace')`;
  return (await queryJson(session, `SELECT coalesce(pg_catalog.to_json(${comment}), 'null')`)) as string | null;
}

interface Borrowed {
  address: string;
  held: Claim;
  /** Of the schema public, as it was. */
  comment: string | null;
  warn: (message: string) => void;
}

class BorrowedDatabase {
  readonly #session: Session;
  readonly #borrowed: Borrowed;
  /** Of the load, as xmin has it: without its epoch. Empty until it is about to commit: nothing is from it. */
  #xmin = '';

  constructor(server: Session, borrowed: Borrowed) {
    this.#session = uninterrupted(server);
    this.#borrowed = borrowed;
  }

  loadedBy(transaction: string): void {
    this.#xmin = String(BigInt(transaction) % 2n ** 32n);
  }

  /** What it holds that the load has not made, each with its kind; at most 20. */
  async #foreign(): Promise<string[]> {
    return (await queryJson(this.#session, foreignSql(this.#xmin))) as string[];
  }

  async requireUndisturbed(): Promise<void> {
    const foreign = await this.#foreign();
    if (foreign.length === 0) return;
    throw unusable(
      `somebody else has made something in ${this.#borrowed.address} while the backup was tried there, so nothing can be said ` +
        `of the backup: ${foreign.join(', ')}`,
      `Run this again when nobody else uses that database. Or ${otherPlace}`,
    );
  }

  async giveBack(): Promise<void> {
    const {address, held, comment, warn} = this.#borrowed;
    try {
      if (this.#xmin !== '') {
        const subscriptions = (await queryJson(this.#session, loadedSubscriptionsSql)) as string[];
        await dropSubscriptions(this.#session, subscriptions);
        await query(this.#session, dropLoadedSql(this.#xmin, comment));
      }
      const kept = this.#xmin === '' ? [] : ((await queryJson(this.#session, keptSql(this.#xmin))) as string[]);
      if (kept.length > 0) {
        warn(
          `${address} still holds some of the restored backup, which may be PHI, because something that somebody else has made ` +
            `there needs it; drop it by hand: ${kept.join(', ')}`,
        );
      }
      const foreign = await this.#foreign();
      if (foreign.length > 0) {
        warn(
          `${address} is not empty any more: somebody else has made something in it meanwhile, which is left as it is; ` +
            `the next verify in it is refused until that is gone: ${foreign.join(', ')}`,
        );
      }
      const obstacle = kept.length + foreign.length > 0 ? '' : await obstacleIn(this.#session);
      if (obstacle) warn(`${address} is not as it was before the backup was tried there: it holds ${obstacle}`);
    } finally {
      await held.release();
    }
  }
}
