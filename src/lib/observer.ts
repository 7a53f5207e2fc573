/** How an operation tells what it is doing, to whoever shows it: a terminal, a log, a test. */

/** Something worth showing. Progress carries running totals and comes at every chunk: a renderer throttles. */
export type ProgressEvent =
  | {type: 'started'; step: string}
  | {type: 'progress'; step: string; bytes: number; totalBytes?: number; items?: number; totalItems?: number}
  | {type: 'finished'; step: string; note?: string}
  | {type: 'skipped'; step: string; note: string}
  | {type: 'failed'; step: string; note: string}
  | {type: 'warning'; message: string};

export type Observer = (event: ProgressEvent) => void;

/** A step of an operation as shown to the user; steps with the same `group` run at the same time. */
export interface Step {
  id: string;
  title: string;
  group?: string;
}

/**
 * Tells warnings at once, and keeps them for the result.
 * @param known those that there are already
 */
export function collectWarnings(
  observer: Observer,
  known: readonly string[] = [],
): {warnings: string[]; warn: (message: string) => void} {
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
    observer({type: 'warning', message});
  };
  known.forEach(warn);
  return {warnings, warn};
}

/** Runs `work` as a step: started, then finished with the note that `note` makes of its result. */
export async function asStep<T>(
  observer: Observer,
  step: string,
  work: () => Promise<T>,
  note?: (result: T) => string | undefined,
): Promise<T> {
  observer({type: 'started', step});
  const result = await work();
  const text = note?.(result);
  observer(text === undefined ? {type: 'finished', step} : {type: 'finished', step, note: text});
  return result;
}
