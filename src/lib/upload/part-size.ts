const mib = 1 << 20;

/** S3's and R2's limits (R2 documentation, "Limits"; S3 User Guide, "Multipart upload limits"). */
export const mostParts = 10_000;
const smallestAllowed = 5 * mib;
const largestAllowed = 5 * 1024 * mib;

/** Of a dump: fewer requests than with the smallest, and three of them in memory are still little. */
const smallestOfDump = 8 * mib;

/**
 * The size of all parts but the last, chosen before the first one is sent: R2 wants them equal. A compressed dump is
 * smaller than its database on disk; half as much again leaves room for text that compresses badly.
 * @param databaseBytes `pg_database_size`
 */
export function partSizeFor(databaseBytes: number): number {
  return within(databaseBytes * 1.5, smallestOfDump);
}

/**
 * The part size of a sealed file, of which several are uploaded at once: the smallest, for the sake of memory. A frame of
 * 1 MiB grows by 32 bytes; a hundredth more is ample.
 */
export function filePartSize(fileBytes: number): number {
  return within(fileBytes * 1.01, smallestAllowed);
}

/** In whole MiB, so that `mostParts` of them hold so much. */
function within(bytes: number, smallest: number): number {
  const wanted = Math.ceil(bytes / mostParts / mib) * mib;
  return Math.min(Math.max(wanted, smallest), largestAllowed);
}

/** How many parts may be under way at once: 2 to 4 are safe on R2, fewer when each is large and memory is bounded. */
export function uploadConcurrency(partSizeBytes: number): number {
  return Math.max(1, Math.min(3, Math.floor((64 * mib) / partSizeBytes)));
}
