import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {filePartSize, mostParts, partSizeFor, uploadConcurrency} from '../../../src/lib/upload/part-size.ts';

const mib = 1 << 20;
const gib = 1 << 30;

describe('the part size', () => {
  it.each([
    [0, 8 * mib],
    [1, 8 * mib],
    [50 * gib, 8 * mib],
    // 10,000 parts of 8 MiB hold half as much again as this, and not one byte more.
    [(80_000 * mib) / 1.5 - 1, 8 * mib],
    [(80_000 * mib) / 1.5 + 1, 9 * mib],
    [1024 * gib, 158 * mib],
    [Number.MAX_SAFE_INTEGER, 5 * gib],
  ])('of a database of %i bytes is %i', (databaseBytes, size) => {
    expect(partSizeFor(databaseBytes)).toBe(size);
  });

  it('is whole MiB within the limits, and suffices for half as much again as the database', () => {
    const most = Math.floor((5 * gib * mostParts) / 1.5);
    fc.assert(
      fc.property(fc.integer({min: 0, max: most}), (databaseBytes) => {
        const size = partSizeFor(databaseBytes);
        expect(size % mib).toBe(0);
        expect(size).toBeGreaterThanOrEqual(8 * mib);
        expect(size).toBeLessThanOrEqual(5 * gib);
        expect(size * mostParts).toBeGreaterThanOrEqual(databaseBytes * 1.5);
      }),
    );
  });

  it('never shrinks as the database grows', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), (a, b) => {
        expect(partSizeFor(Math.min(a, b) * 4096)).toBeLessThanOrEqual(partSizeFor(Math.max(a, b) * 4096));
      }),
    );
  });
});

describe('the part size of a file', () => {
  it.each([
    [0, 5 * mib],
    [48 * gib, 5 * mib],
    [50 * gib, 6 * mib],
    [5 * 1024 * gib, 530 * mib],
  ])('of %i bytes is %i', (fileBytes, size) => {
    expect(filePartSize(fileBytes)).toBe(size);
  });
});

describe('the parts under way at once', () => {
  it.each([
    [8 * mib, 3],
    [21 * mib, 3],
    [22 * mib, 2],
    [32 * mib, 2],
    [33 * mib, 1],
    [5 * gib, 1],
  ])('for parts of %i bytes are %i', (size, count) => {
    expect(uploadConcurrency(size)).toBe(count);
  });
});
