const mib = 1 << 20;

/** S3's and R2's limits (R2 documentation, "Limits"; S3 User Guide, "Multipart upload limits"). */
export const mostParts = 10_000;
const smallestPart = 8 * mib;
const largestPart = 5 * 1024 * mib;

/**
 * The size of all parts but the last, chosen before the first one is sent: R2 wants them equal. A compressed dump is
 * smaller than its database on disk; half as much again leaves room for text that compresses badly.
 * @param databaseBytes `pg_database_size`
 */
export function partSizeFor(databaseBytes: number): number {
  const wanted = Math.ceil((databaseBytes * 1.5) / mostParts / mib) * mib;
  return Math.min(Math.max(wanted, smallestPart), largestPart);
}

/** How many parts may be under way at once: 2 to 4 are safe on R2, fewer when each is large and memory is bounded. */
export function uploadConcurrency(partSizeBytes: number): number {
  return Math.max(1, Math.min(3, Math.floor((64 * mib) / partSizeBytes)));
}
