/** A directory as an object store: for an offline copy, for a first try, and for CI without an account. */
import {randomBytes} from 'node:crypto';
import {createReadStream, createWriteStream} from 'node:fs';
import {link, mkdir, open, readdir, rename, rmdir, stat, unlink} from 'node:fs/promises';
import path from 'node:path';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {BackupError, codeOf, interruption, messageOf} from '../errors.ts';
import type {GetOptions, ObjectInfo, ObjectStore, PutOptions, UnfinishedUpload} from './store.ts';

/** Carries the error of a body through, so that it is not taken for a failure of the disk. */
class BodyFailed extends Error {
  readonly bodyError: Error;

  constructor(bodyError: Error) {
    super(bodyError.message);
    this.bodyError = bodyError;
  }
}

/** What a file is called while it is being written: `.<name>.<random>.partial`. */
const partialName = /^\.(.+)\.[0-9a-f]{16}\.partial$/;

export class DirectoryStore implements ObjectStore {
  readonly description: string;
  readonly #root: string;

  /** @param root the directory of one bucket; made when the first object is written */
  constructor(root: string) {
    this.#root = root;
    this.description = `directory ${root}`;
  }

  async put(key: string, body: Readable, options: PutOptions): Promise<void> {
    let total = 0;
    let bodyError: Error | undefined;
    await this.#write(key, 'exclusive', options.signal, async (file) => {
      // The caller's own error, when the body fails: `#write` takes everything else for a failure of the disk.
      body.once('error', (error) => {
        bodyError = error;
      });
      const sink = createWriteStream(file, {flags: 'wx', mode: 0o600, highWaterMark: 4 << 20, flush: true});
      body.on('data', (chunk: Buffer) => {
        total += chunk.length;
        options.onBytes?.(total);
      });
      await pipeline(body, sink, options.signal ? {signal: options.signal} : {}).catch((error) => {
        throw bodyError ? new BodyFailed(bodyError) : error;
      });
      const {size} = await stat(file);
      if (size !== total) throw new Error(`${size} bytes are on the disk of ${total} that were written`);
    });
  }

  async create(key: string, body: Buffer): Promise<void> {
    await this.#write(key, 'exclusive', undefined, (file) => writeWhole(file, body));
  }

  async replace(key: string, body: Buffer): Promise<void> {
    await this.#write(key, 'replacing', undefined, (file) => writeWhole(file, body));
  }

  /** Writes beside the final name, and gives it the name when it is whole and on the disk. */
  async #write(
    key: string,
    mode: 'exclusive' | 'replacing',
    signal: AbortSignal | undefined,
    fill: (file: string) => Promise<void>,
  ): Promise<void> {
    const target = this.#pathOf(key);
    const folder = path.dirname(target);
    const partial = path.join(folder, `.${path.basename(target)}.${randomBytes(8).toString('hex')}.partial`);
    try {
      await mkdir(folder, {recursive: true, mode: 0o700});
      if (mode === 'exclusive' && (await this.head(key))) throw this.#existsError(key);
      await fill(partial);
      if (mode === 'replacing') {
        await rename(partial, target);
      } else {
        // A link fails where a rename would overwrite.
        await link(partial, target);
        await unlink(partial);
      }
      await syncFolder(folder);
    } catch (error) {
      await unlink(partial).catch(() => undefined);
      await this.#removeEmptyFolders(folder);
      if (codeOf(error) === 'EEXIST') throw this.#existsError(key);
      // An interruption destroys the body, too.
      const interrupted = interruption(signal);
      if (interrupted) throw interrupted;
      if (error instanceof BodyFailed) throw error.bodyError;
      throw this.#error(`writing ${key} to ${this.description}`, error);
    }
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    try {
      const facts = await stat(this.#pathOf(key));
      return facts.isFile() ? {key, sizeBytes: facts.size, modifiedAt: facts.mtime} : undefined;
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw this.#error(`looking at ${key}`, error);
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
      if (codeOf(error) !== 'ENOENT') throw this.#error(`reading ${key} from ${this.description}`, error);
      throw new BackupError(`There is no object ${key}`, {
        code: 'OBJECT_NOT_FOUND',
        kind: 'storage',
        reason: `${this.description} holds no file of that name`,
      });
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    for (const key of (await this.#files(prefix)).filter((name) => !partialName.test(path.posix.basename(name)))) {
      const info = await this.head(key);
      if (info) yield info;
    }
  }

  async delete(key: string): Promise<void> {
    await this.#remove(this.#pathOf(key), `deleting ${key}`);
  }

  async *unfinishedUploads(prefix: string): AsyncGenerator<UnfinishedUpload> {
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for (const name of await this.#files(folder)) {
      const match = partialName.exec(path.posix.basename(name));
      if (!match) continue;
      const key = path.posix.join(path.posix.dirname(name), match[1] ?? '');
      const facts = await stat(path.join(this.#root, name)).catch(() => undefined);
      if (facts && key.startsWith(prefix)) yield {key, id: name, startedAt: facts.mtime};
    }
  }

  async abortUpload({key, id}: UnfinishedUpload): Promise<void> {
    await this.#remove(this.#pathOf(id), `removing the unfinished ${key}`);
  }

  async #remove(file: string, doing: string): Promise<void> {
    try {
      await unlink(file);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.#error(doing, error);
    }
    await this.#removeEmptyFolders(path.dirname(file));
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

  /** Keys of all files whose key begins with the prefix, sorted as a bucket sorts them: by bytes. */
  async #files(prefix: string): Promise<string[]> {
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    try {
      const entries = await readdir(path.join(this.#root, folder), {recursive: true, withFileTypes: true});
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => path.relative(this.#root, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'))
        .filter((key) => key.startsWith(prefix))
        .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw this.#error(`listing ${this.description}`, error);
    }
  }

  /** @throws BackupError STORAGE_FAILED for a key that leads out of the directory */
  #pathOf(key: string): string {
    const file = path.resolve(this.#root, key);
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

  #error(doing: string, error: unknown): BackupError {
    if (error instanceof BackupError) return error;
    const hints: Record<string, string> = {
      ENOSPC: 'The disk is full: make room, or choose another directory.',
      EACCES: 'May this user write there?',
      EROFS: 'The disk is mounted read-only.',
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
