/** Dropping a database that a run has made, with what may keep it from being dropped. */
import {withDatabase} from '../postgres/connection.ts';
import {query, queryJson, quoteIdentifier, quoteLiteral, type Session} from '../postgres/query.ts';

/** Drops a database, if there is one, and ends the sessions on it. @param server a session to another database */
export async function dropDatabase(server: Session, name: string): Promise<void> {
  const drop = `DROP DATABASE IF EXISTS ${quoteIdentifier(name)} WITH (FORCE)`;
  try {
    await query(server, drop);
  } catch (error) {
    const subscriptions = await subscriptionsOf(server, name).catch(() => []);
    if (subscriptions.length === 0) throw error;
    await dropSubscriptions({...server, connection: withDatabase(server.connection, name)}, subscriptions);
    await query(server, drop);
  }
}

/** A restored subscription keeps its database from being dropped. They are seen from every database of the server. */
async function subscriptionsOf(server: Session, database: string): Promise<string[]> {
  return (await queryJson(
    server,
    `SELECT coalesce(pg_catalog.json_agg(s.subname), '[]') FROM pg_catalog.pg_subscription s
     JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = ${quoteLiteral(database)}`,
  )) as string[];
}

/**
 * Drops subscriptions of the session's own database without a word to their publishers: one without a slot's name needs no
 * connection to be dropped. A restored one was made without a connection, too (`connect = false`): nothing runs yet.
 */
export async function dropSubscriptions(session: Session, names: readonly string[]): Promise<void> {
  for (const name of names.map(quoteIdentifier)) {
    await query(
      session,
      `ALTER SUBSCRIPTION ${name} DISABLE; ALTER SUBSCRIPTION ${name} SET (slot_name = NONE); DROP SUBSCRIPTION ${name};`,
    );
  }
}
