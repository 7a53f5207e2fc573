export interface WaitOptions {
  /** What is waited for, for the error: `PostgreSQL to accept connections`. */
  what: string;
  timeoutMs?: number;
  everyMs?: number;
}

/** Looks until it is so. @throws Error after the time is up, or what `isSo` throws. */
export async function waitUntil(isSo: () => boolean | Promise<boolean>, options: WaitOptions): Promise<void> {
  const {what, timeoutMs = 30_000, everyMs = 20} = options;
  const deadline = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs / 1000} s in vain for ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
