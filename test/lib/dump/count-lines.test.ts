import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {countLines} from '../../../src/lib/dump/count-lines.ts';

/** Byte by byte, as anybody would count. */
function lines(bytes: Uint8Array): number {
  return bytes.reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 0);
}

describe('countLines', () => {
  // Neighbours of the line break, and bytes whose highest bit is set, are where adding four at a time could go wrong.
  const bytes = fc.array(fc.constantFrom(0x0a, 0x0b, 0x09, 0x00, 0x8a, 0xff, 0x7f, 0x80, 0x41), {maxLength: 3000});

  it('counts what is there, wherever a piece begins and ends', () => {
    fc.assert(
      fc.property(bytes, fc.nat(8), fc.nat(8), (all, from, less) => {
        const piece = Uint8Array.from(all).subarray(from, Math.max(from, all.length - less));
        expect(countLines(piece)).toBe(lines(piece));
      }),
    );
  });

  it('counts a block of nothing but line breaks', () => {
    expect(countLines(Buffer.alloc(1 << 20, 0x0a))).toBe(1 << 20);
    expect(countLines(new Uint8Array(0))).toBe(0);
  });
});
