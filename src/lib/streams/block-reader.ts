import {Socket} from 'node:net';
import {Readable} from 'node:stream';
import {BlockPool, blockBytes} from './block-pool.ts';

/** What a pipe of Linux holds, in bytes: no read gives more. */
const pipeBytes = 1 << 16;

export interface BlockReaderOptions {
  /** Where the bytes come from: the reading end of a pipe, or a stream where there is none. */
  source: number | Readable;
  /** Settles when the writer has ended; if it rejects, the stream fails with that before its end. */
  writer: Promise<unknown>;
  /** Called when the stream is destroyed before its end. */
  abandon: () => void;
  /** Where blocks come from; fresh ones by default. */
  pool?: BlockPool | undefined;
}

/** Reads a pipe in blocks: all of `blockBytes` but the last. */
export class BlockReader extends Readable {
  readonly #options: BlockReaderOptions;
  readonly #pool: BlockPool;
  readonly #source: Readable;
  #block: Buffer;
  #filled = 0;

  constructor(options: BlockReaderOptions) {
    super({highWaterMark: blockBytes});
    this.#options = options;
    this.#pool = options.pool ?? new BlockPool();
    this.#block = this.#pool.take();
    this.#source = typeof options.source === 'number' ? this.#socket(options.source) : options.source;
    if (typeof options.source !== 'number') {
      this.#source.on('data', (bytes: Buffer) => {
        if (!this.#take(bytes)) this.#source.pause();
      });
    }
    this.#source.once('end', () => void this.#finish());
    this.#source.once('error', (error) => this.destroy(error));
    options.writer.catch(() => undefined);
  }

  #socket(fd: number): Socket {
    return new Socket({
      fd,
      readable: true,
      writable: false,
      onread: {
        buffer: Buffer.allocUnsafeSlow(pipeBytes),
        callback: (length, bytes) => this.#take((bytes as Buffer).subarray(0, length)),
      },
    });
  }

  /** Gives whether the reader wants more. */
  #take(bytes: Buffer): boolean {
    let isWanted = true;
    for (let at = 0; at < bytes.length; ) {
      const taken = bytes.copy(this.#block, this.#filled, at);
      at += taken;
      this.#filled += taken;
      if (this.#filled < blockBytes) continue;
      isWanted = this.push(this.#block);
      this.#block = this.#pool.take();
      this.#filled = 0;
    }
    return isWanted;
  }

  /** The end of the bytes is a good one only if the writer says so. */
  async #finish(): Promise<void> {
    try {
      await this.#options.writer;
    } catch (error) {
      this.destroy(error as Error);
      return;
    }
    if (this.#filled > 0) this.push(this.#block.subarray(0, this.#filled));
    this.push(null);
  }

  override _read(): void {
    this.#source.resume();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#source.destroy();
    this.#options.abandon();
    done(error);
  }
}
