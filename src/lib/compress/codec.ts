/** Compression codecs. One is chosen by name to write, and found by the key's suffix to read. */
import type {Duplex} from 'node:stream';
import {createGunzip, gzip} from 'node:zlib';
import type {CompressionName} from '../config.ts';
import {BackupError, codeOf, messageOf} from '../errors.ts';
import type {BlockPool} from '../streams/block-pool.ts';
import {compressBlocks} from './block-compressor.ts';
import {zstdDecompressor} from './zstd-decompressor.ts';
import {zstdFrames} from './zstd-frames.ts';

export interface Codec {
  name: CompressionName;
  /** A fresh stage that compresses. @param pool see `compressBlocks` */
  compress(pool?: BlockPool): Duplex;
  /** A fresh stage that decompresses, and fails when the stream is damaged or cut off. */
  decompress(): Duplex;
}

/**
 * Levels: the fastest that is worth it, from the table of `npm run bench` (docs/PERFORMANCE.md). Higher ones cost
 * several times the processor time for one or two percent.
 */
const gzipLevel = 4;
const zstdLevel = 1;

/** Output buffers, in bytes: at Node's 16 KiB every block would come back from the thread pool a dozen times. */
const chunkSize = 1 << 18;
/** Most blocks are smaller than this when they are compressed, and need not be put together. */
const gzipChunkSize = 1 << 19;

export const codecs: Readonly<Record<CompressionName, Codec>> = {
  gzip: {
    name: 'gzip',
    compress: (pool) =>
      compressBlocks(
        (block, done) => gzip(block, {level: gzipLevel, memLevel: 9, chunkSize: gzipChunkSize}, done),
        pool,
      ),
    decompress: () => createGunzip({chunkSize}),
  },
  zstd: {
    name: 'zstd',
    compress: (pool) => compressBlocks(zstdFrames(zstdLevel), pool),
    decompress: zstdDecompressor,
  },
};

/** The error for a stream that could not be decompressed; undefined if it was something else that failed. */
export function decompressionError(error: unknown, what: string): BackupError | undefined {
  if (!/^(Z_|ZSTD_error_)/.test(codeOf(error) ?? '')) return undefined;
  return new BackupError('Decryption failed', {
    code: 'DECRYPTION_FAILED',
    kind: 'integrity',
    reason: `${what} was opened, and what is in it cannot be decompressed: ${messageOf(error)}`,
    hint: 'The backup was damaged when it was made. Restore an earlier one (loma-backup list).',
  });
}
