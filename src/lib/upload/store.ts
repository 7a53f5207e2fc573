/** What the program needs of a place that keeps objects. One contract, with one set of tests, for every kind of store. */
import type {Readable} from 'node:stream';

export interface ObjectInfo {
  key: string;
  sizeBytes: number;
  modifiedAt: Date;
  /** Another one for every content, where the store makes one; `head` tells, a listing does not. */
  etag?: string | undefined;
  /** What was stored with it; `head` tells, a listing does not. */
  metadata?: ObjectMetadata;
}

/**
 * Kept with an object and replaced with it: names in lower case, letters, digits and hyphens; values ASCII, at most 256
 * bytes each (Swift's limit), all together 8,192 (S3's and R2's) or less. Whoever may write to the bucket may change them.
 */
export type ObjectMetadata = Readonly<Record<string, string>>;

export interface UnfinishedUpload {
  key: string;
  /** The store's own name for this upload. */
  id: string;
  startedAt: Date;
}

export interface PutOptions {
  /** Size of every part but the last, in bytes. */
  partSizeBytes: number;
  contentType?: string;
  metadata?: ObjectMetadata;
  /**
   * Whose the key is. `own`, by default: this upload's alone, and whatever is under it after a failure is removed.
   * `shared`: another run may store the same object: after a failure only this upload's own parts are removed.
   * `replacing`: as `shared`, and the object that may be there is replaced when the new one is whole.
   */
  key?: 'own' | 'shared' | 'replacing';
  /** Parts under way at once; by default what the store thinks right for one upload. */
  concurrency?: number;
  signal?: AbortSignal | undefined;
  /** Is told the running total of bytes that are stored. */
  onBytes?: (total: number) => void;
}

export interface SmallPutOptions {
  /** `application/json` by default. */
  contentType?: string;
  metadata?: ObjectMetadata;
}

export interface GetOptions {
  /** The first byte wanted; 0 by default. */
  offset?: number;
  /** At most so many bytes; all by default. */
  length?: number;
  signal?: AbortSignal | undefined;
}

/**
 * A bucket, or a directory that stands for one. Every method throws a BackupError of kind `storage`, or the interruption.
 * Listings are strongly consistent: what was stored is listed, what was deleted is not.
 */
export interface ObjectStore {
  /** For people: `R2 bucket loma-db-backups`. */
  readonly description: string;

  /** Whether there is such a bucket or directory. (A directory is made with its first object.) */
  isThere(): Promise<boolean>;

  /**
   * Stores a stream of unknown length. The object is visible as a whole or not at all: when the body or the upload
   * fails, nothing of it stays behind. The size is checked after completing.
   * @returns what a later `head` must find unchanged
   * @throws OBJECT_EXISTS when there is an object of that key, at the start or at the end, unless it is to be replaced. (Where
   *   the store knows no conditional writes, one that comes in the very moment of completing is not seen.)
   */
  put(key: string, body: Readable, options: PutOptions): Promise<Pick<ObjectInfo, 'etag'>>;

  /**
   * Stores a small object if there is none of that key, atomically where the store can. A string as options is the
   * content type.
   * @throws OBJECT_EXISTS
   */
  create(key: string, body: Buffer, options?: string | SmallPutOptions): Promise<void>;

  /** Stores a small object, in place of the one that may be there. */
  replace(key: string, body: Buffer, options?: string | SmallPutOptions): Promise<void>;

  /** Undefined when there is no such object. */
  head(key: string): Promise<ObjectInfo | undefined>;

  /**
   * Reads an object, and goes on from where it stopped when the connection breaks.
   * @throws (the stream) OBJECT_NOT_FOUND; OBJECT_CHANGED when it was replaced while it was read
   */
  get(key: string, options?: GetOptions): Readable;

  /** Every object whose key begins with `prefix`, in the order of their keys. */
  list(prefix: string): AsyncIterable<ObjectInfo>;

  /**
   * Deletes an object; one that does not exist is no error.
   * @throws OBJECT_LOCKED when a bucket lock forbids it
   */
  delete(key: string): Promise<void>;

  /** Uploads that were begun and neither completed nor aborted. */
  unfinishedUploads(prefix: string): AsyncIterable<UnfinishedUpload>;

  /** When the newest part of an unfinished upload came; undefined when there is none, or the store does not tell. */
  newestPartAt(upload: UnfinishedUpload): Promise<Date | undefined>;

  abortUpload(upload: UnfinishedUpload): Promise<void>;
}

/**
 * Reads a whole small object.
 * @param mostBytes a larger one is refused: memory must not depend on what a bucket holds
 * @throws RangeError when it is larger
 */
export async function readSmall(store: ObjectStore, key: string, mostBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of store.get(key, {length: mostBytes + 1})) {
    chunks.push(chunk as Buffer);
    size += (chunk as Buffer).length;
  }
  if (size > mostBytes) throw new RangeError(`it is larger than ${mostBytes} bytes`);
  return Buffer.concat(chunks);
}
