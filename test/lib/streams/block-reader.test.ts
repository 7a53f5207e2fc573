import {closeSync, readdirSync, writeSync} from 'node:fs';
import {mkdtemp, readdir, rmdir} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {openPipe, type PipeEnds} from '../../../src/lib/postgres/process.ts';
import {BlockPool, blockBytes} from '../../../src/lib/streams/block-pool.ts';
import {BlockReader} from '../../../src/lib/streams/block-reader.ts';

const done = Promise.resolve();
const nothing = () => {};

/** Bytes of which no two stretches are alike, so that a block out of place is seen. */
const text = Buffer.from(Array.from({length: 400_000}, (_, index) => `${index};`).join(''));

/** As a pipeline reads it: an iterator would get what is buffered in one piece, before Node.js 26. */
async function each(reader: BlockReader, take: (block: Buffer) => void): Promise<void> {
  const write = (block: Buffer, _: unknown, next: () => void) => {
    take(block);
    next();
  };
  await pipeline(reader, new Writable({write}));
}

async function read(chunks: readonly Buffer[]): Promise<Buffer[]> {
  const blocks: Buffer[] = [];
  const reader = new BlockReader({source: Readable.from(chunks), writer: done, abandon: nothing});
  await each(reader, (block) => blocks.push(block));
  return blocks;
}

describe('a block reader', () => {
  it('gives the same bytes for every way of cutting them, in whole blocks but the last', async () => {
    const cuts = fc.array(fc.nat(text.length), {maxLength: 12});
    await fc.assert(
      fc.asyncProperty(cuts, async (places) => {
        const ends = [...places.toSorted((a, b) => a - b), text.length];
        const blocks = await read(ends.map((end, index) => text.subarray(ends[index - 1] ?? 0, end)));
        expect(Buffer.concat(blocks).equals(text)).toBe(true);
        expect(blocks.slice(0, -1).every((block) => block.length === blockBytes)).toBe(true);
      }),
      {numRuns: 20},
    );
  });

  it('gives an empty stream for none', async () => {
    expect(await read([])).toEqual([]);
  });

  it('fills the blocks that come back', async () => {
    const pool = new BlockPool();
    const seen = new Set<ArrayBufferLike>();
    const reader = new BlockReader({source: Readable.from(repeat(text, 20)), writer: done, abandon: nothing, pool});
    const parts: Buffer[] = [];
    await each(reader, (block) => {
      seen.add(block.buffer);
      parts.push(Buffer.from(block));
      pool.give(block);
    });
    expect(Buffer.concat(parts).equals(Buffer.concat([...repeat(text, 20)]))).toBe(true);
    expect(parts.length).toBeGreaterThan(40);
    expect(seen.size).toBeLessThan(6);
  });

  it('reads no further than it is asked to', async () => {
    let given = 0;
    const source = Readable.from(
      (function* () {
        for (; given < 100; given += 1) yield Buffer.alloc(blockBytes);
      })(),
    );
    const reader = new BlockReader({source, writer: done, abandon: nothing});
    await new Promise((resolve) => reader.once('readable', resolve));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(given).toBeLessThan(40);
    reader.destroy();
  });

  it('fails before its end when the writer failed, and says so when it is left', async () => {
    const abandoned: string[] = [];
    const failed = new BlockReader({
      source: Readable.from([Buffer.from('half a dump')]),
      writer: Promise.reject(new Error('exit code 1')),
      abandon: () => abandoned.push('yes'),
    });
    await expect(failed.toArray()).rejects.toThrow('exit code 1');
    expect(abandoned).toEqual(['yes']);
  });
});

function* repeat(bytes: Buffer, times: number): Generator<Buffer> {
  for (let index = 0; index < times; index += 1) yield bytes;
}

describe('a pipe', () => {
  it('is read to the end that its writer makes, and leaves no name behind', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'loma-test-pipe-'));
    const {readFd, writeFd} = openPipe(folder) as PipeEnds;
    expect(await readdir(folder)).toEqual([]);
    await rmdir(folder);
    const reader = new BlockReader({source: readFd, writer: done, abandon: nothing});
    const all = reader.toArray();
    writeSync(writeFd, 'one ');
    await new Promise((resolve) => setTimeout(resolve, 20));
    writeSync(writeFd, 'two');
    closeSync(writeFd);
    expect(Buffer.concat(await all).toString()).toBe('one two');
  });

  it('is closed with the stream', async () => {
    const open = () => readdirSync('/proc/self/fd').length;
    const before = open();
    const {readFd, writeFd} = openPipe() as PipeEnds;
    const reader = new BlockReader({source: readFd, writer: done, abandon: nothing});
    const closed = new Promise((resolve) => reader.once('close', resolve));
    reader.destroy();
    await closed;
    closeSync(writeFd);
    await new Promise((resolve) => setImmediate(resolve));
    expect(open()).toBe(before);
  });

  it('is not there where none can be made', () => {
    expect(openPipe('/proc/none')).toBeUndefined();
  });
});
