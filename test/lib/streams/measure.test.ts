import {createHash} from 'node:crypto';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {measure} from '../../../src/lib/streams/measure.ts';
import {cut, cutPlaces, feed} from '../feed.ts';

describe('measuring', () => {
  it('counts and digests, however the stream is cut, and changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({maxLength: 300}), cutPlaces, async (values, places) => {
        const bytes = Buffer.from(values);
        const pieces = cut(bytes, places);
        const totals: number[] = [];
        const tap = measure({digest: true, onBytes: (total) => totals.push(total)});
        expect((await feed(pieces, tap)).equals(bytes)).toBe(true);
        expect(tap.bytes).toBe(bytes.length);
        expect(tap.sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
        expect(totals.at(-1) ?? 0).toBe(bytes.length);
        expect(totals).toEqual([...totals].sort((a, b) => a - b));
      }),
    );
  });

  it('has no digest before the end, or when none was asked for', async () => {
    expect(() => measure({digest: true}).sha256).toThrow(/not been read to its end/);
    const tap = measure();
    await feed([Buffer.from('x')], tap);
    expect(() => tap.sha256).toThrow();
    expect(tap.bytes).toBe(1);
  });
});
