/** Restoring some tables of a backup: what is meant, what of it the target holds, and the stage that lets only that through. */
import {pipeline} from 'node:stream/promises';
import {filterEntries} from '../dump/entry-filter.ts';
import {type Outline, OutlineReader} from '../dump/outline.ts';
import {SelectRules} from '../dump/select.ts';
import {resolveSelection, type Selection, type SelectionRequest} from '../dump/selection.ts';
import type {ReadingKeys} from '../encrypt/keys.ts';
import {BackupError, interruption} from '../errors.ts';
import {isOccupied, lookAtOccupied, type Occupied, requireReplaceable, type Wanted} from '../load/occupied.ts';
import type {Session} from '../postgres/query.ts';
import type {ObjectStore} from '../upload/store.ts';
import type {LoadFilter} from './load-filter.ts';
import {type OpenableBackup, openBackup} from './open-backup.ts';
import type {Runtime} from './runtime.ts';

export type {SelectionRequest} from '../dump/selection.ts';

/** What was chosen of a backup. */
export interface Chosen {
  /** The backup, authenticated if it is one of the older form. */
  openable: OpenableBackup;
  selection: Selection;
}

/**
 * Finds out what is meant, from the beginning of the dump: it says which tables there are, and ends where the rows begin.
 * @throws BackupError NOT_IN_BACKUP, or what `openBackup` throws
 */
export async function choose(
  store: ObjectStore,
  openable: OpenableBackup,
  keys: ReadingKeys,
  request: SelectionRequest,
  {observer, signal}: Runtime,
): Promise<Chosen> {
  if (!openable.manifest) observer({type: 'started', step: 'authenticate'});
  const dump = await openBackup(store, openable, keys, {signal});
  if (!openable.manifest) observer({type: 'finished', step: 'authenticate'});
  const outline = await readOutline(dump, signal);
  const {authenticatedBy} = dump;
  return {
    openable: authenticatedBy ? {...openable, authenticatedBy} : openable,
    selection: resolveSelection(outline, request),
  };
}

async function readOutline(
  dump: Awaited<ReturnType<typeof openBackup>>,
  signal: AbortSignal | undefined,
): Promise<Outline> {
  const enough = new AbortController();
  const reader = new OutlineReader(() => enough.abort());
  const stop = signal ? AbortSignal.any([signal, enough.signal]) : enough.signal;
  try {
    await pipeline([...dump.stages, reader.stage, async (nothing: AsyncIterable<unknown>) => drain(nothing)], {
      signal: stop,
    });
  } catch (error) {
    const interrupted = interruption(signal);
    if (interrupted || !reader.isDone) throw interrupted ?? dump.translate(error) ?? error;
  }
  return reader.outline;
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

function wantedOf({relations, wholeSchemas, schemas}: Selection): Wanted {
  return {
    relations: [...relations.values()].map(({text}) => text),
    wholeSchemas: [...wholeSchemas],
    schemas: [...schemas],
  };
}

/**
 * Looks at what the target holds of the chosen tables.
 * @throws BackupError RESTORE_FAILED or REFUSED when they can't be replaced without taking something else away
 */
export async function lookAtChosen({selection}: Chosen, session: Session): Promise<Occupied> {
  const occupied = await lookAtOccupied(session, wantedOf(selection));
  requireReplaceable(occupied, session);
  return occupied;
}

/** What a restore would overwrite; undefined when that is nothing. */
export interface Overwritten {
  /** Undefined: everything in the target. */
  chosen: Occupied['relations'] | undefined;
}

export function overwrittenOf(occupied: Occupied): Overwritten | undefined {
  return isOccupied(occupied) ? {chosen: occupied.relations} : undefined;
}

/** What lets only the chosen tables through. @param createSchemas schemas to make; by default all that are needed */
export function selectFilter({openable, selection}: Chosen, createSchemas?: readonly string[]): LoadFilter {
  const needed = createSchemas ?? [...selection.schemas].filter((name) => name !== 'public');
  const rules = new SelectRules({selection, createSchemas: new Set(needed)});
  return {
    stage: filterEntries(rules),
    holds: (table) => rules.holds(table),
    leftOut: rules.leftOut,
    check: () => requireRows(openable, selection, rules.filled),
  };
}

/** A table whose rows are not under its own name would come back empty, and look restored. */
function requireRows({manifest}: OpenableBackup, selection: Selection, filled: ReadonlySet<string>): void {
  const {relations} = selection;
  const hasRowsAbove = (key: string): boolean => {
    const parent = relations.get(key)?.partitionOf;
    return parent !== undefined && (filled.has(parent) || hasRowsAbove(parent));
  };
  const empty = [...relations].filter(([key, {kind}]) => kind === 'table' && !filled.has(key) && !hasRowsAbove(key));
  // Rows may have been left out on purpose (--exclude-table-data); the older form does not say.
  if (empty.length === 0 || !manifest || manifest.excludedTableData.length > 0) return;
  throw new BackupError('The rows of a chosen table are not under its name', {
    code: 'NOT_IN_BACKUP',
    kind: 'configuration',
    reason: `the backup holds no rows for ${empty.map(([, {text}]) => text).join(', ')}: pg_dump writes those of a hash partition with its table`,
    hint: 'Choose the partitioned table instead. Nothing was changed.',
  });
}
