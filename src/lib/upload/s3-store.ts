/** Cloudflare R2, and any store that speaks S3: the one home of the AWS SDK. */

import {Readable} from 'node:stream';
import {setTimeout as delay} from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import {BackupError, interruption} from '../errors.ts';
import type {Secret} from '../secret.ts';
import {uploadConcurrency} from './part-size.ts';
import {plainRequests} from './plain-request.ts';
import {
  isNoBucket,
  isNotFound,
  isNotImplemented,
  isNoUpload,
  isPreconditionFailed,
  isTransient,
  storageError,
} from './s3-errors.ts';
import {
  type GetOptions,
  type ObjectInfo,
  type ObjectStore,
  type PutOptions,
  readSmall,
  type SmallPutOptions,
  type UnfinishedUpload,
} from './store.ts';
import {StreamUpload, unquoted} from './stream-upload.ts';

export interface S3Settings {
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: Secret;
}

const connectionTimeoutMs = 10_000;
/** No byte either way for so long: the connection is dead. */
const socketTimeoutMs = 60_000;
const mostAttempts = 5;
/** A download that breaks off is continued so often without progress. */
const mostResumptions = 5;
/** Less is no progress: with some bytes for each request a download would take days, and a restore hold its locks so long. */
const leastProgressBytes = 64 << 10;

/** One client for all buckets of an account; `destroy()` closes its connections. */
export function s3Client(settings: S3Settings): S3Client {
  return new S3Client({
    endpoint: settings.endpoint,
    region: settings.region,
    credentials: {accessKeyId: settings.accessKeyId, secretAccessKey: settings.secretAccessKey.reveal()},
    forcePathStyle: true,
    maxAttempts: mostAttempts,
    // Corrected in signatures alone, a wrong clock would go unnoticed: into names of backups, ages and retention. So the
    // store refuses it (RequestTimeTooSkewed).
    disableClockSkewCorrection: true,
    // The SDK would open a connection of its own for every part, only to be told that it may send.
    expectContinueHeader: false,
    // R2 and older servers have refused the SDK's default CRC32 checksums.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {connectionTimeout: connectionTimeoutMs, socketTimeout: socketTimeoutMs},
  });
}

export class S3Store implements ObjectStore {
  readonly description: string;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #request: ReturnType<typeof plainRequests>;
  /** False when the store has said that it knows none (OpenStack Swift): then it is not asked again. */
  #hasConditionalWrites = true;

  constructor(client: S3Client, bucket: string, description: string) {
    this.#client = client;
    this.#bucket = bucket;
    this.#request = plainRequests(client, bucket);
    this.description = description;
  }

  /** By a listing, which every token may do that is of use here. */
  async isThere(): Promise<boolean> {
    const page = await this.#askUnless(isNoBucket, `looking for ${this.description}`, () =>
      this.#client.send(new ListObjectsV2Command({Bucket: this.#bucket, MaxKeys: 1})),
    );
    return page !== undefined;
  }

  async put(key: string, body: Readable, options: PutOptions): Promise<Pick<ObjectInfo, 'etag'>> {
    const {signal, partSizeBytes, key: whose = 'own'} = options;
    const mustBeNew = whose !== 'replacing';
    if (mustBeNew) await this.#refuseExisting(key);
    const upload = new StreamUpload(
      this.#client,
      {Bucket: this.#bucket, Key: key},
      {
        partSizeBytes,
        concurrency: options.concurrency ?? uploadConcurrency(partSizeBytes),
        contentType: options.contentType ?? 'application/octet-stream',
        metadata: options.metadata,
        onBytes: options.onBytes,
      },
    );
    const abort = () => {
      body.destroy();
      upload.interrupt();
    };
    const throwIfAborted = () => {
      if (signal?.aborted) throw signal.reason;
    };
    signal?.addEventListener('abort', abort, {once: true});
    try {
      throwIfAborted();
      await upload.send(body);
      throwIfAborted();
      const {etag} = await this.#complete(key, upload, mustBeNew);
      throwIfAborted();
      return {etag};
    } catch (error) {
      const isOfBody = error === body.errored;
      body.destroy();
      await this.#removeRemainsOf(key, upload, whose === 'own');
      const interrupted = interruption(signal);
      if (interrupted) throw interrupted;
      throw isOfBody ? error : storageError(`uploading ${key} to ${this.description}`, error);
    } finally {
      upload.close();
      signal?.removeEventListener('abort', abort);
    }
  }

  /** What was sent becomes the object; believe the bucket, not the answer. */
  async #complete(key: string, upload: StreamUpload, mustBeNew: boolean): Promise<ObjectInfo> {
    // Hours may have gone by since the start.
    if (mustBeNew) await this.#refuseExisting(key);
    try {
      if (mustBeNew) await this.#ifAbsent((ifNoneMatch) => upload.complete(ifNoneMatch));
      else await upload.complete(undefined);
    } catch (error) {
      // After an answer that was lost, the next try finds the upload gone, or the object there.
      if (!(await this.#holdsUpload(key, upload))) throw isPreconditionFailed(error) ? this.#existsError(key) : error;
    }
    const stored = await this.head(key);
    if (stored?.sizeBytes === upload.sentBytes) return stored;
    throw new Error(`${stored?.sizeBytes ?? 0} bytes are stored of ${upload.sentBytes} that were sent`);
  }

  /** Of two runs that use the same key, each can tell what is its own. */
  async #holdsUpload(key: string, upload: StreamUpload): Promise<boolean> {
    const stored = await this.head(key).catch(() => undefined);
    return stored?.etag !== undefined && stored.etag === upload.etag;
  }

  async #refuseExisting(key: string): Promise<void> {
    if (await this.head(key)) throw this.#existsError(key);
  }

  #existsError(key: string): BackupError {
    return new BackupError(`There is an object ${key} already`, {
      code: 'OBJECT_EXISTS',
      kind: 'storage',
      reason: `${this.description} holds an object of that name, which is not overwritten`,
      hint: 'Is another backup running? Run the command again: the next one has another name.',
    });
  }

  /** What cannot be removed now, because the store can't be reached, is invisible, and the next prune aborts it. */
  async #removeRemainsOf(key: string, upload: StreamUpload, isOwn: boolean): Promise<void> {
    await upload.abort().catch(() => undefined);
    if (!isOwn) return;
    try {
      // A request whose answer was lost may have succeeded.
      if (await this.#holdsUpload(key, upload)) await this.delete(key);
      if (!upload.isNameless) return;
      for await (const unfinished of this.unfinishedUploads(key)) {
        if (unfinished.key === key) await this.abortUpload(unfinished);
      }
    } catch {
      // As said above.
    }
  }

  /** A write that must not overwrite, atomically where the store can. */
  async #ifAbsent(write: (ifNoneMatch: '*' | undefined) => Promise<void>): Promise<void> {
    if (!this.#hasConditionalWrites) return write(undefined);
    try {
      await write('*');
    } catch (error) {
      if (!isNotImplemented(error)) throw error;
      this.#hasConditionalWrites = false;
      await write(undefined);
    }
  }

  async create(key: string, body: Buffer, options: string | SmallPutOptions = {}): Promise<void> {
    try {
      await this.#ifAbsent(async (ifNoneMatch) => {
        if (!ifNoneMatch) await this.#refuseExisting(key);
        await this.#putSmall(key, body, options, ifNoneMatch);
      });
    } catch (error) {
      if (!isPreconditionFailed(error)) throw storageError(`writing ${key} to ${this.description}`, error);
      // A first try whose answer was lost has written it.
      if (!(await this.#holds(key, body))) throw this.#existsError(key);
    }
  }

  async #holds(key: string, body: Buffer): Promise<boolean> {
    const stored = await readSmall(this, key, body.length).catch(() => undefined);
    return stored?.equals(body) ?? false;
  }

  async replace(key: string, body: Buffer, options: string | SmallPutOptions = {}): Promise<void> {
    try {
      await this.#putSmall(key, body, options);
    } catch (error) {
      throw storageError(`writing ${key} to ${this.description}`, error);
    }
  }

  async #putSmall(
    key: string,
    body: Buffer,
    options: string | SmallPutOptions,
    ifNoneMatch?: '*' | undefined,
  ): Promise<void> {
    const {contentType = 'application/json', metadata} = typeof options === 'string' ? {contentType: options} : options;
    const plain = await this.#request({
      method: 'PUT',
      key,
      headers: {
        'content-type': contentType,
        ...Object.fromEntries(
          Object.entries(metadata ?? {}).map(([name, value]) => [`${metadataPrefix}${name}`, value]),
        ),
        ...(ifNoneMatch ? {'if-none-match': ifNoneMatch} : {}),
      },
      body,
    });
    if (plain?.status === 200) return;
    await this.#client.send(
      new PutObjectCommand({
        Bucket: this.#bucket,
        Key: key,
        Body: body,
        ContentType: contentType,
        ...(metadata ? {Metadata: {...metadata}} : {}),
        ...(ifNoneMatch ? {IfNoneMatch: ifNoneMatch} : {}),
      }),
    );
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    const plain = await this.#request({method: 'HEAD', key});
    if (plain?.status === 404) return undefined;
    if (plain?.status === 200) return {key, ...headOf(plain.headers)};
    try {
      const answer = await this.#client.send(new HeadObjectCommand({Bucket: this.#bucket, Key: key}));
      return {
        key,
        sizeBytes: answer.ContentLength ?? 0,
        modifiedAt: answer.LastModified ?? new Date(0),
        etag: answer.ETag && unquoted(answer.ETag),
        metadata: answer.Metadata ?? {},
      };
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw storageError(`looking at ${key} in ${this.description}`, error);
    }
  }

  get(key: string, options: GetOptions = {}): Readable {
    return Readable.from(this.#download(key, options), {objectMode: false, highWaterMark: 1 << 20});
  }

  /**
   * A long GET breaks off sometimes. It is continued with `Range` from the last byte and `If-Match`, so that the rest is
   * of the same object; only a break without progress counts against the limit.
   */
  async *#download(key: string, {offset = 0, length, signal}: GetOptions): AsyncGenerator<Buffer> {
    if (length === 0) return;
    const end = length === undefined ? undefined : offset + length;
    let position = offset;
    let etag: string | undefined;
    let total: number | undefined;
    for (let failures = 0; ; ) {
      const begun = position;
      try {
        const part = await this.#getRange(key, position, end, etag, signal);
        if (!part) return;
        etag ??= part.etag;
        total ??= part.total;
        const limit = Math.min(end ?? Number.POSITIVE_INFINITY, total ?? Number.POSITIVE_INFINITY);
        for await (const chunk of part.body) {
          const wanted = chunk.subarray(0, limit - position);
          position += wanted.length;
          yield wanted;
          // Left at the end only when there is more than was asked for: a connection that was read to its end is used again.
          if (wanted.length < chunk.length) return;
        }
        if (total === undefined || position >= limit) return;
        throw new Error(`the connection was closed at byte ${position} of ${total}`);
      } catch (error) {
        const interrupted = interruption(signal);
        if (interrupted) throw interrupted;
        failures = position - begun < leastProgressBytes ? failures + 1 : 1;
        if (isNotFound(error)) throw this.#notFoundError(key);
        if (isPreconditionFailed(error)) throw this.#changedError(key);
        if (error instanceof BackupError || !isTransient(error) || failures > mostResumptions) {
          throw storageError(`reading ${key} from ${this.description}`, error);
        }
        await delay(100 * 2 ** failures, undefined, signal ? {signal} : {}).catch(() => undefined);
      }
    }
  }

  /** Undefined: the range begins behind the end. */
  async #getRange(
    key: string,
    start: number,
    end: number | undefined,
    etag: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{body: AsyncIterable<Buffer>; etag: string | undefined; total: number | undefined} | undefined> {
    const isWhole = start === 0 && end === undefined;
    try {
      const answer = await this.#client.send(
        new GetObjectCommand({
          Bucket: this.#bucket,
          Key: key,
          ...(isWhole ? {} : {Range: `bytes=${start}-${end === undefined ? '' : end - 1}`}),
          ...(etag ? {IfMatch: etag} : {}),
        }),
        signal ? {abortSignal: signal} : {},
      );
      const [, first, size] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(answer.ContentRange ?? '') ?? [];
      if (start > 0 && Number(first) !== start) throw this.#wrongRange(key, start);
      const total = size === undefined ? answer.ContentLength : size === '*' ? undefined : Number(size);
      return {body: answer.Body as unknown as AsyncIterable<Buffer>, etag: answer.ETag, total};
    } catch (error) {
      if ((error as {name?: string}).name === 'InvalidRange') return undefined;
      throw error;
    }
  }

  #wrongRange(key: string, start: number): BackupError {
    return new BackupError(`${key} cannot be read from its middle`, {
      code: 'STORAGE_FAILED',
      kind: 'storage',
      reason: `${this.description} was asked for what begins at byte ${start}, and sent something else`,
      hint: 'Is there a proxy or a cache before the store that does not know ranges? Go round it.',
    });
  }

  #notFoundError(key: string): BackupError {
    return new BackupError(`There is no object ${key}`, {
      code: 'OBJECT_NOT_FOUND',
      kind: 'storage',
      reason: `${this.description} holds no object of that name`,
    });
  }

  #changedError(key: string): BackupError {
    return new BackupError(`The object ${key} was replaced while it was read`, {
      code: 'OBJECT_CHANGED',
      kind: 'storage',
      hint: 'Nothing of this program replaces a backup: find out who wrote to the bucket.',
    });
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    let token: string | undefined;
    do {
      const doing = `listing ${this.description}`;
      const page = await this.#ask(doing, () =>
        this.#client.send(
          new ListObjectsV2Command({
            Bucket: this.#bucket,
            Prefix: prefix,
            EncodingType: 'url',
            ...(token ? {ContinuationToken: token} : {}),
          }),
        ),
      );
      for (const {Key, Size, LastModified} of page.Contents ?? []) {
        if (Key !== undefined)
          yield {key: listedKey(Key, page.EncodingType), sizeBytes: Size ?? 0, modifiedAt: LastModified ?? new Date(0)};
      }
      token = nextPage(doing, page.IsTruncated, page.NextContinuationToken, token);
    } while (token);
  }

  async delete(key: string): Promise<void> {
    // S3 and R2 answer 204; others say that it is not there, also to a second try after an answer that was lost.
    await this.#askUnless(isNotFound, `deleting ${key} from ${this.description}`, () =>
      this.#client.send(new DeleteObjectCommand({Bucket: this.#bucket, Key: key})),
    );
  }

  async *unfinishedUploads(prefix: string): AsyncGenerator<UnfinishedUpload> {
    let marker: string | undefined;
    do {
      const doing = `listing unfinished uploads of ${this.description}`;
      const [KeyMarker, UploadIdMarker] = marker?.split('\0') ?? [];
      const page = await this.#askUnless(isNotImplemented, doing, () =>
        this.#client.send(
          new ListMultipartUploadsCommand({
            Bucket: this.#bucket,
            Prefix: prefix,
            EncodingType: 'url',
            ...(marker === undefined ? {} : {KeyMarker, UploadIdMarker}),
          }),
        ),
      );
      // Who can't list them can't abort them: not every store has this request.
      if (!page) return;
      for (const {Key, UploadId, Initiated} of page.Uploads ?? []) {
        if (Key && UploadId)
          yield {key: listedKey(Key, page.EncodingType), id: UploadId, startedAt: Initiated ?? new Date(0)};
      }
      const {NextKeyMarker: next, NextUploadIdMarker: nextId = ''} = page;
      const place = next === undefined ? undefined : `${listedKey(next, page.EncodingType)}\0${nextId}`;
      marker = nextPage(doing, page.IsTruncated, place, marker);
    } while (marker !== undefined);
  }

  async newestPartAt({key, id}: UnfinishedUpload): Promise<Date | undefined> {
    let newest: Date | undefined;
    let marker: string | undefined;
    do {
      const doing = `listing the parts of the upload of ${key}`;
      const page = await this.#askUnless(isNoUpload, doing, () =>
        this.#client.send(
          new ListPartsCommand({Bucket: this.#bucket, Key: key, UploadId: id, PartNumberMarker: marker}),
        ),
      );
      if (!page) return newest;
      for (const {LastModified: at} of page.Parts ?? []) if (at && (!newest || at > newest)) newest = at;
      marker = nextPage(doing, page.IsTruncated, page.NextPartNumberMarker, marker);
    } while (marker !== undefined);
    return newest;
  }

  async abortUpload({key, id}: UnfinishedUpload): Promise<void> {
    await this.#askUnless(isNoUpload, `aborting the upload of ${key}`, () =>
      this.#client.send(new AbortMultipartUploadCommand({Bucket: this.#bucket, Key: key, UploadId: id})),
    );
  }

  async #ask<T>(doing: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw storageError(doing, error);
    }
  }

  /** Undefined when the store's answer is the one that is expected. */
  #askUnless<T>(
    isExpected: (error: unknown) => boolean,
    doing: string,
    request: () => Promise<T>,
  ): Promise<T | undefined> {
    return this.#ask(doing, () =>
      request().catch((error) => {
        if (isExpected(error)) return undefined;
        throw error;
      }),
    );
  }
}

const metadataPrefix = 'x-amz-meta-';

function headOf(headers: Readonly<Record<string, string>>): Omit<ObjectInfo, 'key'> {
  const metadata = Object.entries(headers).filter(([name]) => name.startsWith(metadataPrefix));
  return {
    sizeBytes: Number(headers['content-length'] ?? 0),
    modifiedAt: new Date(headers['last-modified'] ?? 0),
    etag: headers.etag && unquoted(headers.etag),
    metadata: Object.fromEntries(metadata.map(([name, value]) => [name.slice(metadataPrefix.length), value])),
  };
}

/** XML cannot hold every character that a key can (newlines, control characters): a listing is asked for in URL encoding. */
function listedKey(key: string, encoding: string | undefined): string {
  if (encoding !== 'url') return key;
  try {
    return decodeURIComponent(key.replaceAll('+', ' '));
  } catch (error) {
    throw storageError('reading a listing', error);
  }
}

/**
 * Where a listing goes on.
 * @throws BackupError STORAGE_FAILED for one that is said to go on and does not: it would have no end, or be a part
 */
function nextPage(doing: string, isTruncated: boolean | undefined, next: string | undefined, last: string | undefined) {
  if (!isTruncated) return undefined;
  if (next && next !== last) return next;
  throw storageError(doing, new Error('the store says that there is more, and not where'));
}
