import type {Transform} from 'node:stream';
import type {LeftOut} from '../dump/left-out.ts';

/** A stage of a restore that lets through some of a dump, and what it says about that. Good for one restore. */
export interface LoadFilter {
  stage: Transform;
  /** Whether the rows of a table are let through, by its name as a COPY statement writes it. */
  holds(table: string): boolean;
  /** Grows while the dump flows. */
  leftOut: readonly LeftOut[];
  /** To be called when the dump has flown. @throws BackupError when what was let through is not whole */
  check(): void;
  /** To be called after the commit: asks the target what became of what it might refuse, and adds to `leftOut`. */
  settle?(): Promise<void>;
}

/** The tables that come through all filters. */
export function heldBy<T extends {table: string}>(filters: readonly LoadFilter[], tables: readonly T[]): T[] {
  return tables.filter(({table}) => filters.every((filter) => filter.holds(table)));
}
