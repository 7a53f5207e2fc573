/** A directory as an object store: for an offline copy, for a first try, and for CI without an account. */
import {randomBytes} from 'node:crypto';
import {createReadStream} from 'node:fs';
import {
  access,
  constants,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  unlink,
} from 'node:fs/promises';
import path from 'node:path';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {BackupError, codeOf, interruption, messageOf} from '../errors.ts';
import {shellWord} from '../shell-word.ts';
import type {
  GetOptions,
  ObjectInfo,
  ObjectMetadata,
  ObjectStore,
  PutOptions,
  SmallPutOptions,
  UnfinishedUpload,
} from './store.ts';

/** Carries the error of a body through, so that it is not taken for a failure of the disk. */
class BodyFailed extends Error {
  readonly bodyError: Error;

  constructor(bodyError: Error) {
    super(bodyError.message);
    this.bodyError = bodyError;
  }
}

/** What a file is called while it is being written: `.<name>.<random>.partial`. */
const partialName = /^\.(.+)\.[0-9a-f]{16}\.partial$/s;

/** A character that no text uses marks what is a file system's business; a key that holds it is refused. */
const mark = '\ufffe';

/** Beside an object, its metadata: `.<name>` and the mark. */
const metadataName = new RegExp(`^\\..+${mark}$`, 's');

/** A longer part of a key is cut and its pieces nested: file systems take 255 bytes, of which `partialName` needs some. */
const mostNameBytes = 200;

export class DirectoryStore implements ObjectStore {
  readonly description: string;
  readonly #root: string;

  /** @param root the directory of one bucket; made when the first object is written */
  constructor(root: string) {
    this.#root = root;
    this.description = `directory ${root}`;
  }

  async isThere(): Promise<boolean> {
    try {
      return (await stat(this.#root)).isDirectory();
    } catch (error) {
      if (isGone(error)) return false;
      throw this.#error(`looking for ${this.description}`, error);
    }
  }

  async put(key: string, body: Readable, options: PutOptions): Promise<Pick<ObjectInfo, 'etag'>> {
    let total = 0;
    let bodyError: Error | undefined;
    const mode = options.key === 'replacing' ? 'replacing' : 'exclusive';
    await this.#write(key, mode, options, async (file) => {
      const handle = await open(file, 'wx', 0o600);
      const sink = handle.createWriteStream({highWaterMark: 4 << 20, flush: true});
      const flushed = flushEarly(handle, body, (error) => sink.destroy(error));
      // The caller's own error, when the body fails: `#write` takes everything else for a failure of the disk, with which
      // the pipeline destroys the body, too.
      body.once('error', (error) => {
        if (!sink.errored) bodyError = error;
      });
      body.on('data', (chunk: Buffer) => {
        total += chunk.length;
        options.onBytes?.(total);
      });
      await pipeline(body, sink, options.signal ? {signal: options.signal} : {}).catch((error) => {
        throw bodyError ? new BodyFailed(bodyError) : error;
      });
      await flushed();
      const {size} = await stat(file);
      if (size !== total) throw new Error(`${size} bytes are on the disk of ${total} that were written`);
    });
    return {};
  }

  async create(key: string, body: Buffer, options?: string | SmallPutOptions): Promise<void> {
    await this.#write(key, 'exclusive', metadataOf(options), (file) => writeWhole(file, body));
  }

  async replace(key: string, body: Buffer, options?: string | SmallPutOptions): Promise<void> {
    await this.#write(key, 'replacing', metadataOf(options), (file) => writeWhole(file, body));
  }

  /** Writes beside the final name, and gives it the name when it is whole and on the disk. */
  async #write(
    key: string,
    mode: 'exclusive' | 'replacing',
    {signal, metadata}: {signal?: AbortSignal | undefined; metadata?: ObjectMetadata | undefined},
    fill: (file: string) => Promise<void>,
  ): Promise<void> {
    const target = this.#pathOf(key);
    const folder = path.dirname(target);
    const partial = partialOf(target);
    let isNamed = false;
    try {
      await this.#requireBase();
      await makeFolder(folder);
      if (mode === 'exclusive' && (await this.head(key))) throw this.#existsError(key);
      await fill(partial);
      if (mode === 'replacing') {
        // Without metadata for a moment, never with those of another object.
        await this.#unlinkIfThere(metadataFile(target));
        await rename(partial, target);
      } else {
        // A link fails where a rename would overwrite.
        const isLinked = await linkIfPossible(partial, target);
        if (!isLinked) await (await open(target, 'wx', 0o600)).close();
        isNamed = true;
        // What is overwritten is the empty file that claimed the name. A crash between the two leaves it: no manifest fits it.
        if (!isLinked) await rename(partial, target);
        // One that stays is a second name of the same file, and `prune` removes it as an unfinished upload.
        await unlink(partial).catch(() => undefined);
      }
      if (metadata) await writeMetadata(target, metadata);
      await this.#syncFolders(folder);
    } catch (error) {
      await unlink(partial).catch(() => undefined);
      // What failed is not there, either: nobody else would remove it.
      for (const file of isNamed ? [metadataFile(target), target] : []) await unlink(file).catch(() => undefined);
      await this.#removeEmptyFolders(folder);
      if (codeOf(error) === 'EEXIST') throw this.#existsError(key);
      // An interruption destroys the body, too.
      const interrupted = interruption(signal);
      if (interrupted) throw interrupted;
      if (error instanceof BodyFailed) throw error.bodyError;
      throw this.#error(`writing ${key} to ${this.description}`, error);
    }
  }

  /**
   * The store's own directory is not made: a disk that is not mounted must not be taken for an empty store.
   * @throws BackupError STORAGE_FAILED
   */
  async #requireBase(): Promise<void> {
    const base = path.dirname(this.#root);
    const facts = await stat(base).catch(undefinedIfGone);
    if (!facts?.isDirectory()) {
      throw new BackupError('The directory of the store is not there', {
        code: 'STORAGE_FAILED',
        kind: 'storage',
        reason: `there is no ${base}, which is not made by itself, because it may be a disk that is not mounted`,
        hint: `Mount the disk, or make the directory: mkdir -p ${shellWord(base)}`,
      });
    }
  }

  /** Also the folders above, which may be new. */
  async #syncFolders(folder: string): Promise<void> {
    const base = path.dirname(this.#root);
    for (let at = folder; at.startsWith(base); at = path.dirname(at)) await syncFolder(at);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    try {
      const file = this.#pathOf(key);
      const facts = await stat(file);
      if (!facts.isFile()) return undefined;
      return {key, sizeBytes: facts.size, modifiedAt: facts.mtime, metadata: await readMetadata(metadataFile(file))};
    } catch (error) {
      if (!isGone(error)) throw this.#error(`looking at ${key}`, error, 'read');
      await this.#requireBase();
      return undefined;
    }
  }

  get(key: string, options: GetOptions = {}): Readable {
    return Readable.from(this.#read(key, options), {objectMode: false, highWaterMark: 1 << 20});
  }

  async *#read(key: string, {offset = 0, length, signal}: GetOptions): AsyncGenerator<Buffer> {
    if (length === 0) return;
    const end = length === undefined ? {} : {end: offset + length - 1};
    try {
      yield* createReadStream(this.#pathOf(key), {
        start: offset,
        ...end,
        highWaterMark: 1 << 20,
        ...(signal ? {signal} : {}),
      });
    } catch (error) {
      const interrupted = interruption(signal);
      if (interrupted) throw interrupted;
      if (codeOf(error) !== 'ENOENT') throw this.#error(`reading ${key} from ${this.description}`, error, 'read');
      await this.#requireBase();
      throw new BackupError(`There is no object ${key}`, {
        code: 'OBJECT_NOT_FOUND',
        kind: 'storage',
        reason: `${this.description} holds no file of that name`,
      });
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    for (const {key, file} of await this.#files(prefix)) {
      const name = path.basename(file);
      if (partialName.test(name) || metadataName.test(name)) continue;
      const facts = await stat(path.join(this.#root, file)).catch(() => undefined);
      if (facts) yield {key, sizeBytes: facts.size, modifiedAt: facts.mtime};
    }
  }

  async delete(key: string): Promise<void> {
    await this.#unlinkIfThere(metadataFile(this.#pathOf(key)));
    await this.#remove(this.#pathOf(key), `deleting ${key}`);
  }

  async *unfinishedUploads(prefix: string): AsyncGenerator<UnfinishedUpload> {
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for (const {file} of await this.#files(folder)) {
      const match = partialName.exec(path.basename(file));
      if (!match) continue;
      const key = keyOf(path.join(path.dirname(file), match[1] ?? ''));
      const facts = await stat(path.join(this.#root, file)).catch(() => undefined);
      if (facts && key.startsWith(prefix)) yield {key, id: file, startedAt: facts.mtime};
    }
  }

  /** The file's time is that of its last write. */
  async newestPartAt({startedAt}: UnfinishedUpload): Promise<Date> {
    return startedAt;
  }

  async abortUpload({key, id}: UnfinishedUpload): Promise<void> {
    await this.#remove(this.#inside(id, id), `removing the unfinished ${key}`);
  }

  async #remove(file: string, doing: string): Promise<void> {
    try {
      await unlink(file);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.#error(doing, error);
      await this.#requireBase();
    }
    await this.#removeEmptyFolders(path.dirname(file));
  }

  async #unlinkIfThere(file: string): Promise<void> {
    try {
      await unlink(file);
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '')) throw this.#error(`removing ${file}`, error);
    }
  }

  /** Folders stand for nothing in an object store: one without files goes. */
  async #removeEmptyFolders(folder: string): Promise<void> {
    for (let at = folder; at.startsWith(this.#root + path.sep); at = path.dirname(at)) {
      try {
        await rmdir(at);
      } catch {
        return;
      }
    }
  }

  /** All files, of ours too, whose key begins with the prefix, sorted as a bucket sorts them: by the bytes of the key. */
  async #files(prefix: string): Promise<{key: string; file: string}[]> {
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    try {
      const files = await filesUnder(path.join(this.#root, nested(folder)));
      return files
        .map((file) => path.relative(this.#root, file))
        .map((file) => ({file, key: keyOf(file)}))
        .filter(({key}) => key.startsWith(prefix))
        .sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.#error(`listing ${this.description}`, error, 'read');
      await this.#requireBase();
      return [];
    }
  }

  /** @throws BackupError STORAGE_FAILED for a key that leads out of the directory */
  #pathOf(key: string): string {
    if (!key.includes(mark)) return this.#inside(nested(key), key);
    throw this.#error(`using the key ${JSON.stringify(key)}`, new Error('it holds the character U+FFFE'));
  }

  #inside(relative: string, key: string): string {
    const file = path.resolve(this.#root, relative);
    if (file.startsWith(this.#root + path.sep) && !key.includes('\0')) return file;
    throw this.#error(`using the key ${JSON.stringify(key)}`, new Error('it leads out of the directory'));
  }

  #existsError(key: string): BackupError {
    return new BackupError(`There is an object ${key} already`, {
      code: 'OBJECT_EXISTS',
      kind: 'storage',
      reason: `${this.description} holds a file of that name, which is not overwritten`,
      hint: 'Is another backup running? Run the command again: the next one has another name.',
    });
  }

  #error(doing: string, error: unknown, right: 'read' | 'write' = 'write'): BackupError {
    if (error instanceof BackupError) return error;
    const mayNot = `May this user ${right} there?`;
    const hints: Record<string, string> = {
      ENOSPC: 'The disk is full: make room, or choose another directory.',
      EACCES: mayNot,
      EPERM: mayNot,
      EROFS: 'The disk is mounted read-only: mount it for writing, or choose another directory.',
      EFBIG: 'The file system takes no file of that size (FAT32: 4 GiB): use another one, exFAT for example.',
    };
    return new BackupError(`Storage failed: ${doing}`, {
      code: 'STORAGE_FAILED',
      kind: 'storage',
      reason: messageOf(error),
      hint: hints[codeOf(error) ?? ''] ?? 'Is the directory of LOMA_BACKUP_STORE there, and is the disk all right?',
      cause: error,
    });
  }
}

/** Symbolic links are not followed (Node's own recursive reading does): one may lead out of the store, or round in it. */
async function filesUnder(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, {withFileTypes: true})) {
    const file = path.join(folder, entry.name);
    if (entry.isFile()) found.push(file);
    // A folder may go while the store is being listed.
    else if (entry.isDirectory()) found.push(...(await filesUnder(file).catch(nothingIfGone)));
  }
  return found;
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '');
}

function undefinedIfGone(error: unknown): undefined {
  if (!isGone(error)) throw error;
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, {recursive: true, mode: 0o700});
  } catch (error) {
    // On a disk that is mounted read-only, Node.js says ENOENT.
    if (codeOf(error) === 'ENOENT') await access(await nearestFolder(folder), constants.W_OK);
    throw error;
  }
}

/** The folder itself, or the nearest above it that is there. */
async function nearestFolder(folder: string): Promise<string> {
  const isThere = await stat(folder).catch(() => undefined);
  return isThere ? folder : nearestFolder(path.dirname(folder));
}

function nothingIfGone(error: unknown): string[] {
  if (codeOf(error) === 'ENOENT') return [];
  throw error;
}

/** Errors of a file system without hard links (FAT, exFAT, some network shares). */
const withoutLinks = ['EPERM', 'ENOTSUP', 'ENOSYS'];

/** @returns false where there are no hard links */
async function linkIfPossible(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch (error) {
    if (withoutLinks.includes(codeOf(error) ?? '')) return false;
    throw error;
  }
}

/** A name for a file while it is being written: see `partialName`. */
function partialOf(file: string): string {
  return path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(8).toString('hex')}.partial`);
}

async function writeMetadata(file: string, metadata: ObjectMetadata): Promise<void> {
  // Not the name under which the object was written: it may still be a name of the object.
  const partial = partialOf(file);
  try {
    await writeWhole(partial, Buffer.from(JSON.stringify(metadata)));
    await rename(partial, metadataFile(file));
  } catch (error) {
    await unlink(partial).catch(() => undefined);
    throw error;
  }
}

function metadataFile(file: string): string {
  return path.join(path.dirname(file), `.${path.basename(file)}${mark}`);
}

function metadataOf(options: string | SmallPutOptions = {}): {metadata?: ObjectMetadata | undefined} {
  return typeof options === 'string' ? {} : {metadata: options.metadata};
}

/** What is no metadata of ours counts as none: nobody believes them unchecked. */
async function readMetadata(file: string): Promise<ObjectMetadata> {
  try {
    const json: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof json !== 'object' || json === null) return {};
    return Object.fromEntries(Object.entries(json).filter((entry) => typeof entry[1] === 'string'));
  } catch {
    return {};
  }
}

/** What `nested` made of a key, back again. */
function keyOf(file: string): string {
  return file.split(path.sep).join('/').replaceAll(`${mark}/${mark}`, '');
}

/** The key with its long parts cut into nested pieces, with the mark where they were cut: no piece is `..`. */
function nested(key: string): string {
  if (Buffer.byteLength(key) <= mostNameBytes) return key;
  return key.split('/').map(nestedPart).join('/');
}

function nestedPart(part: string): string {
  const pieces = [''];
  let bytes = 0;
  for (const character of part) {
    bytes += Buffer.byteLength(character);
    if (bytes > mostNameBytes) {
      pieces.push('');
      bytes = Buffer.byteLength(character);
    }
    pieces[pieces.length - 1] += character;
  }
  return pieces.join(`${mark}/${mark}`);
}

/** How much may wait to be written to the disk, in bytes. */
const flushBytes = 32 << 20;

/**
 * Has the system write to the disk what a file holds so far, again and again while it grows: at its end there is little to wait for.
 * @returns a function to call at its end: the system tells of a write that failed only once
 */
function flushEarly(handle: FileHandle, body: Readable, onFailure: (error: Error) => void): () => Promise<void> {
  let bytes = 0;
  let flushing: Promise<void> | undefined;
  let failure: unknown;
  body.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes < flushBytes || flushing) return;
    bytes = 0;
    flushing = handle
      .datasync()
      .catch((error) => {
        failure ??= error;
        onFailure(error);
      })
      .finally(() => {
        flushing = undefined;
      });
  });
  return async () => {
    await flushing;
    if (failure !== undefined) throw failure;
  };
}

async function writeWhole(file: string, body: Buffer): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.writeFile(body);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
