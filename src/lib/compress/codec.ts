/** Compression codecs. One is chosen by name to write, and found by the key's suffix to read. */
import type {Transform} from 'node:stream';
import {constants, createGunzip, createZstdDecompress, gzip, zstdCompress} from 'node:zlib';
import {compressBlocks} from './block-compressor.ts';

export type CompressionName = 'gzip' | 'zstd';

export interface Codec {
  name: CompressionName;
  /** What a key ends with before `.encrypted`: `.sql.gz`. */
  suffix: string;
  /** A fresh stage that compresses. */
  compress(): Transform;
  /** A fresh stage that decompresses, and fails when the stream is damaged or cut off. */
  decompress(): Transform;
}

/**
 * Levels: the fastest that is worth it, from the table of `npm run bench` (docs/PERFORMANCE.md). Higher ones cost
 * several times the processor time for one or two percent.
 */
const gzipLevel = 1;
const zstdLevel = 1;

const decompressOptions = {chunkSize: 1 << 18};

export const codecs: Readonly<Record<CompressionName, Codec>> = {
  gzip: {
    name: 'gzip',
    suffix: '.sql.gz',
    compress: () => compressBlocks((block, done) => gzip(block, {level: gzipLevel, memLevel: 9}, done)),
    decompress: () => createGunzip(decompressOptions),
  },
  zstd: {
    name: 'zstd',
    suffix: '.sql.zst',
    compress: () =>
      compressBlocks((block, done) =>
        zstdCompress(
          block,
          {params: {[constants.ZSTD_c_compressionLevel]: zstdLevel, [constants.ZSTD_c_checksumFlag]: 1}},
          done,
        ),
      ),
    decompress: () => createZstdDecompress(decompressOptions),
  },
};
