/** Every file below a directory, and what is there beside files. */
import {isUtf8} from 'node:buffer';
import type {Dirent} from 'node:fs';
import {lstat, readdir} from 'node:fs/promises';
import path from 'node:path';
import {messageOf} from '../errors.ts';

export interface FoundFile {
  is: 'file';
  /** From the directory, with `/`; bytes that are not UTF-8 as `textOf` shows them. */
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
  /**
   * Globs; without any, everything is wanted. One without `/` is about the last part of the path. To a glob, a byte that is
   * not UTF-8 is one character, U+FFFD.
   */
  include: readonly string[];
  exclude: readonly string[];
}

/** Keeps an empty directory in git; nobody's upload. */
const placeholder = '.gitkeep';
const slash = Buffer.from('/');
const backslash = 0x5c;

/**
 * Walks depth first, in the order of the names' bytes. Paths are bytes: one that is not UTF-8 is named, and not taken for
 * another. A directory that cannot be read is a failure of its own, and the walk goes on.
 */
export async function* walk(root: string, filter: WalkFilter, within: Buffer = Buffer.alloc(0)): AsyncGenerator<Found> {
  let entries: Dirent<Buffer>[];
  try {
    entries = await readdir(below(Buffer.from(root), within), {withFileTypes: true, encoding: 'buffer'});
  } catch (error) {
    yield {is: 'failed', path: textOf(within) || '.', reason: `the directory cannot be read: ${messageOf(error)}`};
    return;
  }
  for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
    const found = below(within, entry.name);
    if (entry.isDirectory()) yield* walk(root, filter, found);
    else yield* leaf(root, found, entry, filter);
  }
}

function below(folder: Buffer, name: Buffer): Buffer {
  return folder.length === 0 || name.length === 0
    ? Buffer.concat([folder, name])
    : Buffer.concat([folder, slash, name]);
}

async function* leaf(root: string, found: Buffer, entry: Dirent<Buffer>, filter: WalkFilter): AsyncGenerator<Found> {
  if (!isWanted(globTextOf(found), filter)) return;
  const shown = textOf(found);
  const kind = kindOf(entry);
  if (kind !== undefined) {
    yield {is: 'skipped', path: shown, reason: kind};
  } else if (entry.name.toString() === placeholder) {
    yield {is: 'skipped', path: shown, reason: `${placeholder} is no upload`};
  } else if (!isUtf8(found)) {
    yield {is: 'failed', path: shown, reason: 'its name is not UTF-8: rename it'};
  } else {
    try {
      yield {is: 'file', path: shown, sizeBytes: (await lstat(path.join(root, shown))).size};
    } catch (error) {
      yield {is: 'failed', path: shown, reason: messageOf(error)};
    }
  }
}

/**
 * A path as text. In one that is not UTF-8, bytes that are none are written as `\xff`, and a backslash as `\x5c`: no two of
 * them look alike.
 */
function textOf(found: Buffer): string {
  if (isUtf8(found)) return found.toString();
  const escaped = (byte: number) => `\\x${byte.toString(16).padStart(2, '0')}`;
  return charactersOf(found)
    .map((one) => (typeof one === 'number' ? escaped(one) : one.replace('\\', escaped(backslash))))
    .join('');
}

/** A path as globs are compared with it. */
function globTextOf(found: Buffer): string {
  if (isUtf8(found)) return found.toString();
  return charactersOf(found)
    .map((one) => (typeof one === 'number' ? '\ufffd' : one))
    .join('');
}

/** Characters, and bytes that belong to none. */
function charactersOf(bytes: Buffer): (string | number)[] {
  const all: (string | number)[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = [1, 2, 3, 4].find((count) => isUtf8(bytes.subarray(at, at + count)));
    all.push(length === undefined ? bytes.readUInt8(at) : bytes.toString('utf8', at, at + length));
    at += length ?? 1;
  }
  return all;
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
