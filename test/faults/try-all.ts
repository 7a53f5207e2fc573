/** Tries every case, also after one that failed; the error names all that did. */
export async function tryAll<T>(cases: readonly T[], tryOne: (each: T) => Promise<void>): Promise<void> {
  const failures: string[] = [];
  for (const each of cases) {
    try {
      await tryOne(each);
    } catch (error) {
      const {message, cause} = error as Error;
      failures.push([message, ...(cause === undefined ? [] : [(cause as Error).stack ?? String(cause)])].join('\n'));
    }
  }
  if (failures.length > 0) throw new Error(`${failures.length} of ${cases.length} failed.\n\n${failures.join('\n\n')}`);
}
