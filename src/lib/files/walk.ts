/** Every file below a directory, and what is there beside files. */
import type {Dirent} from 'node:fs';
import {lstat, readdir} from 'node:fs/promises';
import path from 'node:path';
import {messageOf} from '../errors.ts';

export interface FoundFile {
  is: 'file';
  /** From the directory, with `/`. */
  path: string;
  sizeBytes: number;
}

/** Something that is left where it is, and why. */
export interface FoundOther {
  is: 'skipped' | 'failed';
  path: string;
  reason: string;
}

export type Found = FoundFile | FoundOther;

export interface WalkFilter {
  /** Globs; without any, everything is wanted. One without `/` is about the last part of the path. */
  include: readonly string[];
  exclude: readonly string[];
}

/** Keeps an empty directory in git; nobody's upload. */
const placeholder = '.gitkeep';

/**
 * Walks depth first, in the order of the names' bytes. Names are read as bytes: one that is not UTF-8 is named, and not
 * taken for another. A directory that cannot be read is a failure of its own, and the walk goes on.
 */
export async function* walk(root: string, filter: WalkFilter, within = ''): AsyncGenerator<Found> {
  let entries: Dirent<Buffer>[];
  try {
    entries = await readdir(path.join(root, within), {withFileTypes: true, encoding: 'buffer'});
  } catch (error) {
    yield {is: 'failed', path: within || '.', reason: `the directory cannot be read: ${messageOf(error)}`};
    return;
  }
  for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
    const name = entry.name.toString();
    const found = within ? `${within}/${name}` : name;
    if (!Buffer.from(name).equals(entry.name)) {
      yield {is: 'failed', path: found, reason: 'its name is not UTF-8: rename it'};
    } else if (entry.isDirectory()) {
      yield* walk(root, filter, found);
    } else {
      yield* leaf(root, found, entry, filter);
    }
  }
}

async function* leaf(root: string, found: string, entry: Dirent<Buffer>, filter: WalkFilter): AsyncGenerator<Found> {
  if (!isWanted(found, filter)) return;
  const kind = kindOf(entry);
  if (kind !== undefined) {
    yield {is: 'skipped', path: found, reason: kind};
  } else if (path.posix.basename(found) === placeholder) {
    yield {is: 'skipped', path: found, reason: `${placeholder} is no upload`};
  } else {
    try {
      yield {is: 'file', path: found, sizeBytes: (await lstat(path.join(root, found))).size};
    } catch (error) {
      yield {is: 'failed', path: found, reason: messageOf(error)};
    }
  }
}

/** Undefined for a file. */
function kindOf(entry: Dirent<Buffer>): string | undefined {
  if (entry.isFile()) return undefined;
  if (entry.isSymbolicLink()) return 'a symbolic link is not followed';
  if (entry.isSocket()) return 'a socket is no file';
  if (entry.isFIFO()) return 'a named pipe is no file';
  return 'a device is no file';
}

function isWanted(found: string, {include, exclude}: WalkFilter): boolean {
  const matches = (glob: string) => path.matchesGlob(glob.includes('/') ? found : path.posix.basename(found), glob);
  return (include.length === 0 || include.some(matches)) && !exclude.some(matches);
}
