/** A local file that is read while others may change it: it is what it was at the start, or it is not used. */
import {createHmac, type KeyObject} from 'node:crypto';
import {type BigIntStats, closeSync, constants, fstatSync, openSync, read as readAsync, readSync} from 'node:fs';
import {lstat, unlink} from 'node:fs/promises';
import {promisify} from 'node:util';
import {BackupError, codeOf, messageOf} from '../errors.ts';

/** A smaller file is read in one go. */
const smallBytes = 1 << 20;
/** A larger one comes in chunks: of several files at once, several chunks each are under way. */
const chunkBytes = 1 << 18;

const readInBackground = promisify(readAsync);

/**
 * A file that was opened, and what it was then. What takes microseconds (to open it, to look at it, to read a chunk that is
 * the whole file) is done at once: by way of Node's thread pool, a file of 50 KB cost 1.1 ms of processor time, and 0.1 ms so.
 */
export class LocalFile {
  readonly path: string;
  readonly #descriptor: number;
  readonly #facts: BigIntStats;
  /** For bytes that are looked at and not kept. */
  #scratch = Buffer.alloc(0);

  private constructor(file: string, descriptor: number, facts: BigIntStats) {
    this.path = file;
    this.#descriptor = descriptor;
    this.#facts = facts;
  }

  /**
   * Neither follows a symbolic link nor waits for the other end of a pipe that took a file's place.
   * @throws BackupError FILE_UNREADABLE
   */
  static open(file: string): LocalFile {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const facts = fstatSync(descriptor, {bigint: true});
      if (!facts.isFile()) throw new Error('it is no regular file any more');
      return new LocalFile(file, descriptor, facts);
    } catch (error) {
      if (descriptor !== undefined) closeSync(descriptor);
      throw unreadable(error);
    }
  }

  get sizeBytes(): number {
    return Number(this.#facts.size);
  }

  get #isSmall(): boolean {
    return this.sizeBytes < smallBytes;
  }

  get #chunkBytes(): number {
    return this.#isSmall ? smallBytes : chunkBytes;
  }

  /** Seconds since 1970 with nine decimals. */
  get mtime(): string {
    const ns = this.#facts.mtimeNs;
    const sign = ns < 0n ? '-' : '';
    const digits = String(ns < 0n ? -ns : ns).padStart(10, '0');
    return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
  }

  /**
   * Reads it to its end. The last bytes are given only when the file is still what it was at the start.
   * @throws BackupError FILE_CHANGED or FILE_UNREADABLE
   */
  async *read(): AsyncGenerator<Buffer> {
    let held: Buffer | undefined;
    for await (const chunk of this.#chunks((bytes) => Buffer.allocUnsafe(bytes))) {
      if (held) yield held;
      held = chunk;
    }
    if (held) yield held;
  }

  /** Every chunk, the last one too before it is known whether the file changed: then it throws. */
  async *#chunks(bufferOf: (bytes: number) => Buffer): AsyncGenerator<Buffer> {
    let position = 0;
    for (;;) {
      // One byte more than is expected, so that growth is seen.
      const wanted = Math.min(this.#chunkBytes, this.sizeBytes - position + 1);
      const bytes = await this.#fill(bufferOf(wanted), position);
      position += bytes.length;
      if (position > this.sizeBytes) throw changed('it grew while it was read');
      if (bytes.length > 0) yield bytes;
      if (bytes.length < wanted) break;
    }
    if (position < this.sizeBytes) throw changed('it was cut short while it was read');
    this.requireUnchanged();
  }

  /** @returns as much of the buffer as there were bytes: fewer than all at the end of the file */
  async #fill(buffer: Buffer, position: number): Promise<Buffer> {
    let filled = 0;
    try {
      while (filled < buffer.length) {
        const place = [buffer, filled, buffer.length - filled, position + filled] as const;
        const bytesRead = this.#isSmall
          ? readSync(this.#descriptor, ...place)
          : (await readInBackground(this.#descriptor, ...place)).bytesRead;
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
    } catch (error) {
      throw unreadable(error);
    }
    return buffer.subarray(0, filled);
  }

  /** A buffer that the next call takes again. */
  #scratchOf(bytes: number): Buffer {
    if (this.#scratch.length < bytes)
      this.#scratch = Buffer.allocUnsafe(Math.max(bytes, Math.min(this.#chunkBytes, this.sizeBytes)));
    return this.#scratch.subarray(0, bytes);
  }

  /**
   * Whether these bytes stand at that place.
   * @throws BackupError FILE_UNREADABLE
   */
  async holds(expected: Buffer, position: number): Promise<boolean> {
    return expected.equals(await this.#fill(this.#scratchOf(expected.length), position));
  }

  /** @throws BackupError FILE_UNREADABLE */
  async requireReadable(): Promise<void> {
    await this.#fill(this.#scratchOf(1), 0);
  }

  /** HMAC-SHA-256 of its content, hex. */
  async digest(key: KeyObject): Promise<string> {
    const hash = createHmac('sha256', key);
    for await (const chunk of this.#chunks((bytes) => this.#scratchOf(bytes))) hash.update(chunk);
    return hash.digest('hex');
  }

  /** The same content as `read`, held to a digest that was made before: a change that left no other trace. */
  async *readAgain(key: KeyObject, digest: string): AsyncGenerator<Buffer> {
    const hash = createHmac('sha256', key);
    let held: Buffer | undefined;
    for await (const chunk of this.read()) {
      if (held) yield held;
      hash.update(chunk);
      held = chunk;
    }
    if (hash.digest('hex') !== digest) throw changed('its content changed while it was read');
    if (held) yield held;
  }

  /** @throws BackupError FILE_CHANGED */
  requireUnchanged(): void {
    let now: BigIntStats;
    try {
      now = fstatSync(this.#descriptor, {bigint: true});
    } catch (error) {
      throw unreadable(error);
    }
    if (!isSame(this.#facts, now)) throw changed('its size or time changed while it was read');
  }

  /**
   * Removes it, if it is still under its name and nothing was changed since it was opened.
   * @throws BackupError FILE_CHANGED, or FILE_UNREADABLE when it cannot be removed
   */
  async remove(): Promise<void> {
    let now: BigIntStats;
    try {
      now = await lstat(this.path, {bigint: true});
    } catch (error) {
      throw changed(messageOf(error));
    }
    if (!isSame(this.#facts, now)) throw changed('it is another file, or was changed, since it was read: it was kept');
    try {
      await unlink(this.path);
    } catch (error) {
      throw new BackupError('The local file could not be removed', {
        code: 'FILE_UNREADABLE',
        kind: 'unexpected',
        reason: messageOf(error),
        hint: 'May this user delete in its directory?',
      });
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** The change time (ctime) is the kernel's: no program sets it back. */
function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function changed(reason: string): BackupError {
  return new BackupError('The file changed', {
    code: 'FILE_CHANGED',
    kind: 'unexpected',
    reason,
    hint: 'It is neither published nor deleted. Run it again when nobody writes to it.',
  });
}

function unreadable(error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const reason = codeOf(error) === 'ELOOP' ? 'a symbolic link took its place' : messageOf(error);
  return new BackupError('The file cannot be read', {
    code: 'FILE_UNREADABLE',
    kind: 'unexpected',
    reason,
    hint: 'Is it there, and may this user read it?',
    cause: error,
  });
}
