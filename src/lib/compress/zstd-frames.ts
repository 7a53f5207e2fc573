import {constants, createZstdCompress, type ZstdCompress} from 'node:zlib';
import type {CompressBlock} from './block-compressor.ts';

/**
 * Output buffers, in bytes; several frames share one. Where there is room for the worst case, zstd compresses a block where it lies;
 * elsewhere it copies it through a window of its own.
 */
const chunkSize = 4 << 20;

interface Compressor {
  stream: ZstdCompress;
  parts: Buffer[];
  fail: (error: Error) => void;
}

/**
 * Compresses each block as a frame of its own (RFC 8878, 3.1); where a frame ends exactly with an output buffer, an empty one follows it.
 * Compressors are used again and again: Node's `zstdCompress` makes one for every block, with tables and buffers that V8 collects its
 * garbage for.
 */
export function zstdFrames(level: number): CompressBlock {
  const idle: Compressor[] = [];
  return (block, done) => {
    const compressor = idle.pop() ?? newCompressor(level);
    const {stream} = compressor;
    compressor.fail = done;
    stream.write(block, (error) => {
      if (error) return;
      // What was not passed on at once.
      while (stream.read() !== null);
      const {parts} = compressor;
      compressor.parts = [];
      idle.push(compressor);
      done(null, parts.length === 1 ? parts[0] : Buffer.concat(parts));
    });
  };
}

function newCompressor(level: number): Compressor {
  const stream = createZstdCompress({
    chunkSize,
    // Every write ends a frame.
    flush: constants.ZSTD_e_end,
    params: {[constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1},
  });
  const compressor: Compressor = {stream, parts: [], fail: () => undefined};
  stream.on('data', (bytes: Buffer) => void compressor.parts.push(bytes));
  stream.on('error', (error) => compressor.fail(error));
  return compressor;
}
