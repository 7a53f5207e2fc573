/** Puts files where they belong, and never over something else unless told. */
import {randomUUID} from 'node:crypto';
import {mkdir, readFile, rename, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {createTwoFilesPatch} from 'diff';
import {BackupError, codeOf, messageOf} from '../errors.ts';

/** What became of a file; with a dry run, what would. */
export type FileState = 'created' | 'unchanged' | 'replaced' | 'kept';

export interface PlacedFile {
  /** From the directory that all of them were placed in. */
  path: string;
  state: FileState;
  /** Unified diff from what is there to what would be, where they differ. */
  difference?: string;
}

export interface PlaceOptions {
  /** Replace files that differ. */
  overwrite: boolean;
  /** Say what would be done, and write nothing. */
  dryRun: boolean;
}

/**
 * Writes texts below a directory. A file that is there with another text is kept, unless `overwrite`.
 * @param texts the texts by their path below `directory`
 * @throws BackupError OUTPUT_FAILED
 */
export async function placeFiles(
  directory: string,
  texts: Readonly<Record<string, string>>,
  options: PlaceOptions,
): Promise<PlacedFile[]> {
  const placed: PlacedFile[] = [];
  for (const [name, text] of Object.entries(texts)) {
    placed.push(await place(directory, name, text, options));
  }
  return placed;
}

async function place(directory: string, name: string, text: string, options: PlaceOptions): Promise<PlacedFile> {
  const file = path.join(directory, name);
  try {
    const present = await readIfPresent(file);
    if (present === text) return {path: name, state: 'unchanged'};
    if (present === undefined) {
      if (!options.dryRun) await create(file, text);
      return {path: name, state: 'created'};
    }
    const difference = createTwoFilesPatch(name, name, present, text, 'is there', 'loma-backup');
    if (!options.overwrite) return {path: name, state: 'kept', difference};
    if (!options.dryRun) await replace(file, text);
    return {path: name, state: 'replaced', difference};
  } catch (error) {
    throw new BackupError(`${name} could not be written`, {
      code: 'OUTPUT_FAILED',
      kind: 'unexpected',
      reason: messageOf(error),
      hint: `May this user read and write in ${directory}?`,
      cause: error,
    });
  }
}

async function readIfPresent(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** `wx`: a file that somebody else has made meanwhile is not overwritten; a link that leads nowhere is not followed. */
async function create(file: string, text: string): Promise<void> {
  await mkdir(path.dirname(file), {recursive: true});
  await writeFile(file, text, {flag: 'wx'});
}

/** The old text or the new one is there at any moment, never a part. */
async function replace(file: string, text: string): Promise<void> {
  const beside = `${file}.${randomUUID()}`;
  try {
    await writeFile(beside, text, {flag: 'wx'});
    await rename(beside, file);
  } catch (error) {
    await rm(beside, {force: true});
    throw error;
  }
}
