/**
 * How much the suites of test/faults, test/fuzz, test/databases and test/load do: a sample in `npm test`, all of it in
 * `npm run test:faults`.
 */
import {Random} from './random.ts';

export const isFullRun = process.env.LOMA_TEST_SIZE === 'full';

/** One of two values, by the size of the run. */
export function bySize<T>({short, full}: {short: T; full: T}): T {
  return isFullRun ? full : short;
}

/** Of the whole run: global-setup.ts chooses one and prints it, unless LOMA_TEST_SEED says which. */
export const seed = Number(process.env.LOMA_TEST_SEED ?? 1);

/** All cases in the full run, else `count` of them, chosen by the seed and in their order. */
export function sample<T>(cases: readonly T[], count: number): readonly T[] {
  return isFullRun ? cases : new Random(seed).choose(cases, count);
}
