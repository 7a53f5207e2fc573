/**
 * Waits for all of them, so that nothing is under way any more when one has failed: no program that was started, no connection.
 * @throws what the first of them, in the order given, was rejected with
 */
export async function together<T extends readonly unknown[]>(
  promises: T,
): Promise<{-readonly [K in keyof T]: Awaited<T[K]>}> {
  for (const outcome of await Promise.allSettled(promises)) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
  return Promise.all(promises) as Promise<{-readonly [K in keyof T]: Awaited<T[K]>}>;
}
