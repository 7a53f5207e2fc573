/**
 * What to do when a server's lock table is full: a transaction holds a lock on every table that it dumps, makes or drops,
 * on every index that it makes or drops, and on every large object that it drops. There is room for about
 * max_locks_per_transaction × (max_connections + max_prepared_transactions) of them; the default is 64 × 100.
 * @param reason of a program of PostgreSQL, in English
 * @returns undefined when it was something else
 */
export function lockTableHint(reason: string): string | undefined {
  if (!/out of shared memory/.test(reason)) return undefined;
  return (
    "The server's lock table has no room for so many tables, indexes and large objects: ALTER SYSTEM SET max_locks_per_transaction = 1024 " +
    '(on a managed server among its settings), restart the server, and run it again.'
  );
}
