/** What a run claims for as long as it lasts, however it ends: advisory locks, in a session of their own. */
import {pathlessEnvironment} from '../postgres/connection.ts';
import {talkTo} from '../postgres/process.ts';
import {askingArguments, queryError, type Session} from '../postgres/query.ts';

/**
 * Classes of advisory locks ("loma", "lomb", "lomc"): one says by its token that the run which made a database lives, one by its
 * OID that a database is being swapped, one that a backup is tried in the database that it is held in. Advisory locks belong to a
 * database, but everybody sees them in pg_locks.
 */
export const lockClass = {newDatabase: 0x6c6f6d61, target: 0x6c6f6d62, borrowed: 0x6c6f6d63} as const;

export interface Claim {
  /** Never rejects. */
  release(): Promise<void>;
}

/**
 * Takes advisory locks.
 * @param locks an SQL expression that takes them, and is false when it can't
 * @returns undefined when another session has them
 */
export async function claim(session: Session, locks: string): Promise<Claim | undefined> {
  const environment = pathlessEnvironment(session.connection, session.inherited);
  const keeper = talkTo(session.psql.path, askingArguments(session), {environment});
  try {
    // Idle for as long as the run takes; the setting is unknown before PostgreSQL 14.
    const answer = await keeper.ask(
      `WITH s AS (SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout')
       SELECT CASE WHEN (SELECT pg_catalog.count(*) FROM s) > 1 THEN false ELSE ${locks} END;\n`,
    );
    if (answer === 't') return {release: () => keeper.stop()};
  } catch (error) {
    await keeper.stop();
    throw queryError(error, session);
  }
  await keeper.stop();
  return undefined;
}
