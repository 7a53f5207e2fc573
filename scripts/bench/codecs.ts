/** Compression levels: speed against size, on blocks of the real dump, one core. */
import {closeSync, fstatSync, openSync, readSync} from 'node:fs';
import {constants, gzipSync, zstdCompressSync} from 'node:zlib';

const blockBytes = 1 << 20;
const mostBlocks = 128;

export interface CodecFigures {
  codec: string;
  level: number;
  /** Processor time for a million bytes, in milliseconds. */
  cpuMsPerMb: number;
  /** Of the plain text, what is saved. */
  reduction: number;
}

const levels = {gzip: [1, 4, 6, 9], zstd: [1, 3, 6]} as const;

/** The same settings as `src/lib/compress/codec.ts`, at other levels. */
const compressors = {
  gzip: (level: number) => (block: Buffer) => gzipSync(block, {level, memLevel: 9}),
  zstd: (level: number) => (block: Buffer) =>
    zstdCompressSync(block, {
      params: {[constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1},
    }),
};

export function measureCodecs(dumpFile: string): CodecFigures[] {
  const blocks = sampleBlocks(dumpFile);
  return (['gzip', 'zstd'] as const).flatMap((codec) =>
    levels[codec].map((level) => ({codec, level, ...measureLevel(blocks, compressors[codec](level))})),
  );
}

/** Blocks from all over the dump: its tables compress differently. */
function sampleBlocks(file: string): Buffer[] {
  const descriptor = openSync(file, 'r');
  try {
    const whole = Math.max(1, Math.floor(fstatSync(descriptor).size / blockBytes));
    const count = Math.min(whole, mostBlocks);
    return Array.from({length: count}, (_, index) => {
      const block = Buffer.alloc(blockBytes);
      const length = readSync(descriptor, block, 0, blockBytes, Math.floor((index * whole) / count) * blockBytes);
      return block.subarray(0, length);
    });
  } finally {
    closeSync(descriptor);
  }
}

function measureLevel(
  blocks: readonly Buffer[],
  compress: (block: Buffer) => Buffer,
): Pick<CodecFigures, 'cpuMsPerMb' | 'reduction'> {
  let before = 0;
  let after = 0;
  const start = process.cpuUsage();
  for (const block of blocks) {
    before += block.length;
    after += compress(block).length;
  }
  const {user, system} = process.cpuUsage(start);
  return {cpuMsPerMb: (user + system) / 1000 / (before / 1e6), reduction: 1 - after / before};
}
