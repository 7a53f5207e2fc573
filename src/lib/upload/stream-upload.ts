/**
 * A stream into one object by S3's multipart upload. Our own, and not lib-storage's: it completes only when there is no other
 * object by then, knows what is its own afterwards, comes to rest before it is aborted, and fills the same buffers again and
 * again (docs/decisions/0008).
 */
import {createHash} from 'node:crypto';
import type {Readable} from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import {mostParts} from './part-size.ts';
import type {ObjectMetadata} from './store.ts';

/** How long requests under way may take to come to rest, once the upload has failed. */
const graceMs = 10_000;

export interface StreamUploadOptions {
  partSizeBytes: number;
  /** Parts under way at once. */
  concurrency: number;
  contentType: string;
  metadata: ObjectMetadata | undefined;
  /** Is told the running total of bytes that are stored. */
  onBytes: ((total: number) => void) | undefined;
}

interface Part {
  number: number;
  bytes: Buffer;
}

export class StreamUpload {
  readonly #client: S3Client;
  readonly #object: {Bucket: string; Key: string};
  readonly #options: StreamUploadOptions;
  readonly #etags: string[] = [];
  readonly #giveUp = new AbortController();
  #grace: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<void>>();
  /** Buffers of a part's size that wait to be filled again. */
  readonly #spare: Buffer[] = [];
  /** The store's name for it, once it has been asked for one. */
  #id: string | undefined;
  /** All of a body that is no larger than a part: that goes with one request. */
  #whole: Buffer | undefined;
  #isBegun = false;
  #failure: unknown;
  #storedBytes = 0;
  #sentBytes = 0;

  constructor(client: S3Client, object: {Bucket: string; Key: string}, options: StreamUploadOptions) {
    this.#client = client;
    this.#object = object;
    this.#options = options;
  }

  /** Of the body so far. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** There may be an upload whose name is not known: the store was asked, and its answer was lost. */
  get isNameless(): boolean {
    return this.#isBegun && this.#id === undefined;
  }

  /**
   * The object's ETag, without quotes, as soon as all was sent: the MD5 of a whole object; of one in parts, the MD5 of their MD5s
   * and their count (R2's documentation, "Multipart uploads"; S3 does the same). Undefined where the store makes others.
   */
  get etag(): string | undefined {
    if (this.#whole) return createHash('md5').update(this.#whole).digest('hex');
    if (!this.#etags.every((etag) => /^[0-9a-f]{32}$/.test(etag))) return undefined;
    const digest = createHash('md5')
      .update(Buffer.from(this.#etags.join(''), 'hex'))
      .digest('hex');
    return `${digest}-${this.#etags.length}`;
  }

  /**
   * Sends a body to its end; there is no object before `complete`. When it fails, nothing of it is under way any more.
   * @throws what the body failed with, or an error of the SDK
   */
  async send(body: Readable): Promise<void> {
    try {
      for await (const {isLast, ...part} of this.#partsOf(body)) {
        if (isLast && part.number === 1) {
          this.#whole = part.bytes;
          return;
        }
        await this.#begin();
        if (this.#running.size === this.#options.concurrency) await Promise.race(this.#running);
        this.#start(part, body);
      }
      await Promise.all(this.#running);
    } catch (error) {
      await this.#comeToRest();
      throw this.#failure ?? error;
    }
    if (this.#failure) throw this.#failure;
  }

  async *#partsOf(body: Readable): AsyncGenerator<Part & {isLast: boolean}> {
    const {partSizeBytes} = this.#options;
    let number = 1;
    let buffer = this.#buffer();
    let filled = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; ) {
        if (filled === partSizeBytes) {
          yield {number, bytes: buffer, isLast: false};
          number += 1;
          buffer = this.#buffer();
          filled = 0;
        }
        const taken = chunk.copy(buffer, filled, at);
        at += taken;
        filled += taken;
        this.#sentBytes += taken;
      }
    }
    yield {number, bytes: buffer.subarray(0, filled), isLast: true};
  }

  #buffer(): Buffer {
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#options.partSizeBytes);
  }

  async #begin(): Promise<void> {
    if (this.#id !== undefined) return;
    const {contentType, metadata} = this.#options;
    this.#isBegun = true;
    const {UploadId} = await this.#client.send(
      new CreateMultipartUploadCommand({
        ...this.#object,
        ContentType: contentType,
        ...(metadata ? {Metadata: {...metadata}} : {}),
      }),
      {abortSignal: this.#giveUp.signal},
    );
    if (!UploadId) throw new Error('the store gave the upload no name');
    this.#id = UploadId;
  }

  #start(part: Part, body: Readable): void {
    const sending = this.#sendPart(part)
      .catch((error: unknown) => {
        this.#failure ??= error;
        // Nobody may be looking: the body brings no more.
        body.destroy();
        throw error;
      })
      .finally(() => this.#running.delete(sending));
    sending.catch(() => undefined);
    this.#running.add(sending);
  }

  async #sendPart({number, bytes}: Part): Promise<void> {
    if (number > mostParts) throw new Error(`the object would have more than ${mostParts} parts`);
    const {ETag} = await this.#client.send(
      new UploadPartCommand({...this.#object, UploadId: this.#id, PartNumber: number, Body: bytes}),
      {abortSignal: this.#giveUp.signal},
    );
    if (!ETag) throw new Error(`the store gave part ${number} no ETag`);
    this.#etags[number - 1] = unquoted(ETag);
    this.#stored(bytes.length);
    if (bytes.length === this.#options.partSizeBytes) this.#spare.push(bytes);
  }

  #stored(bytes: number): void {
    this.#storedBytes += bytes;
    this.#options.onBytes?.(this.#storedBytes);
  }

  async #comeToRest(): Promise<void> {
    this.interrupt();
    await Promise.allSettled(this.#running);
    this.close();
  }

  /** A request that is called off may still take effect: it is waited for, unless its connection is dead. */
  interrupt(): void {
    this.#grace ??= setTimeout(() => this.#giveUp.abort(), graceMs);
  }

  /** Nothing is under way any more. */
  close(): void {
    clearTimeout(this.#grace);
  }

  /**
   * Makes the object of what was sent.
   * @param ifNoneMatch `*`: only if there is none of that key
   * @throws an error of the SDK
   */
  async complete(ifNoneMatch: '*' | undefined): Promise<void> {
    const condition = ifNoneMatch ? {IfNoneMatch: ifNoneMatch} : {};
    if (this.#whole) {
      const {contentType, metadata} = this.#options;
      await this.#client.send(
        new PutObjectCommand({
          ...this.#object,
          Body: this.#whole,
          ContentType: contentType,
          ...(metadata ? {Metadata: {...metadata}} : {}),
          ...condition,
        }),
        {abortSignal: this.#giveUp.signal},
      );
      this.#stored(this.#whole.length);
      return;
    }
    await this.#client.send(
      new CompleteMultipartUploadCommand({
        ...this.#object,
        UploadId: this.#id,
        MultipartUpload: {Parts: this.#etags.map((ETag, index) => ({ETag, PartNumber: index + 1}))},
        ...condition,
      }),
      {abortSignal: this.#giveUp.signal},
    );
  }

  /** @throws an error of the SDK */
  async abort(): Promise<void> {
    if (this.#id === undefined) return;
    await this.#client.send(new AbortMultipartUploadCommand({...this.#object, UploadId: this.#id}));
  }
}

/** An ETag stands in quotes in HTTP, and some stores leave them out. */
export function unquoted(etag: string): string {
  return etag.replace(/^"(.*)"$/, '$1');
}
